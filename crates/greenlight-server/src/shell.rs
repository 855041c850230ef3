//! The coordinator's loop: take one input, carry out its effects in order, take the next.

use super::compaction::Compaction;
use crate::progress_log::ProgressLog;
use crate::receipt_archive::ReceiptArchive;
use crate::receipt_store::ReceiptStore;
use crate::view::{FleetView, ViewPublisher, ViewReader, is_barrier};
use greenlight_link::Telemetry;
use greenlight_link::api::{
    DeploymentEvent, DeploymentStatus, FleetStatus, InstanceProgress, NumberedEvent, PhaseName,
};
use greenlight_protocol::coordinator::{Accepted, Command, CoordinatorEvent, Refusal};
use greenlight_protocol::{
    Coordinator, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer, DeploymentId,
    DirectiveEnvelope, Epoch, InstanceId, ReportEnvelope, Term,
};
use greenlight_shell::clock;
use greenlight_shell::failpoint;
use greenlight_shell::journal::{Journal, JournalError};
use greenlight_shell::timers::Timers;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot};
use tracing::Span;

/// Sends directives to agents.
pub type SendDirectives = Box<dyn Fn(&[(InstanceId, DirectiveEnvelope)]) + Send>;

/// How long evidence waits at a barrier before it is written all the same.
const LONGEST_IN_MEMORY: Duration = Duration::from_secs(5);

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
    /// The service manager asks whether the loop is responsive.
    Ping(oneshot::Sender<()>),
    /// End the loop.
    Stop,
}

/// The loop's own state.
pub struct Shell {
    coordinator: Coordinator,
    journal: Journal,
    compaction: Compaction,
    send: SendDirectives,
    timers: Timers<CoordinatorTimer>,
    receipts: ReceiptStore,
    archive: ReceiptArchive,
    /// The phase in which the disk is the journal's alone, if it is such a phase, and until when
    /// at the latest.
    quiet: Option<(PhaseName, Instant)>,
    view: ViewPublisher,
    progress: ProgressLog,
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
    archive: ReceiptArchive,
}

impl RecoveredShell {
    /// Recovers the coordinator from its journal, and the receipts from their folder.
    pub fn read(
        fleet: BTreeSet<InstanceId>,
        mut journal: Journal,
        archive: ReceiptArchive,
    ) -> Result<Self, JournalError> {
        let mut compaction = Compaction::new();
        compaction.compact_if_long(&mut journal)?;
        let records: Vec<CoordinatorRecord> = journal.load()?;
        let (coordinator, pending) = Coordinator::recover(fleet, &records, clock::now());
        Ok(Self {
            coordinator,
            pending,
            journal,
            compaction,
            receipts: ReceiptStore::resume(archive.stored(), &records, archive.keep()),
            archive,
        })
    }

    /// The coordinator's term, which numbers what is sent to agents.
    pub fn term(&self) -> Term {
        self.coordinator.term()
    }

    /// The loop that sends directives and progress this way, and what reads the state that it
    /// publishes. Effects of the recovery are carried out when it starts.
    pub fn into_shell(
        self,
        send: SendDirectives,
        progress: ProgressLog,
        progress_sent: broadcast::Sender<NumberedEvent>,
    ) -> (Shell, ViewReader) {
        let (view, reader) = ViewPublisher::new(view(&self.coordinator, &self.receipts));
        let shell = Shell {
            coordinator: self.coordinator,
            journal: self.journal,
            compaction: self.compaction,
            send,
            timers: Timers::default(),
            receipts: self.receipts,
            archive: self.archive,
            quiet: None,
            view,
            progress,
            progress_sent,
            numbered: 0,
            phase: None,
            pending: self.pending,
        };
        (shell, reader)
    }
}

