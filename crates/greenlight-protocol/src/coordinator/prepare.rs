//! From a request to the commit: accept, prepare, arm, hold, decide.

use super::{
    Accepted, Coordinator, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer, CutOverStarted,
    DeploymentRequest, Ledger, Phase, Promotion, Refusal, RollbackRequest,
};
use crate::cut_over::{CutOver, Direction};
use crate::id::{InstanceId, ServiceName};
use crate::message::Report;
use crate::mutant::broken;
use crate::plan::Position;
use crate::policy::PeerChecks;
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
        effects: &mut Vec<CoordinatorEffect>,
    ) -> Result<Accepted, Refusal> {
        if let Some(active) = self.ledger.active() {
            if active.request.releases == request.releases {
                let deployment = active.request.deployment.clone();
                if request.promotion == Promotion::Automatic {
                    self.promote_when_ready(now, effects);
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
                phase: self.phase.to_string(),
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
        self.record(CoordinatorRecord::Accepted(Box::new(request)), effects);
        self.start_cut_over(Direction::Forward, Position::default(), None, now, effects);
        Ok(Accepted::Started(deployment))
    }

    /// Whether a service is live by decision, or anywhere because a rollback is stuck.
    fn is_live_anywhere(&self, service: &ServiceName) -> bool {
        let mut instances = self.connected.values();
        self.ledger.live.contains_key(service)
            || instances.any(|status| status.live.contains_key(service))
    }

    /// The request that restores what the fleet served before: the whole set of then, and no mixture
    /// of then and now.
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

    /// Begins a cut-over: a new epoch, written down before anyone is told.
    pub(super) fn start_cut_over(
        &mut self,
        direction: Direction,
        position: Position,
        reason: Option<String>,
        _now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let Some(deployment) = self.ledger.active() else {
            return;
        };
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
        self.rollback_reason = None;
        self.phase = Phase::Preparing {
            epoch,
            waiting: participants,
        };
        let started = CutOverStarted {
            position,
            cut_over,
            reason,
        };
        self.record(
            CoordinatorRecord::CutOverStarted(Box::new(started)),
            effects,
        );
        self.prompt_all(effects);
        Self::timer(CoordinatorTimer::PrepareDeadline(epoch), within, effects);
        Self::timer(
            CoordinatorTimer::Resend(epoch),
            self.resend_after(),
            effects,
        );
    }

    /// A vote of the epoch under way, given to this term.
    pub(super) fn voted(
        &mut self,
        from: &InstanceId,
        report: Report,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        match (&mut self.phase, report) {
            (Phase::Preparing { waiting, .. }, Report::Prepared) => {
                waiting.remove(from);
                if waiting.is_empty() {
                    self.all_prepared(now, effects);
                }
            }
            (
                Phase::Preparing { .. }
                | Phase::CheckingPeers { .. }
                | Phase::Ready { .. }
                | Phase::BeforeSwitch { .. }
                | Phase::Arming { .. },
                Report::PrepareFailed { reason },
            )
            | (Phase::BeforeSwitch { .. }, Report::BeforeSwitchFailed { reason })
            | (Phase::Holding { .. }, Report::HoldRefused { reason }) => {
                self.abort(format!("instance `{from}`: {reason}"), effects);
            }
            (Phase::CheckingPeers { .. }, Report::PeersReady) => {
                self.peers_seen(from, BTreeMap::new(), now, effects);
            }
            (Phase::CheckingPeers { .. }, Report::PeersNotReady { unseen }) => {
                self.peers_seen(from, unseen, now, effects);
            }
            (Phase::BeforeSwitch { waiting, .. }, Report::BeforeSwitchDone { .. }) => {
                if waiting.contains(from) {
                    self.begin_arming(now, effects);
                }
            }
            (
                Phase::Arming {
                    waiting,
                    since,
                    round_trip,
                    ..
                },
                Report::Armed { sync },
            ) => {
                if waiting.remove(from) {
                    *round_trip = (*round_trip).max(now.since(*since).saturating_sub(sync));
                }
                if waiting.is_empty() {
                    let round_trip = *round_trip;
                    self.all_armed(round_trip, now, effects);
                }
            }
            (Phase::Holding { waiting, since, .. }, Report::Held(_)) => {
                waiting.remove(from);
                if waiting.is_empty() {
                    let since = *since;
                    self.all_held(now.since(since), effects);
                }
            }
            // An answer to an earlier directive of the same epoch, repeated by the network.
            (_, _) => {}
        }
    }

    fn all_prepared(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        if !self.check_peers(effects) {
            self.all_ready(now, effects);
        }
    }

    /// All are ready, for themselves and for each other.
    pub(super) fn all_ready(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let epoch = started.cut_over.epoch;
        let manual = started.cut_over.direction == Direction::Forward
            && started.position == Position::default()
            && self
                .ledger
                .active()
                .is_some_and(|d| d.request.promotion == Promotion::Manual);
        if manual && !self.is_promoted {
            self.phase = Phase::Ready { epoch };
        } else {
            self.before_switch(now, effects);
        }
    }

    /// Someone wants the deployment to go on by itself who found it waiting, or about to wait.
    fn promote_when_ready(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        self.is_promoted = true;
        if matches!(self.phase, Phase::Ready { .. }) {
            self.before_switch(now, effects);
        }
    }

    pub(super) fn promote(
        &mut self,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) -> Result<Accepted, Refusal> {
        let Some(active) = self.ledger.active() else {
            return Err(Refusal::NothingUnderWay);
        };
        let deployment = active.request.deployment.clone();
        if !matches!(self.phase, Phase::Ready { .. }) {
            return Err(Refusal::NotReady(self.phase.to_string()));
        }
        self.before_switch(now, effects);
        Ok(Accepted::Done(deployment))
    }

    /// Has one instance run the command that comes before the switch, once in a deployment: before
    /// its first step forward. A coordinator that restarts meanwhile aborts, and never asks again.
    fn before_switch(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let cut_over = &started.cut_over;
        let first = started.position == Position::default();
        let within = match cut_over.direction {
            Direction::Forward if first => cut_over.policy.before_switch,
            Direction::Forward | Direction::Back => None,
        };
        let (Some(within), Some(elected)) = (within, cut_over.participants.first()) else {
            self.begin_arming(now, effects);
            return;
        };
        let epoch = cut_over.epoch;
        self.phase = Phase::BeforeSwitch {
            epoch,
            waiting: [elected.clone()].into(),
        };
        self.prompt_all(effects);
        let within = within + PREPARE_SLACK;
        Self::timer(
            CoordinatorTimer::BeforeSwitchDeadline(epoch),
            within,
            effects,
        );
        Self::timer(
            CoordinatorTimer::Resend(epoch),
            self.resend_after(),
            effects,
        );
    }

    fn begin_arming(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let epoch = started.cut_over.epoch;
        self.phase = Phase::Arming {
            epoch,
            waiting: started.cut_over.participants.clone(),
            since: now,
            round_trip: Duration::ZERO,
        };
        self.prompt_all(effects);
        Self::timer(CoordinatorTimer::ArmDeadline(epoch), ARM_DEADLINE, effects);
        Self::timer(
            CoordinatorTimer::Resend(epoch),
            self.resend_after(),
            effects,
        );
    }

    /// Arming was a rehearsal: if the hold would not fit the budget, refuse before touching
    /// traffic. A hold is one round trip, one disk write, and the way to the last gate.
    fn all_armed(
        &mut self,
        round_trip: Duration,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let cut_over = &started.cut_over;
        let (epoch, budget) = (cut_over.epoch, cut_over.policy.hold_budget);
        let predicted = round_trip + self.sync + round_trip / 2;
        if predicted > budget {
            let reason = format!(
                "the hold would take about {} ms, more than the hold budget of {} ms",
                predicted.as_millis(),
                budget.as_millis()
            );
            self.abort(reason, effects);
            return;
        }
        self.phase = Phase::Holding {
            epoch,
            waiting: cut_over.participants.clone(),
            since: now,
        };
        self.prompt_all(effects);
        Self::timer(CoordinatorTimer::HoldBudget(epoch), budget, effects);
        Self::timer(
            CoordinatorTimer::Resend(epoch),
            self.resend_after(),
            effects,
        );
    }

    /// Everyone holds: decide. Past the budget the timer may merely be late, so look again.
    fn all_held(&mut self, held_for: Duration, effects: &mut Vec<CoordinatorEffect>) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let cut_over = &started.cut_over;
        if held_for > cut_over.policy.hold_budget {
            self.abort(
                "the hold took longer than the hold budget".to_owned(),
                effects,
            );
            return;
        }
        let epoch = cut_over.epoch;
        let waiting = cut_over.participants.clone();
        self.phase = Phase::Switching { epoch, waiting };
        if broken!(self, SwitchBeforeCommit) {
            self.prompt_all(effects);
        }
        self.record(CoordinatorRecord::Committed(epoch), effects);
        self.prompt_all(effects);
        Self::timer(
            CoordinatorTimer::Resend(epoch),
            self.resend_after(),
            effects,
        );
    }
}
