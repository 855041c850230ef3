//! The request that waits for the first requests after an opening.

use serde::{Deserialize, Serialize};

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
