//! The receipt of a deployment: the evidence for what was promised.
//!
//! Evidence is causal, not by clocks. On one instance, times are compared on its own monotonic
//! clock. Between instances the order is that of messages, as the server numbered them: every
//! hold acknowledgement came in before the commit was durable, and every `Switch` went out after.
//! The agent's reading of that `Switch` joins the two: its gate opened after it, on the same clock.
//!
//! Deliberately absent: collecting it, which is the server's.

mod account;
mod aligned;
mod canonical;
mod claims;
mod document;
#[cfg(test)]
mod example;
mod printable;
mod render;
mod seal;
mod summary;
mod timeline;
mod verify;
mod window;

pub use aligned::AlignedReceipt;
pub use claims::Check;
pub use document::{CutOverStatement, FORMAT, ReceiptDocument, Statement, Totals};
pub use seal::{Seal, SealError};
pub use verify::{Verification, VerifyError, verify};
pub use window::MixedWindow;

use crate::Readings;
use greenlight_protocol::{
    Direction, DrainEvidence, Epoch, GateEvidence, HoldEvidence, InstanceId, Outcome, ServiceName,
    SwitchEvidence,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The receipt of one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The deployment's id.
    pub deployment: String,
    /// The person who requested it.
    pub requested_by: String,
    /// By service: the version of the release it brought.
    pub releases: BTreeMap<ServiceName, String>,
    /// The services it removed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<ServiceName>,
    /// By service: the version of what was live before.
    pub previous: BTreeMap<ServiceName, String>,
    /// When it was accepted, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, in milliseconds since 1970.
    pub finished_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Its cut-overs, in order.
    pub cut_overs: Vec<CutOverReceipt>,
}

/// The receipt of one cut-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOverReceipt {
    pub epoch: Epoch,
    /// Forward, or back.
    pub direction: Direction,
    /// Why the fleet went back.
    pub reason: Option<String>,
    /// When the first `Hold` was sent; nanoseconds on the server's monotonic clock.
    pub hold_sent_ns: Option<u64>,
    /// How long a gate was to hold at most, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_hold_us: Option<u64>,
    /// When the commit was durable, on the same clock.
    pub committed_ns: Option<u64>,
    /// How long making the commit durable took, in microseconds.
    pub commit_sync_us: Option<u64>,
    /// When the last instance had confirmed its switch, on the same clock.
    pub completed_ns: Option<u64>,
    /// Why it was aborted.
    pub aborted: Option<String>,
    /// Whether the server died while it was going on: then the order of the messages before is
    /// not known, and nothing is claimed of it.
    #[serde(default)]
    pub recovered: bool,
    /// The server's number for the moment of the commit, in the order of its messages.
    pub commit_order: Option<u64>,
    /// Of a front without a gate: that it is none, and what was measured in place of a claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aligned: Option<AlignedReceipt>,
    /// What each instance went through.
    pub instances: BTreeMap<InstanceId, InstanceReceipt>,
}

/// What one instance went through in one cut-over. Orders are the server's message numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReceipt {
    /// When `Held` came in.
    pub held_order: Option<u64>,
    /// When `Switch` was first sent.
    pub switch_order: Option<u64>,
    /// When `Held` came in; nanoseconds on the server's monotonic clock.
    #[serde(default)]
    pub held_ns: Option<u64>,
    /// When the first `Switched` came in, on the same clock.
    #[serde(default)]
    pub switched_ns: Option<u64>,
    /// What the gate saw when it was closed.
    pub held: Option<HoldEvidence>,
    /// What the gate saw when it opened.
    pub switched: Option<SwitchEvidence>,
    /// What the gate has seen in all.
    pub gate: Option<GateEvidence>,
    /// When its agent read what it acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readings: Option<Readings>,
    /// What was cut off when the old release was stopped.
    pub retired: Option<DrainEvidence>,
    /// What went wrong here.
    pub problem: Option<String>,
}

impl CutOverReceipt {
    /// The receipt of a cut-over of which nothing is known yet.
    pub fn new(epoch: Epoch, direction: Direction) -> Self {
        Self {
            epoch,
            direction,
            reason: None,
            hold_sent_ns: None,
            max_hold_us: None,
            committed_ns: None,
            commit_sync_us: None,
            completed_ns: None,
            aborted: None,
            recovered: false,
            commit_order: None,
            aligned: None,
            instances: BTreeMap::new(),
        }
    }

    /// From the first `Hold` sent to the last switch confirmed, in milliseconds.
    pub fn hold_ms(&self) -> Option<f64> {
        let nanos = self.completed_ns?.saturating_sub(self.hold_sent_ns?);
        Some(std::time::Duration::from_nanos(nanos).as_secs_f64() * 1e3)
    }

    /// Requests that waited at any gate.
    pub fn held(&self) -> u64 {
        self.gates().map(|gate| gate.held).sum()
    }

    /// The longest wait at any gate, in microseconds.
    pub fn max_held_us(&self) -> u64 {
        self.gates().map(|gate| gate.max_held_us).max().unwrap_or(0)
    }

    fn gates(&self) -> impl Iterator<Item = &greenlight_protocol::ServiceEvidence> {
        self.instances
            .values()
            .filter_map(|instance| instance.gate.as_ref())
            .flat_map(|gate| gate.services.values())
    }
}

/// The peers that an instance does not see ready, as text.
pub fn not_seen(unseen: &BTreeMap<InstanceId, String>) -> String {
    let peers = unseen
        .iter()
        .map(|(peer, reason)| format!("`{peer}` is not ready as seen from here: {reason}"));
    peers.collect::<Vec<_>>().join("; ")
}
