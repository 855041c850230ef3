//! The fleet's half of the cut-over protocol: a saga for the slow phases, with a two-phase
//! commit around a hold as its pivot.
//!
//! ```text
//!  Preparing ─▶ Ready ─▶ BeforeSwitch ─▶ Arming ─▶ Holding ─▶ [Committed] ─┐
//!      │          │            │            │         │                     │
//!      └──────────┴────────────┴────────────┴─────────┴─▶ Aborting ─▶ end   │
//!                                                                           ▼
//!    new epoch back ◀────────────┬──────────────┬────────────────────── Switching
//!                                │              │                           │
//!            end ◀─ next wave ◀─ Confirming ◀── Watching ◀──────────────────┘
//! ```
//!
//! What makes it sound: `Switch` is sent only after `Committed` is durable, and `Committed` is
//! recorded only when every participant has acknowledged the hold *to this term*. A coordinator
//! that recovers and finds no commit aborts; it never resumes, because an acknowledgement given
//! to its earlier self may since have been overtaken by a refusal.
//!
//! Between `Preparing` and `Ready` the instances may also look at each other (`CheckingPeers`). A
//! rollback that is aborted waits in `RetryingRollback` and is tried again.
//!
//! Handlers of one cut-over take it by value and return what it has become: the type says that
//! there is one. `docs/design/protocol.md` has the table of transitions; a test drives this machine
//! through it.
//!
//! One deployment at a time. A rollback is a cut-over like any other, with the roles swapped.

mod abort;
mod after_commit;
mod effect;
mod in_progress;
mod ledger;
mod peers;
mod phase;
mod prepare;
mod recover;
mod snapshot;

pub use effect::{
    Accepted, Command, CoordinatorEffect, CoordinatorEvent, CoordinatorTimer, Refusal,
    RollbackRequest,
};
pub use ledger::{
    CoordinatorRecord, CutOverStarted, Decision, Deployment, DeploymentRequest, Ledger, Outcome,
    Promotion, Warm,
};
pub use phase::{Phase, PhaseName};
pub use snapshot::snapshot;

use self::in_progress::CutOverInProgress;
use crate::id::{Epoch, InstanceId, Term, Token};
use crate::message::{Directive, DirectiveEnvelope, InstanceStatus, Report, ReportEnvelope};
use crate::mutant::{Mutant, broken};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a directive is sent again while an answer is missing in the quick phases.
const RESEND_QUICK: Duration = Duration::from_millis(100);
/// The same while slots start and stop.
const RESEND_SLOW: Duration = Duration::from_secs(1);

/// What becomes of a cut-over: nothing, when its deployment is over.
type Next = Option<CutOverInProgress>;

/// The coordinator: a durable ledger, and what is known only while the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    fleet: BTreeSet<InstanceId>,
    ledger: Ledger,
    in_progress: Option<CutOverInProgress>,
    /// Whether a person has since asked that a deployment for manual promotion continue
    /// automatically. A restart aborts what has not committed, so there is nothing to remember.
    is_promoted: bool,
    /// The instances that still have to stop what is not live.
    retiring: Option<(Epoch, BTreeSet<InstanceId>)>,
    connected: BTreeMap<InstanceId, InstanceStatus>,
    /// How long making a record durable takes here, as last measured.
    sync: Duration,
    /// What the event at hand has led to so far; empty between events.
    effects: Vec<CoordinatorEffect>,
    mutant: Mutant,
}

impl Coordinator {
    /// Takes a person's command, or refuses it and changes nothing.
    pub fn command(
        &mut self,
        command: Command,
        now: Timestamp,
    ) -> Result<(Accepted, Vec<CoordinatorEffect>), Refusal> {
        let accepted = match command {
            Command::Deploy(request) => self.deploy(*request, now)?,
            Command::Rollback(rollback) => {
                let request = self.rollback_request(*rollback)?;
                self.deploy(request, now)?
            }
            Command::Promote => self.promote(now)?,
            Command::Abort { requested_by } => self.abort_on_request(&requested_by)?,
        };
        Ok((accepted, std::mem::take(&mut self.effects)))
    }

