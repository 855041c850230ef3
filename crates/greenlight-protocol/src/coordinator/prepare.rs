//! From a request to the commit: accept, prepare, arm, hold, decide.

use super::in_progress::CutOverInProgress;
use super::{
    Accepted, Coordinator, CoordinatorRecord, CoordinatorTimer, CutOverStarted, DeploymentRequest,
    Ledger, Next, Phase, Promotion, Refusal, RollbackRequest,
};
use crate::cut_over::{CutOver, Direction};
use crate::id::{InstanceId, ServiceName};
use crate::message::Report;
use crate::mutant::broken;
use crate::policy::PeerChecks;
use crate::strategy::Position;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Arming is one round trip and one disk write; an agent that needs longer would blow the hold.
const ARM_DEADLINE: Duration = Duration::from_secs(5);
/// What an agent may take longer than its own deadline, so that its own reason arrives first.
const PREPARE_SLACK: Duration = Duration::from_secs(5);

impl Coordinator {
    pub(super) fn deploy(
        &mut self,
        request: DeploymentRequest,
        now: Timestamp,
    ) -> Result<Accepted, Refusal> {
        if let Some(active) = self.ledger.active() {
            if active.request.releases == request.releases {
                let deployment = active.request.deployment.clone();
                if request.promotion == Promotion::Automatic {
                    self.promote_when_ready(now);
                }
                return Ok(Accepted::Attached(deployment));
            }
            let mut versions = active.request.releases.values().flatten();
            return Err(Refusal::Busy {
                deployment: active.request.deployment.clone(),
                version: versions
                    .next()
                    .map(|r| r.version.clone())
                    .unwrap_or_default(),
                requested_by: active.request.requested_by.clone(),
                phase: self.phase().name(),
            });
        }
        if request.releases.is_empty() {
            return Err(Refusal::NoServices);
        }
        request.plan.check()?;
        for (service, release) in &request.releases {
            if release.is_none() && !self.is_live_anywhere(service) {
                return Err(Refusal::NotLive(service.clone()));
            }
        }
        for instance in request.plan.instances() {
            if !self.fleet.contains(&instance) {
                return Err(Refusal::UnknownInstance(instance));
            }
            if !self.connected.contains_key(&instance) {
                return Err(Refusal::NotConnected(instance));
            }
        }
        let deployment = request.deployment.clone();
        self.retiring = None;
        self.is_promoted = false;
        self.record(CoordinatorRecord::Accepted(Box::new(request)));
        self.in_progress = self.start_cut_over(Direction::Forward, Position::default(), None);
        Ok(Accepted::Started(deployment))
    }

    /// Whether a service is live by decision, or anywhere because a rollback is stuck.
    fn is_live_anywhere(&self, service: &ServiceName) -> bool {
        let mut instances = self.connected.values();
        self.ledger.live.contains_key(service)
            || instances.any(|status| status.live.contains_key(service))
    }

    /// The request that restores what the fleet served before: the whole set of then, and no
    /// mixture of then and now.
    pub(super) fn rollback_request(
        &self,
        rollback: RollbackRequest,
    ) -> Result<DeploymentRequest, Refusal> {
        let Ledger {
            live,
            rollback_target,
            ..
        } = &self.ledger;
        if rollback_target.is_empty() {
            return Err(match live.keys().next() {
                Some(service) => Refusal::NoRollbackTarget(service.clone()),
                None => Refusal::NeverDeployed,
            });
        }
        let services: BTreeSet<_> = live.keys().chain(rollback_target.keys()).collect();
        let changed = services
            .into_iter()
            .filter(|service| live.get(*service) != rollback_target.get(*service));
        let last = self.ledger.deployment.as_ref().map(|d| &d.request.policy);
        let mut policy = rollback
            .policy
            .or_else(|| last.cloned())
            .unwrap_or_default();
        // What a command has prepared for the live release it has prepared for good.
        policy.before_switch = None;
        // The target has served requests: nothing may be in the way of the rollback.
        policy.peer_checks = PeerChecks::No;
        Ok(DeploymentRequest {
            deployment: rollback.deployment,
            requested_by: rollback.requested_by,
            releases: changed
                .map(|service| (service.clone(), rollback_target.get(service).cloned()))
                .collect(),
            plan: rollback.plan,
            policy,
            promotion: Promotion::Automatic,
        })
    }

