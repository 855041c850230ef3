//! The admin socket's requests and answers, and a client for them.
//!
//! HTTP and JSON over a unix socket, so that `curl --unix-socket` shows everything.

mod client;

pub use client::{AdminClient, AdminError};

pub use crate::gate::{Color, InFlight};
pub use crate::routing::ServiceSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a gate does when a hold's deadline passes without a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUncertain {
    /// Open to the old color again.
    ServeOld,
    /// Answer 503 until another command comes.
    Shed,
}

/// `POST /v1/hold`: stop admitting. Answered when nothing more reaches the old color.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// The cut-over; an older one than was last obeyed for any of the services is refused, and
    /// so is one that was opened already.
    pub epoch: u64,
    /// The services to hold. One that was never opened serves no requests and is not held: its
    /// requests are refused as before.
    pub services: Vec<String>,
    /// The deadline kept here, in milliseconds.
    pub max_hold_ms: u64,
    /// What happens at the deadline; a parked service stays parked.
    pub on_uncertain: OnUncertain,
    /// Wait at most this long, in milliseconds, until the old color has no request in flight.
    #[serde(default)]
    pub exclusive_ms: Option<u64>,
}

/// The answer to a hold. Times are nanoseconds on the monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldAnswer {
    /// When the hold was complete.
    pub held_at_ns: u64,
    pub services: BTreeMap<String, HeldService>,
}

/// One service as it was held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldService {
    /// The color that was served.
    pub color: Option<Color>,
    /// When the last request was admitted to it.
    pub last_admission_ns: Option<u64>,
    /// Requests still in flight there.
    pub in_flight: u64,
    /// Requests that were picked but not yet sent, and taken back.
    pub recalled: u64,
}

/// `POST /v1/open`: flip and release, in one message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    pub epoch: u64,
    /// Where each service goes; `null`: nowhere, its requests are refused from now on.
    pub services: BTreeMap<String, Option<Color>>,
}

/// The answer to opening, given when the routing is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAnswer {
    /// When the gates opened.
    pub opened_at_ns: u64,
    /// Requests that had waited since the hold began.
    pub released: u64,
}

/// `POST /v1/park` and `POST /v1/shed`: let requests wait without a deadline, or refuse them. What
/// is parked stays so, also through later holds and their deadlines, until it is opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicesRequest {
    pub epoch: u64,
    pub services: Vec<String>,
}

/// `POST /v1/drain`: wait until nothing is in flight to a color.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    pub service: String,
    pub color: Color,
    /// How long to wait, in milliseconds.
    pub deadline_ms: u64,
}

/// What was left in flight: all zero if the drain was complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainAnswer {
    #[serde(flatten)]
    pub left: InFlight,
}

/// `POST /v1/evidence`: what the gates saw of a cut-over, as soon as each has admitted a request to
/// the new release, or at the deadline.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRequest {
    /// The cut-over.
    pub epoch: u64,
    /// How long to wait, in milliseconds.
    pub deadline_ms: u64,
}

/// `GET /v1/evidence/{epoch}`: what the gates saw of a cut-over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceAnswer {
    pub services: BTreeMap<String, ServiceEvidence>,
}

/// What one gate saw of one cut-over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEvidence {
    /// The color served before.
    pub old: Option<Color>,
    /// The color served after.
    pub new: Option<Color>,
    /// When the hold was complete.
    pub held_at_ns: Option<u64>,
    /// When the last request was admitted to the old color: before the hold was complete, or the
    /// gate did not stay closed.
    pub last_admission_old_ns: Option<u64>,
    /// When the gate opened again.
    pub opened_at_ns: Option<u64>,
    /// When the first request was admitted after that.
    pub first_admission_new_ns: Option<u64>,
    /// Requests that waited.
    pub held: u64,
    /// The longest wait, in microseconds.
    pub max_held_us: u64,
    /// Requests picked but not yet sent that were taken back.
    pub recalled: u64,
    /// Requests sent again because the application died under them.
    pub retried: u64,
    /// Requests that failed and could not be sent again: answered 502 or 504, broken off in the
    /// middle of their answer, or answered 503 because too many waited for the application.
    pub failed: u64,
    /// Requests answered 503 by the gate.
    pub shed: u64,
    /// Whether the deadline ended the hold.
    pub expired: bool,
}

/// The evidence of the last cut-overs.
pub(crate) type EvidenceByEpoch = BTreeMap<u64, BTreeMap<String, ServiceEvidence>>;

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    pub pid: u32,
    /// Its version; empty if it does not say.
    #[serde(default)]
    pub version: String,
    /// When it started, in nanoseconds on the monotonic clock. Distinguishes one process from the
    /// next also where each has the same number, as in a container.
    pub started_at_ns: u64,
    /// Earlier processes that drain: they have handed over and still have connections.
    pub draining: usize,
    /// Descriptors that it may have open at once; `None` if it does not say, or has no bound.
    #[serde(default)]
    pub max_descriptors: Option<u64>,
    /// Where users come in.
    pub listening: Vec<String>,
    /// The highest epoch obeyed for any service.
    pub epoch: u64,
    pub services: BTreeMap<String, ServiceStatus>,
}

/// The present state of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// How it is routed.
    pub settings: ServiceSettings,
    /// `open`, `held`, `shed` or `closed`.
    pub state: String,
    /// The color that is served, or was until now.
    pub color: Option<Color>,
    /// The highest epoch obeyed; commands of older ones are refused.
    pub epoch: u64,
    /// The highest epoch opened; a hold of it is late and refused.
    pub opened: u64,
    /// Whether its requests wait until it is opened.
    pub parked: bool,
    /// The deadline of the hold that is on, in milliseconds from when that began.
    pub max_hold_ms: Option<u64>,
    pub blue: InFlight,
    pub green: InFlight,
    /// Requests ever admitted to blue.
    pub admitted_blue: u64,
    /// Requests ever admitted to green.
    pub admitted_green: u64,
}

/// Every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What is wrong.
    pub error: String,
    /// What to do next.
    pub help: String,
}