    /// Takes one event. Infallible; what is stale changes nothing (G6).
    #[must_use = "effects not carried out are lost"]
    pub fn handle(&mut self, event: CoordinatorEvent, now: Timestamp) -> Vec<CoordinatorEffect> {
        match event {
            CoordinatorEvent::Connected(instance) => {
                self.connected.entry(instance.clone()).or_default();
                self.send(&instance, self.ledger.epoch, Directive::QueryStatus);
                self.remind(&instance);
            }
            CoordinatorEvent::Disconnected(instance) => self.lost(&instance),
            CoordinatorEvent::Reported { from, envelope } => self.reported(&from, envelope, now),
            CoordinatorEvent::TimerFired(timer) => self.timer_fired(timer),
            CoordinatorEvent::Synced(took) => self.sync = took,
        }
        std::mem::take(&mut self.effects)
    }

    /// Where the deployment stands.
    pub fn phase(&self) -> &Phase {
        let in_progress = self.in_progress.as_ref();
        in_progress.map_or(&Phase::Idle, |cut_over| &cut_over.phase)
    }

    /// The cut-over in progress.
    pub fn epoch(&self) -> Option<Epoch> {
        self.in_progress.as_ref().map(CutOverInProgress::epoch)
    }

    /// Who has yet to answer the phase's directive.
    pub fn waiting_for(&self) -> BTreeSet<InstanceId> {
        let in_progress = self.in_progress.as_ref();
        in_progress.map_or_else(BTreeSet::new, |cut_over| cut_over.waiting.clone())
    }

    /// What is durable.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The connected instances and their reported status.
    pub fn connected(&self) -> &BTreeMap<InstanceId, InstanceStatus> {
        &self.connected
    }

    /// Every instance of the fleet.
    pub fn fleet(&self) -> &BTreeSet<InstanceId> {
        &self.fleet
    }

    /// This coordinator's incarnation.
    pub fn term(&self) -> Term {
        self.ledger.term
    }

    /// Whether what is not live is still being stopped somewhere.
    pub fn is_retiring(&self) -> bool {
        self.retiring.is_some()
    }

    fn reported(&mut self, from: &InstanceId, envelope: ReportEnvelope, now: Timestamp) {
        let ReportEnvelope { token, report } = envelope;
        let epoch = token.epoch;
        match report {
            Report::Status(status) => {
                self.status(from, status);
                self.step(|coordinator, cut_over| coordinator.confirmed(cut_over, from));
            }
            Report::InDoubt => self.resolve_in_doubt(from, epoch),
            Report::Unhealthy { service, reason } => {
                let reason = format!("`{service}` on instance `{from}`: {reason}");
                self.step_of(epoch, |coordinator, cut_over| {
                    coordinator.unhealthy(cut_over, reason)
                });
            }
            Report::Retired(_) => self.retired(from, epoch),
            Report::Fenced => {}
            Report::Prepared
            | Report::PrepareFailed { .. }
            | Report::PeersReady
            | Report::PeersNotReady { .. }
            | Report::BeforeSwitchDone { .. }
            | Report::BeforeSwitchFailed { .. }
            | Report::Armed { .. }
            | Report::Held(_)
            | Report::HoldRefused { .. } => {
                // A vote counts only if it was given to this term.
                if token.term == self.ledger.term || broken!(self, ResumeUndecided) {
                    self.step_of(epoch, |coordinator, cut_over| {
                        Some(coordinator.voted(cut_over, from, report, now))
                    });
                }
            }
            Report::Switched(_) => self.step_of(epoch, |coordinator, cut_over| {
                coordinator.switched(cut_over, from, None)
            }),
            Report::SwitchFailed { reason } => {
                let reason = format!("instance `{from}`: {reason}");
                self.step_of(epoch, |coordinator, cut_over| {
                    coordinator.switched(cut_over, from, Some(reason))
                });
            }
            Report::Aborted => self.step_of(epoch, |coordinator, cut_over| {
                coordinator.abort_confirmed(cut_over, from)
            }),
        }
    }

