//! The link between server, agents and operators: HTTP and JSON over mutual TLS.
//!
//! Agents dial out. Directives come to them as a stream of server-sent events, reports go back
//! as POSTs that may be repeated. Everything can be watched with `curl --cert`.

mod client;
mod dial;
mod https;
mod logs;
mod outbox;
pub mod peer;
mod pki;
mod serve;

pub use client::{ApiClient, ApiError, Follow};
pub use dial::{Dial, DialEvent};
pub use https::{Https, HttpsError};
pub use logs::LogsQuestion;
pub use outbox::{LinkEvent, Outboxes, agent_router};
pub use pki::{Authority, Credentials, PkiError, Role};
pub use serve::{allow, serve};