    /// Starts a cut-over: a new epoch, written down before anyone is told.
    pub(super) fn start_cut_over(
        &mut self,
        direction: Direction,
        position: Position,
        reason: Option<String>,
    ) -> Next {
        let deployment = self.ledger.active()?;
        let (participants, releases) = match direction {
            Direction::Forward => (
                deployment.request.plan.waves[position.wave]
                    .instances
                    .clone(),
                deployment.request.releases.clone(),
            ),
            Direction::Back => {
                let services = deployment.request.releases.keys();
                let target = |service| deployment.rollback_target.get(service).cloned();
                let releases = services.map(|service| (service.clone(), target(service)));
                (deployment.changed.clone(), releases.collect())
            }
        };
        let cut_over = CutOver {
            epoch: self.ledger.epoch.next(),
            deployment: deployment.request.deployment.clone(),
            direction,
            participants: participants.clone(),
            releases,
            policy: deployment.request.policy.clone(),
        };
        let epoch = cut_over.epoch;
        let within = cut_over.policy.prepare + cut_over.policy.drain + PREPARE_SLACK;
        let started = CutOverStarted {
            position,
            cut_over,
            reason,
        };
        self.record(CoordinatorRecord::CutOverStarted(Box::new(started.clone())));
        let cut_over = CutOverInProgress::new(started);
        let deadline = Some((CoordinatorTimer::PrepareDeadline(epoch), within));
        Some(self.enter(cut_over, Phase::Preparing, participants, deadline))
    }

    /// A vote of the epoch in progress, given to this term.
    pub(super) fn voted(
        &mut self,
        mut cut_over: CutOverInProgress,
        from: &InstanceId,
        vote: Report,
        now: Timestamp,
    ) -> CutOverInProgress {
        if !cut_over.phase.takes(&vote) {
            return cut_over;
        }
        match vote {
            Report::Prepared => match cut_over.answered(from) {
                true => self.all_prepared(cut_over, now),
                false => cut_over,
            },
            Report::PrepareFailed { reason }
            | Report::BeforeSwitchFailed { reason }
            | Report::HoldRefused { reason } => {
                self.abort(cut_over, format!("instance `{from}`: {reason}"))
            }
            Report::PeersReady => self.peers_seen(cut_over, from, BTreeMap::new(), now),
            Report::PeersNotReady { unseen } => self.peers_seen(cut_over, from, unseen, now),
            Report::BeforeSwitchDone { .. } => match cut_over.waiting.contains(from) {
                true => self.arm(cut_over, now),
                false => cut_over,
            },
            Report::Armed { sync } => self.armed(cut_over, from, sync, now),
            Report::Held(_) => match cut_over.answered(from) {
                true => self.all_held(cut_over, now),
                false => cut_over,
            },
            // These are no votes.
            Report::Status(_)
            | Report::Switched(_)
            | Report::SwitchFailed { .. }
            | Report::Aborted
            | Report::Retired(_)
            | Report::Unhealthy { .. }
            | Report::InDoubt
            | Report::Fenced => cut_over,
        }
    }

    fn all_prepared(&mut self, cut_over: CutOverInProgress, now: Timestamp) -> CutOverInProgress {
        match Self::must_check_peers(&cut_over.started.cut_over) {
            true => self.check_peers(cut_over),
            false => self.all_ready(cut_over, now),
        }
    }

    /// All are ready, for themselves and for each other.
    pub(super) fn all_ready(
        &mut self,
        cut_over: CutOverInProgress,
        now: Timestamp,
    ) -> CutOverInProgress {
        let promotion = self.ledger.active().map(|d| d.request.promotion);
        let is_manual = cut_over.is_first_step() && promotion == Some(Promotion::Manual);
        if is_manual && !self.is_promoted {
            return cut_over.unattended(Phase::Ready);
        }
        self.before_switch(cut_over, now)
    }

    /// A person wants the deployment to continue automatically, and found it waiting or about to
    /// wait.
    fn promote_when_ready(&mut self, now: Timestamp) {
        self.is_promoted = true;
        if *self.phase() == Phase::Ready {
            self.step(|coordinator, cut_over| Some(coordinator.before_switch(cut_over, now)));
        }
    }

