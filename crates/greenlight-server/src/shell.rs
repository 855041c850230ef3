//! The coordinator's loop: take one input, carry out its effects in order, take the next.

use super::compaction::Compaction;
use crate::receipt_store::ReceiptStore;
use greenlight_link::Telemetry;
use greenlight_link::api::{
    DeploymentEvent, DeploymentStatus, FleetStatus, InstanceProgress, NumberedEvent, PhaseName,
};
use greenlight_link::receipt::Receipt;
use greenlight_protocol::coordinator::{Accepted, Command, CoordinatorEvent, Refusal};
use greenlight_protocol::{
    Coordinator, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer, DeploymentId,
    DirectiveEnvelope, Epoch, InstanceId, Policy, ReportEnvelope, ServiceName, Term,
};
use greenlight_shell::clock;
use greenlight_shell::failpoint;
use greenlight_shell::journal::{Journal, JournalError};
use greenlight_shell::timers::Timers;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot};
use tracing::Span;

/// Sends directives to agents.
pub type SendDirectives = Box<dyn Fn(&[(InstanceId, DirectiveEnvelope)]) + Send>;

/// What the shell waits for.
pub enum Input {
    /// Something happened on the link.
    Event(CoordinatorEvent),
    /// An agent sent what its gates have seen; for the receipts alone.
    Observed(InstanceId, Box<Telemetry>),
    /// A person asks for something.
    Command {
        command: Box<Command>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Accepted, Refusal>>,
    },
    /// The API reads the state of the fleet.
    GetView(oneshot::Sender<FleetView>),
    /// The service manager asks whether the loop is responsive.
    Ping(oneshot::Sender<()>),
    /// End the loop.
    Stop,
}

/// The state of the fleet, as the API reads it.
#[derive(Clone, Debug)]
pub struct FleetView {
    pub status: FleetStatus,
    /// The receipts of the latest deployments, oldest first.
    pub receipts: Vec<Arc<Receipt>>,
    /// Progress so far of the latest deployment.
    pub progress: Vec<NumberedEvent>,
    /// By service: the version of what was live before.
    pub before: BTreeMap<ServiceName, String>,
    /// The timers and choices of the latest deployment.
    pub policy: Policy,
}

/// The loop's own state.
pub struct Shell {
    coordinator: Coordinator,
    journal: Journal,
    compaction: Compaction,
    send: SendDirectives,
    timers: Timers<CoordinatorTimer>,
    receipts: ReceiptStore,
    receipts_at: PathBuf,
    progress: Vec<NumberedEvent>,
    progress_sent: broadcast::Sender<NumberedEvent>,
    numbered: u64,
    /// What the events said last of the phase.
    phase: Option<(Epoch, PhaseName)>,
    pending: Vec<CoordinatorEffect>,
}

/// The coordinator as it was recovered from its journal, before it can send anything.
pub struct RecoveredShell {
    coordinator: Coordinator,
    pending: Vec<CoordinatorEffect>,
    journal: Journal,
    compaction: Compaction,
    receipts: ReceiptStore,
    receipts_at: PathBuf,
}

impl RecoveredShell {
    /// Recovers the coordinator from its journal, and the receipts from theirs.
    pub fn read(
        fleet: BTreeSet<InstanceId>,
        mut journal: Journal,
        receipts_at: PathBuf,
    ) -> Result<Self, JournalError> {
        let mut compaction = Compaction::new();
        compaction.compact_if_long(&mut journal)?;
        let records: Vec<CoordinatorRecord> = journal.load()?;
        let receipts = read_receipts(&receipts_at);
        let (coordinator, pending) = Coordinator::recover(fleet, &records, clock::now());
        Ok(Self {
            coordinator,
            pending,
            journal,
            compaction,
            receipts: ReceiptStore::resume(receipts, &records),
            receipts_at,
        })
    }

    /// The coordinator's term, which numbers what is sent to agents.
    pub fn term(&self) -> Term {
        self.coordinator.term()
    }

    /// The loop that sends directives and progress this way. Effects of the recovery are carried
    /// out when it starts.
    pub fn into_shell(
        self,
        send: SendDirectives,
        progress_sent: broadcast::Sender<NumberedEvent>,
    ) -> Shell {
        Shell {
            coordinator: self.coordinator,
            journal: self.journal,
            compaction: self.compaction,
            send,
            timers: Timers::default(),
            receipts: self.receipts,
            receipts_at: self.receipts_at,
            progress: Vec::new(),
            progress_sent,
            numbered: 0,
            phase: None,
            pending: self.pending,
        }
    }
}

