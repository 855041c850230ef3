//! The link between server, agents and operators: HTTP and JSON over mutual TLS.
//!
//! Agents dial out. Directives come to them as a stream of server-sent events, reports go back
//! as POSTs that may be repeated. Everything can be watched with `curl --cert`.

mod client;
mod dial;
mod https;
mod identity;
mod join;
mod outbox;
pub mod peer;
mod pinned;
mod pki;
mod question;
mod renew;
mod serve;
mod token;

pub use client::{ApiClient, ApiError, Follow};
pub use dial::{Dial, DialEvent};
pub use https::{Https, HttpsError};
pub use identity::{Identity, Strangers};
pub use join::{
    JoinError, Registry, TokenAnswer, TokenRequest, UNKNOWN_HELP, join, note_fleet, noted_fleet,
};
pub use outbox::{LinkEvent, Outboxes, agent_router};
pub use pki::{
    Authority, CERTIFICATE_LIFETIME, Credentials, PkiError, Request, Role, fingerprint, role_of,
};
pub use question::{AgentAnswer, Asked, Question, ReleaseSecrets};
pub use renew::Renewal;
pub use serve::{allow, serve, serve_with_strangers};
pub use token::{Token, TokenError, Tokens, ValidityError, check_validity};
