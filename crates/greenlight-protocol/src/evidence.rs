//! What a gate saw, as it travels in reports and ends in receipts.
//!
//! Times are nanoseconds on the instance's own monotonic clock. They are compared with each
//! other only on the same instance; between instances the order of messages is the evidence.

use crate::id::ServiceName;
pub use greenlight_gate::ServiceEvidence;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the cut-over of a front is worth.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// It has a gate: G1 holds.
    #[default]
    Gated,
    /// It cannot hold, and only changes at the same time as the others: G1 does not apply.
    Aligned,
}

/// A gate's account of a hold, taken when nothing more could reach the old release.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HoldEvidence {
    /// When the hold was complete.
    pub held_at_ns: u64,
    /// By service: when the last request was admitted to the old release, if any ever was.
    pub last_admission_ns: BTreeMap<ServiceName, u64>,
    /// Requests of the old release still in flight.
    pub in_flight: u64,
    /// Requests that were picked but not yet sent, and were taken back.
    pub recalled: u64,
    /// Whether it is a hold at all.
    #[serde(default)]
    pub alignment: Alignment,
}

/// A gate's account of opening to a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SwitchEvidence {
    /// When the gate opened.
    pub opened_at_ns: u64,
    /// Requests that had been held and were let go.
    pub released: u64,
    /// Of a front without a gate: what it saw while it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aligned: Option<AlignedEvidence>,
}

/// What a front without a gate saw while it changed, in microseconds before its report, so that
/// the server can put it on its own clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct AlignedEvidence {
    /// How long the new release has been answering.
    pub new_for_us: u64,
    /// How long ago the old release was last seen to answer, if it was after the change began.
    pub old_for_us: Option<u64>,
}

/// What was left of a release when it was stopped.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct DrainEvidence {
    /// Requests still in flight when the drain deadline passed.
    pub requests: u64,
    /// Streams still open then.
    pub streams: u64,
    /// Upgraded connections still open then.
    pub upgrades: u64,
}

/// A gate's totals over one cut-over, at the moment of the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GateEvidence {
    pub services: BTreeMap<ServiceName, ServiceEvidence>,
}