impl Shell {
    /// Runs until `Stop`, or until the journal fails: then the process must end, because what is
    /// not durable must not be acted on.
    pub fn run(mut self, inbox: &Receiver<Input>) -> Result<(), JournalError> {
        let effects = std::mem::take(&mut self.pending);
        self.carry_out(effects)?;
        loop {
            for timer in self.timers.take_due() {
                self.event(CoordinatorEvent::TimerFired(timer))?;
            }
            let wait = self.timers.next_in().unwrap_or(Duration::from_mins(1));
            match inbox.recv_timeout(wait) {
                Ok(Input::Event(event)) => self.event(event)?,
                Ok(Input::Observed(from, telemetry)) => self.receipts.observed(&from, *telemetry),
                Ok(Input::Command { command, answer }) => {
                    let result = self.coordinator.command(*command, clock::now());
                    let reply = match result {
                        Ok((accepted, effects)) => {
                            self.carry_out(effects)?;
                            Ok(accepted)
                        }
                        Err(refusal) => Err(refusal),
                    };
                    let failpoint = failpoint::before(|| "answer".to_owned());
                    // The client may be gone; the command is valid all the same (G8).
                    let _ = answer.send(reply);
                    failpoint.after_a_moment();
                }
                Ok(Input::GetView(answer)) => {
                    let _ = answer.send(self.view());
                }
                Ok(Input::Ping(answer)) => {
                    let _ = answer.send(());
                }
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn event(&mut self, event: CoordinatorEvent) -> Result<(), JournalError> {
        let _instance;
        if let CoordinatorEvent::Reported { from, envelope } = &event {
            _instance = tracing::info_span!("instance", instance = %from).entered();
            self.receipts.reported(from, envelope);
            self.tell_report(from, envelope);
        }
        let effects = self.coordinator.handle(event, clock::now());
        self.carry_out(effects)
    }

    fn carry_out(&mut self, effects: Vec<CoordinatorEffect>) -> Result<(), JournalError> {
        let _deployment = self.span().entered();
        let mut outgoing = Vec::new();
        for effect in effects {
            match effect {
                CoordinatorEffect::Persist(record) => {
                    self.flush(&mut outgoing);
                    self.persist(&record)?;
                }
                CoordinatorEffect::Send { to, envelope } => {
                    self.receipts.sent(&to, &envelope);
                    outgoing.push((to, envelope));
                }
                CoordinatorEffect::SetTimer { timer, after } => {
                    let failpoint =
                        failpoint::before(|| format!("timer {}", failpoint::variant(&timer)));
                    self.timers.set(timer, after);
                    failpoint.after();
                }
            }
        }
        self.flush(&mut outgoing);
        self.tell_phase();
        Ok(())
    }

    /// What the lines of the log are about: the deployment under way and its cut-over.
    fn span(&self) -> Span {
        let Some(active) = self.coordinator.ledger().active() else {
            return Span::none();
        };
        let deployment = &active.request.deployment;
        let epoch = self.coordinator.epoch().map(|epoch| epoch.0);
        tracing::info_span!("deployment", %deployment, epoch)
    }

    /// Sends what has gathered. Consecutive directives go out together, so that the last instance
    /// of a large fleet is not told later than it must be.
    fn flush(&self, outgoing: &mut Vec<(InstanceId, DirectiveEnvelope)>) {
        let together = match failpoint::is_watched() {
            // Between two of them is a point too.
            true => 1,
            false => outgoing.len().max(1),
        };
        for outgoing in outgoing.chunks(together) {
            let failpoint = failpoint::before(|| {
                let (to, envelope) = &outgoing[0];
                format!("send {} to {to}", failpoint::variant(&envelope.directive))
            });
            (self.send)(outgoing);
            failpoint.after_a_moment();
        }
        outgoing.clear();
    }

    fn persist(&mut self, record: &CoordinatorRecord) -> Result<(), JournalError> {
        let failpoint = failpoint::before(|| format!("persist {}", failpoint::variant(record)));
        let began = Instant::now();
        self.journal.append(record)?;
        let took = began.elapsed();
        tracing::debug!(?record, ?took, "record");
        failpoint.after();
        self.receipts.recorded(record, took);
        // A measured write makes the predicted hold honest; it causes no effects.
        let effects = self
            .coordinator
            .handle(CoordinatorEvent::Synced(took), clock::now());
        debug_assert!(effects.is_empty());
        if let CoordinatorRecord::Finished {
            deployment,
            outcome,
        } = record
        {
            self.tell(
                deployment.clone(),
                DeploymentEvent::Finished {
                    outcome: outcome.clone(),
                },
            );
            // No request is held now, so the time that this takes delays nobody.
            self.compaction.compact_if_long(&mut self.journal)?;
        }
        if matches!(
            record,
            CoordinatorRecord::Finished { .. } | CoordinatorRecord::Completed(_)
        ) {
            self.keep_receipts();
        }
        Ok(())
    }

    /// Receipts are evidence, not state: losing the latest of them to a crash changes no
    /// decision, so they are replaced atomically but not synced.
    fn keep_receipts(&self) {
        let next = self.receipts_at.with_extension("next");
        let all: Vec<&Receipt> = self.receipts.all().iter().map(Arc::as_ref).collect();
        let kept = serde_json::to_vec(&all)
            .map_err(std::io::Error::other)
            .and_then(|bytes| std::fs::write(&next, bytes))
            .and_then(|()| std::fs::rename(&next, &self.receipts_at));
        if let Err(error) = kept {
            tracing::warn!(%error, "the receipts could not be written");
        }
    }

    fn tell_phase(&mut self) {
        let phase = self.coordinator.phase();
        let told = self.coordinator.epoch().map(|epoch| (epoch, phase.name()));
        if told == self.phase {
            return;
        }
        self.phase = told;
        let active = self.coordinator.ledger().active();
        if let (Some((epoch, phase)), Some(active)) = (told, active) {
            let deployment = active.request.deployment.clone();
            tracing::info!(%phase, "phase");
            self.tell(deployment, DeploymentEvent::Phase { epoch, phase });
        }
    }

    fn tell_report(&mut self, from: &InstanceId, envelope: &ReportEnvelope) {
        let Some(progress) = InstanceProgress::of(&envelope.report) else {
            return;
        };
        let Some(active) = self.coordinator.ledger().active() else {
            return;
        };
        let event = DeploymentEvent::Instance {
            epoch: envelope.token.epoch,
            instance: from.clone(),
            progress,
        };
        let mut latest = self.progress.iter().rev().take(64);
        let repeated = latest.any(|told| told.event == event);
        let deployment = active.request.deployment.clone();
        if !repeated {
            self.tell(deployment, event);
        }
    }

    fn tell(&mut self, deployment: DeploymentId, event: DeploymentEvent) {
        if self
            .progress
            .first()
            .is_some_and(|first| first.deployment != deployment)
        {
            self.progress.clear();
        }
        self.numbered += 1;
        let progress = NumberedEvent {
            number: self.numbered,
            at_ms: clock::wall_ms(),
            deployment,
            event,
        };
        self.progress.push(progress.clone());
        // There may be no receiver.
        let _ = self.progress_sent.send(progress);
    }

    fn view(&self) -> FleetView {
        let ledger = self.coordinator.ledger();
        let fleet = self.coordinator.fleet().iter();
        let connected = self.coordinator.connected();
        let deployment = ledger.active().map(|active| DeploymentStatus {
            deployment: active.request.deployment.clone(),
            requested_by: active.request.requested_by.clone(),
            releases: active.request.versions(),
            removed: active.request.removed(),
            phase: self.coordinator.phase().name(),
            waiting_for: self.coordinator.waiting_for().into_iter().collect(),
            since_ms: self
                .receipts
                .find(&active.request.deployment.0)
                .map_or(0, |receipt| receipt.started_ms),
        });
        let live = ledger.live.iter();
        let latest = ledger.deployment.as_ref();
        FleetView {
            status: FleetStatus {
                term: ledger.term.0,
                epoch: ledger.epoch.0,
                live: live.map(|(s, r)| (s.clone(), r.version.clone())).collect(),
                instances: fleet
                    .map(|name| (name.clone(), connected.get(name).cloned()))
                    .collect(),
                deployment,
                retiring: self.coordinator.is_retiring(),
                warm: ledger.warm.is_some() && !ledger.rollback_target.is_empty(),
            },
            receipts: self.receipts.all().to_vec(),
            progress: self.progress.clone(),
            before: ledger
                .rollback_target
                .iter()
                .map(|(service, release)| (service.clone(), release.version.clone()))
                .collect(),
            policy: latest.map(|d| d.request.policy.clone()).unwrap_or_default(),
        }
    }
}

/// Receipts written earlier. What cannot be read is put aside, not written over: it is evidence.
fn read_receipts(path: &Path) -> Vec<Receipt> {
    let Ok(bytes) = std::fs::read(path) else {
        return Vec::new();
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        let aside = path.with_extension("damaged");
        tracing::warn!(%error, aside = %aside.display(), "the receipts cannot be read; put aside");
        if let Err(error) = std::fs::rename(path, &aside) {
            tracing::warn!(%error, "the receipts could not be put aside");
        }
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_that_cannot_be_read_are_put_aside_and_not_written_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("receipts.json");
        std::fs::write(&path, "[{\"deployment\": \"torn").expect("it is ours");
        assert!(read_receipts(&path).is_empty());
        assert!(!path.exists());
        let aside = std::fs::read_to_string(dir.path().join("receipts.damaged"));
        assert!(aside.expect("it is kept").contains("torn"));
    }
}
