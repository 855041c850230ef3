//! What agents tell the server beside the protocol: it decides nothing, and may be lost.

use greenlight_protocol::{Epoch, GateEvidence};
use serde::{Deserialize, Serialize};

/// `POST /v1/agents/{id}/telemetry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The cut-over.
    pub epoch: Epoch,
    /// What the gates of the instance have seen of it so far. Later telemetry replaces it.
    pub evidence: GateEvidence,
    /// When its agent read what it acted on.
    #[serde(default)]
    pub readings: Readings,
}

/// When an agent read what it was told of a cut-over, in nanoseconds on the monotonic clock of its
/// machine, which is also that of the machine's gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readings {
    /// From when on it has noted what it read: when the process started.
    pub since_ns: u64,
    /// The first `Hold`.
    pub hold_ns: Option<u64>,
    /// The first word that the cut-over is committed: a `Switch`, or the answer of a peer.
    pub commit_ns: Option<u64>,
}