    /// Does something with the cut-over in progress, if there is one.
    fn step(&mut self, take: impl FnOnce(&mut Self, CutOverInProgress) -> Next) {
        if let Some(cut_over) = self.in_progress.take() {
            self.in_progress = take(self, cut_over);
        }
    }

    /// Does something with the cut-over in progress, if it is this one.
    fn step_of(&mut self, epoch: Epoch, take: impl FnOnce(&mut Self, CutOverInProgress) -> Next) {
        if self.epoch() == Some(epoch) {
            self.step(take);
        }
    }

    /// Begins a phase: sends its directive to all who are waited for, and sets its timers.
    fn enter(
        &mut self,
        cut_over: CutOverInProgress,
        phase: Phase,
        waiting: BTreeSet<InstanceId>,
        deadline: Option<(CoordinatorTimer, Duration)>,
    ) -> CutOverInProgress {
        let cut_over = CutOverInProgress {
            waiting,
            phase,
            ..cut_over
        };
        self.prompt_all(&cut_over);
        if let Some((timer, after)) = deadline {
            self.set_timer(timer, after);
        }
        let resend = CoordinatorTimer::Resend(cut_over.epoch());
        self.set_timer(resend, resend_after(&cut_over.phase));
        cut_over
    }

    /// Changes the ledger and makes the change durable before anything that follows.
    fn record(&mut self, record: CoordinatorRecord) {
        self.ledger.apply(&record);
        self.effects.push(CoordinatorEffect::Persist(record));
    }

    fn send(&mut self, to: &InstanceId, epoch: Epoch, directive: Directive) {
        let term = self.ledger.term;
        self.effects.push(CoordinatorEffect::Send {
            to: to.clone(),
            envelope: DirectiveEnvelope {
                token: Token { term, epoch },
                directive,
            },
        });
    }

    fn set_timer(&mut self, timer: CoordinatorTimer, after: Duration) {
        self.effects
            .push(CoordinatorEffect::SetTimer { timer, after });
    }

    /// Sends the phase's directive to every instance that has not answered it.
    fn prompt_all(&mut self, cut_over: &CutOverInProgress) {
        for instance in &cut_over.waiting {
            if let Some(directive) = directive_of(cut_over, instance) {
                self.send(instance, cut_over.epoch(), directive);
            }
        }
    }

    /// Sends an instance once more what it has not answered.
    fn remind(&mut self, instance: &InstanceId) {
        let retiring = self.retiring.as_ref();
        let retiring = retiring.filter(|(_, waiting)| waiting.contains(instance));
        if let Some((epoch, _)) = retiring {
            self.send(instance, *epoch, Directive::Retire);
        }
        let cut_over = self.in_progress.as_ref();
        let cut_over = cut_over.filter(|cut_over| cut_over.waiting.contains(instance));
        let unanswered = cut_over.and_then(|cut_over| {
            let directive = directive_of(cut_over, instance)?;
            Some((cut_over.epoch(), directive))
        });
        if let Some((epoch, directive)) = unanswered {
            self.send(instance, epoch, directive);
        }
    }

    fn timer_fired(&mut self, timer: CoordinatorTimer) {
        match timer {
            CoordinatorTimer::PrepareDeadline(epoch)
            | CoordinatorTimer::PeersDeadline(epoch)
            | CoordinatorTimer::BeforeSwitchDeadline(epoch)
            | CoordinatorTimer::ArmDeadline(epoch)
            | CoordinatorTimer::HoldBudget(epoch)
            | CoordinatorTimer::AbortDeadline(epoch)
            | CoordinatorTimer::WatchOver(epoch)
            | CoordinatorTimer::RetryRollback(epoch) => {
                self.step_of(epoch, |coordinator, cut_over| {
                    coordinator.phase_over(cut_over, timer)
                });
            }
            CoordinatorTimer::WarmOver(epoch) => self.warm_over(epoch),
            CoordinatorTimer::Resend(epoch) => self.resend(epoch),
        }
    }

