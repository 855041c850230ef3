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
//! Between `Preparing` and `Ready` the instances may also look at each other (`CheckingPeers`).
//!
//! One deployment at a time. A rollback is a cut-over like any other, with the roles swapped.

mod abort;
mod after_commit;
mod effect;
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
pub use phase::Phase;
pub use snapshot::snapshot;

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

/// The coordinator: a durable ledger, and what is known only while the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    fleet: BTreeSet<InstanceId>,
    ledger: Ledger,
    phase: Phase,
    /// Why the fleet must be rolled back once the switch is complete.
    rollback_reason: Option<String>,
    /// Whether someone has asked since that a deployment to be promoted by hand go on by itself. A
    /// restart aborts what has not committed, so there is nothing to remember.
    is_promoted: bool,
    /// Who has yet to stop what is not live, once that was asked.
    retiring: Option<(Epoch, BTreeSet<InstanceId>)>,
    connected: BTreeMap<InstanceId, InstanceStatus>,
    /// How long making a record durable takes here, as last measured.
    sync: Duration,
    mutant: Mutant,
}

impl Coordinator {
    /// Takes a person's command, or refuses it and changes nothing.
    pub fn command(
        &mut self,
        command: Command,
        now: Timestamp,
    ) -> Result<(Accepted, Vec<CoordinatorEffect>), Refusal> {
        let mut effects = Vec::new();
        let accepted = match command {
            Command::Deploy(request) => self.deploy(*request, now, &mut effects)?,
            Command::Rollback(rollback) => {
                let request = self.rollback_request(*rollback)?;
                self.deploy(request, now, &mut effects)?
            }
            Command::Promote => self.promote(now, &mut effects)?,
            Command::Abort { requested_by } => {
                self.abort_on_request(&requested_by, &mut effects)?
            }
        };
        Ok((accepted, effects))
    }

    /// Takes one event; never fails. What is stale changes nothing (G6).
    #[must_use = "effects not carried out are lost"]
    pub fn handle(&mut self, event: CoordinatorEvent, now: Timestamp) -> Vec<CoordinatorEffect> {
        let mut effects = Vec::new();
        match event {
            CoordinatorEvent::Connected(instance) => {
                self.connected.entry(instance.clone()).or_default();
                self.send(
                    &instance,
                    self.ledger.epoch,
                    Directive::QueryStatus,
                    &mut effects,
                );
                self.prompt(&instance, &mut effects);
            }
            CoordinatorEvent::Disconnected(instance) => self.lost(&instance, &mut effects),
            CoordinatorEvent::Reported { from, envelope } => {
                self.reported(&from, envelope, now, &mut effects);
            }
            CoordinatorEvent::TimerFired(timer) => self.timer_fired(timer, now, &mut effects),
            CoordinatorEvent::Synced(took) => self.sync = took,
        }
        effects
    }

    /// Where the deployment stands.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What is durable.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The connected instances and how they said they stand.
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

