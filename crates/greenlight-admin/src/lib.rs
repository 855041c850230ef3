//! The admin socket of a proxy, for those who speak to it: its requests and responses, and a
//! client.
//!
//! HTTP and JSON over a unix socket, so that `curl --unix-socket` shows everything. What is said
//! about gates is defined by `greenlight-gate`, whose machine answers it; settings and status are
//! defined here.
//!
//! Deliberately absent: the socket's server, which is the proxy's; and fleets.

mod client;
mod evidence_request;
mod service_settings;
mod status;

pub use client::{AdminClient, AdminError, ErrorAnswer};
pub use evidence_request::EvidenceRequest;
pub use greenlight_gate::{
    Color, DrainAnswer, DrainRequest, EvidenceAnswer, HeldService, HoldAnswer, HoldRequest,
    InFlight, OnUncertain, OpenAnswer, OpenRequest, ServiceEvidence, ServicesRequest,
};
pub use service_settings::ServiceSettings;
pub use status::{ServiceStatus, StatusAnswer};

/// Answered by the gate itself, and only on a unix socket: a proxy in front asks for it, to see
/// whether it reaches the gate.
pub const GATE_PATH: &str = "/.greenlight/gate";
/// The response to [`GATE_PATH`].
pub const GATE_RESPONSE: &str = "the gate of greenlight\n";
