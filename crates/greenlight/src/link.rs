//! The link between server, agents and operators: HTTP and JSON over mutual TLS.
//!
//! Agents dial out. Directives come to them as a stream of server-sent events, reports go back
//! as POSTs that may be repeated. Everything can be watched with `curl --cert`.

mod client;
mod dial;
mod https;
mod outbox;
pub mod peer;
mod pki;
mod question;
mod serve;

pub use client::{ApiClient, ApiError, Follow};
pub use dial::{Dial, DialEvent};
pub use https::{Https, HttpsError};
pub use outbox::{LinkEvent, Outboxes, agent_router};
pub use pki::{Authority, Credentials, PkiError, Role};
pub use question::{AgentAnswer, Asked, Question, ReleaseSecrets};
pub use serve::{allow, serve};