    fn reported(
        &mut self,
        from: &InstanceId,
        envelope: ReportEnvelope,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let ReportEnvelope { token, report } = envelope;
        match report {
            Report::Status(status) => {
                self.status(from, status, effects);
                self.confirmed(from, now, effects);
            }
            Report::InDoubt => self.resolve_in_doubt(from, token.epoch, effects),
            Report::Unhealthy { service, reason } => {
                let reason = format!("`{service}` on instance `{from}`: {reason}");
                self.unhealthy(token.epoch, reason, now, effects);
            }
            Report::Retired(_) => self.retired(from, token.epoch, effects),
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
                if self.is_vote(token) {
                    self.voted(from, report, now, effects);
                }
            }
            Report::Switched(_) => self.switched(from, token.epoch, None, now, effects),
            Report::SwitchFailed { reason } => {
                let reason = format!("instance `{from}`: {reason}");
                self.switched(from, token.epoch, Some(reason), now, effects);
            }
            Report::Aborted => self.abort_confirmed(from, token.epoch, now, effects),
        }
    }

    /// A vote counts only for the epoch under way, and only if it was given to this term.
    fn is_vote(&self, token: Token) -> bool {
        let epoch_matches = self.phase.epoch() == Some(token.epoch);
        epoch_matches && (token.term == self.ledger.term || broken!(self, ResumeUndecided))
    }

    /// Changes the ledger and makes the change durable before anything that follows.
    fn record(&mut self, record: CoordinatorRecord, effects: &mut Vec<CoordinatorEffect>) {
        self.ledger.apply(&record);
        effects.push(CoordinatorEffect::Persist(record));
    }

    fn send(
        &self,
        to: &InstanceId,
        epoch: Epoch,
        directive: Directive,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        effects.push(CoordinatorEffect::Send {
            to: to.clone(),
            envelope: DirectiveEnvelope {
                token: Token {
                    term: self.ledger.term,
                    epoch,
                },
                directive,
            },
        });
    }

    /// Sends the phase's directive to everyone who has not answered it.
    fn prompt_all(&mut self, effects: &mut Vec<CoordinatorEffect>) {
        for instance in self.phase.waiting_for() {
            self.prompt(&instance, effects);
        }
    }

    /// Sends the phase's directive to one instance, if it has not answered it.
    fn prompt(&self, instance: &InstanceId, effects: &mut Vec<CoordinatorEffect>) {
        if let Some((epoch, waiting)) = &self.retiring
            && waiting.contains(instance)
        {
            self.send(instance, *epoch, Directive::Retire, effects);
        }
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        if !self.phase.waits_for(instance) {
            return;
        }
        let epoch = started.cut_over.epoch;
        let directive = match &self.phase {
            Phase::Preparing { .. } => Directive::Prepare(Box::new(started.cut_over.clone())),
            Phase::CheckingPeers { .. } => {
                Directive::CheckPeers(peers::seen_by(instance, &started.cut_over.participants))
            }
            Phase::BeforeSwitch { .. } => Directive::BeforeSwitch,
            Phase::Arming { .. } => Directive::Arm,
            Phase::Holding { .. } => Directive::Hold,
            Phase::Switching { .. } => Directive::Switch,
            Phase::Confirming { .. } => Directive::QueryStatus,
            Phase::Aborting { .. } => Directive::Abort,
            Phase::Idle | Phase::Ready { .. } | Phase::Watching { .. } | Phase::Retiring { .. } => {
                return;
            }
        };
        self.send(instance, epoch, directive, effects);
    }

    fn timer(timer: CoordinatorTimer, after: Duration, effects: &mut Vec<CoordinatorEffect>) {
        effects.push(CoordinatorEffect::SetTimer { timer, after });
    }

    fn timer_fired(
        &mut self,
        timer: CoordinatorTimer,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let here = self.phase.epoch();
        match timer {
            CoordinatorTimer::PrepareDeadline(epoch) if here == Some(epoch) => {
                self.prepare_overdue(effects);
            }
            CoordinatorTimer::PeersDeadline(epoch) if here == Some(epoch) => {
                if matches!(self.phase, Phase::CheckingPeers { .. }) {
                    self.abort_waiting("has not reported on its peers in time", effects);
                }
            }
            CoordinatorTimer::ArmDeadline(epoch) if here == Some(epoch) => {
                if matches!(self.phase, Phase::Arming { .. }) {
                    self.abort_waiting("has not armed in time", effects);
                }
            }
            CoordinatorTimer::BeforeSwitchDeadline(epoch) if here == Some(epoch) => {
                if matches!(self.phase, Phase::BeforeSwitch { .. }) {
                    self.abort_waiting("has not finished `before_switch` in time", effects);
                }
            }
            CoordinatorTimer::HoldBudget(epoch) if here == Some(epoch) => {
                if matches!(self.phase, Phase::Holding { .. }) {
                    self.abort_waiting("has not held within the hold budget", effects);
                }
            }
            CoordinatorTimer::AbortDeadline(epoch) if here == Some(epoch) => {
                if matches!(self.phase, Phase::Aborting { .. }) {
                    self.abort_complete(now, effects);
                }
            }
            CoordinatorTimer::WatchOver(epoch) if here == Some(epoch) => {
                self.watch_over(now, effects);
            }
            CoordinatorTimer::RetryRollback(epoch) if here == Some(epoch) => {
                self.roll_back(now, effects);
            }
            CoordinatorTimer::WarmOver(epoch) => self.begin_retire(epoch, effects),
            CoordinatorTimer::Resend(epoch) => self.resend(epoch, effects),
            CoordinatorTimer::PrepareDeadline(_)
            | CoordinatorTimer::PeersDeadline(_)
            | CoordinatorTimer::BeforeSwitchDeadline(_)
            | CoordinatorTimer::ArmDeadline(_)
            | CoordinatorTimer::HoldBudget(_)
            | CoordinatorTimer::AbortDeadline(_)
            | CoordinatorTimer::WatchOver(_)
            | CoordinatorTimer::RetryRollback(_) => {}
        }
    }

    fn resend(&mut self, epoch: Epoch, effects: &mut Vec<CoordinatorEffect>) {
        let retiring: Vec<_> = match &self.retiring {
            Some((retired, waiting)) if *retired == epoch => waiting.iter().cloned().collect(),
            Some(_) | None => Vec::new(),
        };
        for instance in &retiring {
            self.send(instance, epoch, Directive::Retire, effects);
        }
        let mut pending = !retiring.is_empty();
        if self.phase.epoch() == Some(epoch) && !self.phase.waiting_for().is_empty() {
            self.prompt_all(effects);
            pending = true;
        }
        if pending {
            Self::timer(
                CoordinatorTimer::Resend(epoch),
                self.resend_after(),
                effects,
            );
        }
    }

    fn resend_after(&self) -> Duration {
        match self.phase {
            Phase::Arming { .. }
            | Phase::Holding { .. }
            | Phase::Switching { .. }
            | Phase::Aborting { .. } => RESEND_QUICK,
            Phase::Idle
            | Phase::Preparing { .. }
            | Phase::CheckingPeers { .. }
            | Phase::Ready { .. }
            | Phase::BeforeSwitch { .. }
            | Phase::Watching { .. }
            | Phase::Confirming { .. }
            | Phase::Retiring { .. } => RESEND_SLOW,
        }
    }
}
