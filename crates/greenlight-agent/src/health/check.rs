//! Checks the health of one application for as long as it runs: over HTTP, and by the health check
//! of its image where the runtime runs one. An application is healthy if both say so.

use super::{Answers, HealthChange, HealthTracker, Probe, ProbeError};
use crate::runtime::{ContainerHealth, Running, Runtime};
use greenlight_protocol::AgentEvent;
use greenlight_release::health::HealthCheck;
use std::time::{Duration, Instant};

/// Lines of an application's output that a failure shows.
pub(crate) const LINES_SHOWN: usize = 10;

/// Checks until it is dropped, and tells what has changed. An application that is not healthy
/// `ready_within` this time is told to be unhealthy once, and checked further.
pub(crate) async fn check_health(
    runtime: &dyn Runtime,
    running: &Running,
    check: &HealthCheck,
    ready_within: Option<Duration>,
    answers: &mut Answers,
    tell: &impl Fn(AgentEvent),
) {
    let slot = running.launch.slot.clone();
    let incarnation = running.launch.incarnation;
    let probe = Probe::new(running.address, check.clone());
    let mut tracker = HealthTracker::new(check);
    let mut deadline = ready_within.map(|within| Instant::now() + within);
    loop {
        let mut answer = probe.ask().await;
        if answer.is_ok()
            && let ContainerHealth::Unhealthy(reason) = runtime.container_health(running).await
        {
            answer = Err(ProbeError::Objection(reason));
        }
        let passed = answer.is_ok();
        answers.push(&answer);
        let unhealthy = async |answers: &Answers| AgentEvent::SlotUnhealthy {
            slot: slot.clone(),
            incarnation,
            reason: answers.explain(check, &runtime.logs(&slot, LINES_SHOWN).await),
        };
        match tracker.take(passed) {
            HealthChange::Ready => {
                deadline = None;
                tracing::info!("healthy");
                let slot = slot.clone();
                tell(AgentEvent::SlotReady { slot, incarnation });
            }
            HealthChange::Unhealthy => tell(unhealthy(answers).await),
            HealthChange::Same => {}
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            deadline = None;
            tell(unhealthy(answers).await);
        }
        let wait = tracker.wait();
        let left = deadline.map_or(wait, |d| d.saturating_duration_since(Instant::now()));
        tokio::time::sleep(wait.min(left.max(Duration::from_millis(1)))).await;
    }
}
