//! The requests and responses of the admin socket about gates.
//!
//! JSON over HTTP; the proxy has the paths. Settings of a service are the proxy's, so what
//! carries them is not here.

use crate::color::Color;
use crate::counts::InFlight;
use crate::evidence::ServiceEvidence;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a gate does when a hold's deadline passes without a decision.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OnUncertain {
    /// Open to the old color again: G3 is kept, G1 may be lost.
    #[default]
    ServeOld,
    /// Answer 503 until another command comes: G1 is kept, G3 is lost.
    Shed,
}

/// `POST /v1/hold`: stop admitting. Answered when nothing more reaches the old color.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HoldAnswer {
    /// When the hold was complete.
    pub held_at_ns: u64,
    pub services: BTreeMap<String, HeldService>,
}

/// One service as it was held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    pub epoch: u64,
    /// Where each service goes; `null`: nowhere, its requests are refused from now on.
    pub services: BTreeMap<String, Option<Color>>,
}

/// The answer to opening, given when the routing is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenAnswer {
    /// When the gates opened.
    pub opened_at_ns: u64,
    /// Requests that had waited since the hold began.
    pub released: u64,
}

/// `POST /v1/park` and `POST /v1/shed`: let requests wait without a deadline, or refuse them. What
/// is parked stays so, also through later holds and their deadlines, until it is opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// `GET /v1/evidence/{epoch}`: what the gates saw of a cut-over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceAnswer {
    pub services: BTreeMap<String, ServiceEvidence>,
}