    /// Command `Promote`.
    pub(super) fn promote(&mut self, now: Timestamp) -> Result<Accepted, Refusal> {
        let Some(active) = self.ledger.active() else {
            return Err(Refusal::NothingUnderWay);
        };
        let deployment = active.request.deployment.clone();
        if *self.phase() != Phase::Ready {
            return Err(Refusal::NotReady(self.phase().name()));
        }
        self.step(|coordinator, cut_over| Some(coordinator.before_switch(cut_over, now)));
        Ok(Accepted::Done(deployment))
    }

    /// Has one instance run the command that comes before the switch, once in a deployment: before
    /// its first step forward. A coordinator that restarts meanwhile aborts, and never asks again.
    fn before_switch(&mut self, cut_over: CutOverInProgress, now: Timestamp) -> CutOverInProgress {
        let within = match cut_over.is_first_step() {
            true => cut_over.started.cut_over.policy.before_switch,
            false => None,
        };
        let elected = cut_over.participants().first().cloned();
        let (Some(within), Some(elected)) = (within, elected) else {
            return self.arm(cut_over, now);
        };
        let timer = CoordinatorTimer::BeforeSwitchDeadline(cut_over.epoch());
        let deadline = Some((timer, within + PREPARE_SLACK));
        self.enter(cut_over, Phase::BeforeSwitch, [elected].into(), deadline)
    }

    fn arm(&mut self, cut_over: CutOverInProgress, now: Timestamp) -> CutOverInProgress {
        let waiting = cut_over.participants().clone();
        let timer = CoordinatorTimer::ArmDeadline(cut_over.epoch());
        let phase = Phase::Arming {
            since: now,
            round_trip: Duration::ZERO,
        };
        self.enter(cut_over, phase, waiting, Some((timer, ARM_DEADLINE)))
    }

    fn armed(
        &mut self,
        mut cut_over: CutOverInProgress,
        from: &InstanceId,
        sync: Duration,
        now: Timestamp,
    ) -> CutOverInProgress {
        let is_news = cut_over.waiting.remove(from);
        let Phase::Arming { since, round_trip } = &mut cut_over.phase else {
            return cut_over;
        };
        if is_news {
            *round_trip = (*round_trip).max(now.since(*since).saturating_sub(sync));
        }
        let round_trip = *round_trip;
        match cut_over.waiting.is_empty() {
            true => self.all_armed(cut_over, round_trip, now),
            false => cut_over,
        }
    }

    /// Arming was a rehearsal: if the hold would not fit the budget, refuse before touching
    /// traffic. A hold is one round trip, one disk write, and the way to the last gate.
    fn all_armed(
        &mut self,
        cut_over: CutOverInProgress,
        round_trip: Duration,
        now: Timestamp,
    ) -> CutOverInProgress {
        let budget = cut_over.started.cut_over.policy.hold_budget;
        let predicted = round_trip + self.sync + round_trip / 2;
        if predicted > budget {
            let reason = format!(
                "the hold would take about {} ms, more than the hold budget of {} ms",
                predicted.as_millis(),
                budget.as_millis()
            );
            return self.abort(cut_over, reason);
        }
        let waiting = cut_over.participants().clone();
        let deadline = Some((CoordinatorTimer::HoldBudget(cut_over.epoch()), budget));
        self.enter(cut_over, Phase::Holding { since: now }, waiting, deadline)
    }

    /// Everyone holds: decide. Past the budget the timer may merely be late, so look again.
    fn all_held(&mut self, cut_over: CutOverInProgress, now: Timestamp) -> CutOverInProgress {
        let Phase::Holding { since } = cut_over.phase else {
            return cut_over;
        };
        if now.since(since) > cut_over.started.cut_over.policy.hold_budget {
            return self.abort(
                cut_over,
                "the hold took longer than the hold budget".to_owned(),
            );
        }
        if broken!(self, SwitchBeforeCommit) {
            let early = CutOverInProgress {
                waiting: cut_over.participants().clone(),
                phase: Phase::Switching,
                ..cut_over.clone()
            };
            self.prompt_all(&early);
        }
        self.record(CoordinatorRecord::Committed(cut_over.epoch()));
        self.switch(cut_over)
    }

    /// The commit is durable: everyone switches.
    pub(super) fn switch(&mut self, cut_over: CutOverInProgress) -> CutOverInProgress {
        let waiting = cut_over.participants().clone();
        self.enter(cut_over, Phase::Switching, waiting, None)
    }
}
