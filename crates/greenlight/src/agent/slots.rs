//! The instance's slots as the shell handles them: start, check, follow, drain, stop.

use super::shell::ShellEvent;
use crate::crash;
use crate::front::Front;
use crate::health::{Answers, HealthCheck, Probe, Pulse, Turn};
use crate::runtime::{Launch, Running, Runtime};
use crate::spec::ServiceSpec;
use greenlight_protocol::agent::Ledger;
use greenlight_protocol::{AgentEvent, DrainEvidence, Incarnation, InstanceId, Release, Slot};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

/// Lines of an application's output that a failure shows.
const LINES_SHOWN: usize = 10;

/// Starts, checks and stops applications for the loop.
pub(super) struct Slots {
    me: InstanceId,
    runtime: Arc<dyn Runtime>,
    front: Arc<dyn Front>,
    events: UnboundedSender<ShellEvent>,
    /// Health checks and death watches of what runs, to be ended with it.
    watching: BTreeMap<Slot, Vec<AbortHandle>>,
}

impl Slots {
    pub(super) fn new(
        me: InstanceId,
        runtime: Arc<dyn Runtime>,
        front: Arc<dyn Front>,
        events: UnboundedSender<ShellEvent>,
    ) -> Self {
        Self {
            me,
            runtime,
            front,
            events,
            watching: BTreeMap::new(),
        }
    }

