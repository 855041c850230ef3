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
}
