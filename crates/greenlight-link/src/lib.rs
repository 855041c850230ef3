//! The link between server, agents and operators: HTTP and JSON over mutual TLS.
//!
//! Agents dial out. Directives come to them as a stream of server-sent events, reports go back
//! as POSTs that may be repeated. Everything can be watched with `curl --cert`.
//!
//! What is said is defined here too, for all who say or read it: the server's API ([`api`]),
//! receipts ([`receipt`]), what `doctor` asks and is told ([`doctor`]), and the requests to agents
//! beside the protocol.
//!
//! Deliberately absent: what a server or an agent does with any of it.

mod agent_request;
mod agent_streams;
pub mod api;
mod client;
pub mod doctor;
mod fingerprint_key;
mod fingerprint_verifier;
mod https;
mod join;
mod own_certificate;
pub mod peer;
mod pending_responses;
mod pki;
pub mod printable;
pub mod receipt;
mod renew;
mod role;
mod serve;
mod server_link;
mod signature;
mod telemetry;
mod token;

pub use agent_request::{
    AgentRequest, AgentResponse, AnyRequest, ExamineMachine, NumberedRequest, PinImage, ReadLogs,
    ReleaseSecrets, RequestError, SetAddresses, StoreSecrets,
};
pub use agent_streams::{AgentStreams, LinkEvent, agent_router};
pub use client::{ApiClient, ApiError, Follow};
pub use fingerprint_key::FingerprintKey;
pub use https::{Https, HttpsError};
pub use join::{
    Enrollment, JoinError, TokenAnswer, TokenRequest, UNKNOWN_HELP, join, note_fleet, noted_fleet,
};
pub use own_certificate::{ClientAuth, Identity};
pub use pki::{
    Authority, CERTIFICATE_LIFETIME, Credentials, PkiError, Request, fingerprint, role_of,
};
pub use renew::{Renewal, RenewalError};
pub use role::{Role, allow};
pub use serve::{serve, serve_with_optional_client_auth};
pub use server_link::{ServerLink, ServerLinkEvent};
pub use signature::{DocumentSigner, SignedBy};
pub use telemetry::{Readings, Telemetry};
pub use token::{JoinToken, TokenError, Tokens, ValidityError, check_validity};