impl Shell {
    /// Runs until `Stop`, or until the journal fails: then the process must end, because what is
    /// not durable must not be acted on.
    pub fn run(mut self, inbox: &Receiver<Input>) -> Result<(), JournalError> {
        let effects = std::mem::take(&mut self.pending);
        self.carry_out(effects)?;
        self.publish();
        loop {
            for timer in self.timers.take_due() {
                self.event(CoordinatorEvent::TimerFired(timer))?;
            }
            let timer = self.timers.next_in().unwrap_or(Duration::from_mins(1));
            let publication = self.view.due_in(self.coordinator.phase().name());
            if publication.is_some_and(|wait| wait.is_zero()) {
                self.publish();
            }
            let wait = publication.map_or(timer, |publication| timer.min(publication));
            match inbox.recv_timeout(wait) {
                Ok(Input::Event(event)) => self.event(event)?,
                Ok(Input::Observed(from, telemetry)) => {
                    self.receipts.observed(&from, *telemetry);
                    self.view.outdated();
                }
                Ok(Input::Command { command, answer }) => {
                    let result = self.coordinator.command(*command, clock::now());
                    let reply = match result {
                        Ok((accepted, effects)) => {
                            self.carry_out(effects)?;
                            Ok(accepted)
                        }
                        Err(refusal) => Err(refusal),
                    };
                    // Who has the answer finds what it is about.
                    self.publish();
                    let failpoint = failpoint::before(|| "answer".to_owned());
                    // The client may be gone; the command is valid all the same (G8).
                    let _ = answer.send(reply);
                    failpoint.after_a_moment();
                }
                Ok(Input::Ping(answer)) => {
                    let _ = answer.send(());
                }
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.hand_over();
                    return Ok(());
                }
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
        self.view.outdated();
        self.carry_out(effects)
    }

    /// Publishes how the fleet is. Hands over the receipts that have changed, unless the disk is the
    /// journal's alone.
    fn publish(&mut self) {
        if self.quiet.is_none_or(|(_, until)| until <= Instant::now()) {
            self.hand_over();
        }
        self.view.publish(view(&self.coordinator, &self.receipts));
    }

    fn hand_over(&mut self) {
        for receipt in self.receipts.take_changed() {
            self.archive.write(receipt);
        }
    }

    fn carry_out(&mut self, effects: Vec<CoordinatorEffect>) -> Result<(), JournalError> {
        let _deployment = self.span().entered();
        self.leave_the_disk_to_the_journal();
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

    /// From the arming of the gates until they are open the archive writes nothing: its fsync
    /// would delay the commit's, and the requests that wait for it. It is told before a directive
    /// goes out, so that a write that has begun ends while the gates are armed. The quiet has an end:
    /// an instance that never answers must not keep the evidence of the others in memory.
    fn leave_the_disk_to_the_journal(&mut self) {
        let phase = self.coordinator.phase().name();
        let quiet_in = (phase == PhaseName::Arming || is_barrier(phase)).then_some(phase);
        if quiet_in != self.quiet.map(|(phase, _)| phase) {
            self.quiet = quiet_in.map(|phase| (phase, Instant::now() + LONGEST_IN_MEMORY));
            self.archive.be_quiet(self.quiet.map(|(_, until)| until));
        }
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
            // Who hears of the end finds it in the receipt.
            self.publish();
            self.tell(
                deployment.clone(),
                DeploymentEvent::Finished {
                    outcome: outcome.clone(),
                },
            );
            // No request is held now, so the time that this takes delays nobody.
            self.compaction.compact_if_long(&mut self.journal)?;
        }
        Ok(())
    }

    fn tell_phase(&mut self) {
        let phase = self.coordinator.phase();
        let told = self.coordinator.epoch().map(|epoch| (epoch, phase.name()));
        if told == self.phase {
            return;
        }
        self.phase = told;
        self.publish();
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
        let repeated = self.progress.repeats(|told| told.event == event);
        let deployment = active.request.deployment.clone();
        if !repeated {
            self.tell(deployment, event);
        }
    }

    fn tell(&mut self, deployment: DeploymentId, event: DeploymentEvent) {
        self.numbered += 1;
        let progress = NumberedEvent {
            number: self.numbered,
            at_ms: clock::wall_ms(),
            deployment,
            event,
        };
        self.progress.add(Arc::new(progress.clone()));
        // There may be no receiver.
        let _ = self.progress_sent.send(progress);
    }
}

/// The state of the fleet now.
fn view(coordinator: &Coordinator, receipts: &ReceiptStore) -> FleetView {
    let ledger = coordinator.ledger();
    let fleet = coordinator.fleet().iter();
    let connected = coordinator.connected();
    let deployment = ledger.active().map(|active| DeploymentStatus {
        deployment: active.request.deployment.clone(),
        requested_by: active.request.requested_by.clone(),
        releases: active.request.versions(),
        removed: active.request.removed(),
        phase: coordinator.phase().name(),
        waiting_for: coordinator.waiting_for().into_iter().collect(),
        since_ms: receipts
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
            retiring: coordinator.is_retiring(),
            warm: ledger.warm.is_some() && !ledger.rollback_target.is_empty(),
        },
        older: receipts.older().clone(),
        recent: receipts.recent().to_vec(),
        before: ledger
            .rollback_target
            .iter()
            .map(|(service, release)| (service.clone(), release.version.clone()))
            .collect(),
        policy: latest.map(|d| d.request.policy.clone()).unwrap_or_default(),
    }
}
