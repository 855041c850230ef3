//! Sends what the gates saw of a cut-over to the server, for the receipt.
//!
//! It travels beside the protocol, which neither knows it nor waits for it. If an agent dies
//! before it has sent it, the receipt says that this evidence is missing.

use crate::front::Front;
use greenlight_link::{Readings, Telemetry};
use greenlight_protocol::{Epoch, GateEvidence};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, sleep_until};

/// How long after the opening the gates are observed.
const OBSERVATION: Duration = Duration::from_secs(2);
/// Within this time after the first request those that waited are admitted as well.
const RELEASE: Duration = Duration::from_millis(100);
/// How often a front that does not answer is asked at the end.
const LAST_TRIES: usize = 10;

/// Sends what the gates saw four times, each time only if it is new: when they opened, when the new
/// release has its first request, a moment after that, and at the end of the observation. Without
/// the first one, a deployment that is over before any request comes would have no evidence.
pub(super) async fn observe(
    front: Arc<dyn Front>,
    epoch: Epoch,
    readings: Readings,
    telemetry: UnboundedSender<(Instant, Telemetry)>,
) {
    let end = Instant::now() + OBSERVATION;
    let mut told = GateEvidence::default();
    let mut tell = |seen: Option<GateEvidence>| {
        // A front that was restarted may know nothing of the cut-over; that replaces nothing.
        let is_news = |seen: &GateEvidence| !seen.services.is_empty() && *seen != told;
        if let Some(evidence) = seen.filter(is_news) {
            told.clone_from(&evidence);
            // The sender task lives as long as the runtime does.
            let _ = telemetry.send((
                Instant::now(),
                Telemetry {
                    epoch,
                    evidence,
                    readings,
                },
            ));
        }
    };
    tell(front.evidence(epoch).await.ok());
    let first = front.evidence_after_first_requests(epoch, OBSERVATION);
    tell(first.await.ok());
    sleep(RELEASE).await;
    tell(front.evidence(epoch).await.ok());
    sleep_until(end).await;
    for _ in 0..LAST_TRIES {
        if let Ok(seen) = front.evidence(epoch).await {
            tell(Some(seen));
            return;
        }
        sleep(RELEASE).await;
    }
}