    /// A phase has had its time, unless it is over already.
    fn phase_over(&mut self, cut_over: CutOverInProgress, timer: CoordinatorTimer) -> Next {
        let what = match (&cut_over.phase, timer) {
            (Phase::Preparing, CoordinatorTimer::PrepareDeadline(_)) => "was not ready in time",
            (Phase::CheckingPeers { .. }, CoordinatorTimer::PeersDeadline(_)) => {
                "has not reported on its peers in time"
            }
            (Phase::BeforeSwitch, CoordinatorTimer::BeforeSwitchDeadline(_)) => {
                "has not finished `before_switch` in time"
            }
            (Phase::Arming { .. }, CoordinatorTimer::ArmDeadline(_)) => "has not armed in time",
            (Phase::Holding { .. }, CoordinatorTimer::HoldBudget(_)) => {
                "has not held within the hold budget"
            }
            (Phase::Aborting, CoordinatorTimer::AbortDeadline(_)) => {
                return self.abort_complete(cut_over);
            }
            (Phase::Watching, CoordinatorTimer::WatchOver(_)) => {
                return Some(self.confirm(cut_over));
            }
            // An instance that is still away cannot stop the others: the decision stands.
            (Phase::Confirming, CoordinatorTimer::WatchOver(_)) => return self.proceed(&cut_over),
            (Phase::RetryingRollback, CoordinatorTimer::RetryRollback(_)) => {
                let reason = cut_over.rollback_reason.unwrap_or_default();
                return self.roll_back(reason);
            }
            // A timer of a phase that is over.
            (
                Phase::Idle
                | Phase::Preparing
                | Phase::CheckingPeers { .. }
                | Phase::Ready
                | Phase::BeforeSwitch
                | Phase::Arming { .. }
                | Phase::Holding { .. }
                | Phase::Switching
                | Phase::Watching
                | Phase::Confirming
                | Phase::Aborting
                | Phase::RetryingRollback
                | Phase::Retiring,
                _,
            ) => return Some(cut_over),
        };
        Some(self.abort_waiting(cut_over, what))
    }

    fn resend(&mut self, epoch: Epoch) {
        let retiring = self.retiring.as_ref();
        let retiring = retiring.filter(|(retired, _)| *retired == epoch);
        let retiring = retiring.map_or_else(BTreeSet::new, |(_, waiting)| waiting.clone());
        for instance in &retiring {
            self.send(instance, epoch, Directive::Retire);
        }
        let mut is_pending = !retiring.is_empty();
        self.step_of(epoch, |coordinator, cut_over| {
            is_pending |= !cut_over.waiting.is_empty();
            coordinator.prompt_all(&cut_over);
            Some(cut_over)
        });
        if is_pending {
            let after = resend_after(self.phase());
            self.set_timer(CoordinatorTimer::Resend(epoch), after);
        }
    }
}

/// How often a phase's directive is sent again while an answer is missing.
fn resend_after(phase: &Phase) -> Duration {
    match phase {
        Phase::Arming { .. } | Phase::Holding { .. } | Phase::Switching | Phase::Aborting => {
            RESEND_QUICK
        }
        Phase::Idle
        | Phase::Preparing
        | Phase::CheckingPeers { .. }
        | Phase::Ready
        | Phase::BeforeSwitch
        | Phase::Watching
        | Phase::Confirming
        | Phase::RetryingRollback
        | Phase::Retiring => RESEND_SLOW,
    }
}

/// The phase's directive to one instance, if the phase has one.
fn directive_of(cut_over: &CutOverInProgress, instance: &InstanceId) -> Option<Directive> {
    Some(match &cut_over.phase {
        Phase::Preparing => Directive::Prepare(Box::new(cut_over.started.cut_over.clone())),
        Phase::CheckingPeers { .. } => {
            Directive::CheckPeers(peers::seen_by(instance, cut_over.participants()))
        }
        Phase::BeforeSwitch => Directive::BeforeSwitch,
        Phase::Arming { .. } => Directive::Arm,
        Phase::Holding { .. } => Directive::Hold,
        Phase::Switching => Directive::Switch,
        Phase::Confirming => Directive::QueryStatus,
        Phase::Aborting => Directive::Abort,
        Phase::Idle
        | Phase::Ready
        | Phase::Watching
        | Phase::RetryingRollback
        | Phase::Retiring => return None,
    })
}
