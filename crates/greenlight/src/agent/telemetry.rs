//! What the gates saw of a cut-over, told to the server for the receipt.
//!
//! It travels beside the protocol, which neither knows it nor waits for it. An agent that dies
//! before it has told leaves the receipt without it, and the receipt says so.

use crate::front::Front;
use crate::link::Telemetry;
use greenlight_protocol::{Epoch, GateEvidence};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep_until};

/// How long after the opening the gates are observed.
const OBSERVATION: Duration = Duration::from_secs(2);

/// Tells what the gates saw as soon as the new release has its first request, and once more at
/// the end of the observation, if more was seen by then.
pub(super) async fn observe(
    front: Arc<dyn Front>,
    epoch: Epoch,
    telemetry: UnboundedSender<(Instant, Telemetry)>,
) {
    let end = Instant::now() + OBSERVATION;
    let first = front
        .evidence_after_first_requests(epoch, OBSERVATION)
        .await;
    let told = first
        .ok()
        .filter(|evidence| tell(&telemetry, epoch, evidence));
    sleep_until(end).await;
    if let Ok(evidence) = front.evidence(epoch).await
        && told.as_ref() != Some(&evidence)
    {
        tell(&telemetry, epoch, &evidence);
    }
}

/// Returns whether there was anything to tell.
fn tell(
    telemetry: &UnboundedSender<(Instant, Telemetry)>,
    epoch: Epoch,
    evidence: &GateEvidence,
) -> bool {
    if evidence.services.is_empty() {
        return false;
    }
    let evidence = evidence.clone();
    // The sender task lives as long as the runtime does.
    let _ = telemetry.send((Instant::now(), Telemetry { epoch, evidence }));
    true
}