    /// After a restart: what runs, told to the protocol and watched again.
    pub(super) async fn adopt(&mut self, ledger: &Ledger) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        let running = match self.runtime.list().await {
            Ok(running) => running,
            Err(error) => {
                tracing::error!(%error, "the runtime cannot say what runs");
                Vec::new()
            }
        };
        for running in running {
            let launch = running.launch.clone();
            events.push(AgentEvent::SlotFound {
                slot: launch.slot.clone(),
                incarnation: launch.incarnation,
                digest: launch.digest.clone(),
            });
            let known = releases(ledger).find(|release| release.digest == launch.digest);
            let spec = known.and_then(|release| ServiceSpec::open(release).ok());
            let check = spec.map(|spec| spec.health).unwrap_or_default();
            self.watch(running, check, None);
        }
        events.push(AgentEvent::SlotsListed);
        events
    }

    pub(super) fn start(
        &mut self,
        slot: Slot,
        incarnation: Incarnation,
        release: Release,
        ready_within: Duration,
    ) {
        let (runtime, front, events) = (
            self.runtime.clone(),
            self.front.clone(),
            self.events.clone(),
        );
        let me = self.me.clone();
        self.forget(&slot);
        let begun = slot.clone();
        let task = tokio::spawn(async move {
            let started = begin(&me, &*runtime, &*front, &slot, incarnation, &release).await;
            match started {
                Ok((running, check)) => {
                    follow(runtime, running, check, Some(ready_within), events).await;
                }
                Err(reason) => {
                    let exited = AgentEvent::SlotExited {
                        slot,
                        incarnation,
                        reason,
                    };
                    let _ = events.send(ShellEvent::Protocol(exited));
                }
            }
        });
        self.watching
            .entry(begun)
            .or_default()
            .push(task.abort_handle());
    }

    fn watch(&mut self, running: Running, check: HealthCheck, ready_within: Option<Duration>) {
        let slot = running.launch.slot.clone();
        let (runtime, events) = (self.runtime.clone(), self.events.clone());
        let task = tokio::spawn(follow(runtime, running, check, ready_within, events));
        self.watching
            .entry(slot)
            .or_default()
            .push(task.abort_handle());
    }

    pub(super) fn stop(&mut self, slot: Slot, drain: Duration, patience: Duration) {
        let (runtime, front, events) = (
            self.runtime.clone(),
            self.front.clone(),
            self.events.clone(),
        );
        let watching = self.watching.remove(&slot).unwrap_or_default();
        tokio::spawn(async move {
            // G7: nothing is stopped before its requests end or the deadline passes.
            let drained = front
                .drain(slot.clone(), drain)
                .await
                .unwrap_or_else(|error| {
                    tracing::warn!(%error, "the front could not drain");
                    DrainEvidence::default()
                });
            for task in watching {
                task.abort();
            }
            let passage = crash::before(|| "end application".to_owned());
            while let Err(error) = runtime.stop(slot.clone(), patience).await {
                tracing::error!(%error, "an application could not be stopped");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            passage.after();
            let stopped = AgentEvent::SlotStopped { slot, drained };
            let _ = events.send(ShellEvent::Protocol(stopped));
        });
    }

    /// Sees every event before the protocol does: a dead application is no longer watched.
    pub(super) fn note(&mut self, event: &AgentEvent) {
        if let AgentEvent::SlotExited { slot, .. } = event {
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: &Slot) {
        for task in self.watching.remove(slot).unwrap_or_default() {
            task.abort();
        }
    }
}

fn releases(ledger: &Ledger) -> impl Iterator<Item = &Release> {
    use greenlight_protocol::agent::Stage;
    let coming = match &ledger.stage {
        Stage::Prepared(cut_over) | Stage::Armed(cut_over) => Some(&cut_over.releases),
        Stage::Settled => None,
    };
    let kept = ledger.live.values().chain(ledger.warm.values());
    kept.map(|live| &live.release)
        .chain(coming.into_iter().flat_map(BTreeMap::values))
}

async fn begin(
    me: &InstanceId,
    runtime: &dyn Runtime,
    front: &dyn Front,
    slot: &Slot,
    incarnation: Incarnation,
    release: &Release,
) -> Result<(Running, HealthCheck), String> {
    let spec = ServiceSpec::open(release).map_err(|error| error.to_string())?;
    let Some(ports) = spec.ports.get(me).copied() else {
        return Err(format!("the release names no ports for instance `{me}`"));
    };
    // What an earlier start may have left in the slot, for example before this agent crashed.
    let left = runtime.stop(slot.clone(), spec.stop_timeout).await;
    left.map_err(|error| error.to_string())?;
    let defined = front.define(&slot.service, &spec, ports).await;
    defined.map_err(|error| error.to_string())?;
    let mut env = spec.env;
    env.insert("GREENLIGHT_INSTANCE".to_owned(), me.0.clone());
    let launch = Launch {
        slot: slot.clone(),
        incarnation,
        digest: release.digest.clone(),
        version: release.version.clone(),
        command: spec.command,
        env,
        working_dir: spec.working_dir,
        port: ports.of(slot.color),
    };
    let passage = crash::before(|| "begin application".to_owned());
    let running = runtime
        .start(launch)
        .await
        .map_err(|error| error.to_string())?;
    passage.after();
    Ok((running, spec.health))
}

/// Checks an application for life, and says how it died. Ends when it is dead.
async fn follow(
    runtime: Arc<dyn Runtime>,
    running: Running,
    check: HealthCheck,
    ready_within: Option<Duration>,
    events: UnboundedSender<ShellEvent>,
) {
    let slot = running.launch.slot.clone();
    let incarnation = running.launch.incarnation;
    let tell = |event| {
        // The loop may be ending.
        let _ = events.send(ShellEvent::Protocol(event));
    };
    let mut answers = Answers::default();
    let checks = check_for_life(
        &*runtime,
        &running,
        &check,
        ready_within,
        &mut answers,
        &tell,
    );
    let ended = tokio::select! {
        ended = runtime.exited(running.clone()) => ended,
        () = checks => return,
    };
    let log = runtime.logs(&slot, LINES_SHOWN);
    let mut reason = ended;
    if !log.is_empty() {
        reason.push_str("; last lines it wrote: ");
        reason.push_str(&log.join(" | "));
    }
    tell(AgentEvent::SlotExited {
        slot,
        incarnation,
        reason,
    });
}

async fn check_for_life(
    runtime: &dyn Runtime,
    running: &Running,
    check: &HealthCheck,
    ready_within: Option<Duration>,
    answers: &mut Answers,
    tell: &impl Fn(AgentEvent),
) {
    let slot = running.launch.slot.clone();
    let incarnation = running.launch.incarnation;
    let probe = Probe::new(([127, 0, 0, 1], running.launch.port).into(), check.clone());
    let mut pulse = Pulse::new(check);
    let mut deadline = ready_within.map(|within| Instant::now() + within);
    loop {
        let answer = probe.ask().await;
        let passed = answer.is_ok();
        answers.push(answer.unwrap_or_else(|error| error));
        let unhealthy = |answers: &Answers| AgentEvent::SlotUnhealthy {
            slot: slot.clone(),
            incarnation,
            reason: answers.explain(check, &runtime.logs(&slot, LINES_SHOWN)),
        };
        match pulse.take(passed) {
            Turn::Ready => {
                deadline = None;
                let slot = slot.clone();
                tell(AgentEvent::SlotReady { slot, incarnation });
            }
            Turn::Unhealthy => tell(unhealthy(answers)),
            Turn::Same => {}
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            deadline = None;
            tell(unhealthy(answers));
        }
        let wait = pulse.wait();
        let left = deadline.map_or(wait, |d| d.saturating_duration_since(Instant::now()));
        tokio::time::sleep(wait.min(left.max(Duration::from_millis(1)))).await;
    }
}
