//! From an order to the commit: accept, prepare, arm, hold, decide.

use super::{
    Accepted, Begin, Coordinator, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer, Ledger,
    Order, Phase, Promotion, Refusal, RollbackOrder,
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
        order: Order,
        now: Timestamp,
        fx: &mut Vec<CoordinatorEffect>,
    ) -> Result<Accepted, Refusal> {
        if let Some(active) = self.ledger.active() {
            if active.order.releases == order.releases {
                let deployment = active.order.deployment.clone();
                if order.promotion == Promotion::Automatic {
                    self.promote_when_ready(now, fx);
                }
                return Ok(Accepted::Attached(deployment));
            }
            let mut versions = active.order.releases.values().flatten();
            return Err(Refusal::Busy {
                deployment: active.order.deployment.clone(),
                version: versions
                    .next()
                    .map(|r| r.version.clone())
                    .unwrap_or_default(),
                requested_by: active.order.requested_by.clone(),
                phase: self.phase.to_string(),
            });
        }
        if order.releases.is_empty() {
            return Err(Refusal::NoServices);
        }
        order.plan.check()?;
        for (service, release) in &order.releases {
            if release.is_none() && !self.is_live_anywhere(service) {
                return Err(Refusal::NotLive(service.clone()));
            }
        }
        for instance in order.plan.instances() {
            if !self.fleet.contains(&instance) {
                return Err(Refusal::UnknownInstance(instance));
            }
            if !self.presence.contains_key(&instance) {
                return Err(Refusal::NotConnected(instance));
            }
        }
        let deployment = order.deployment.clone();
        self.retiring = None;
        self.is_promoted = false;
        self.record(CoordinatorRecord::Accepted(Box::new(order)), fx);
        self.begin(Direction::Forward, Position::default(), None, now, fx);
        Ok(Accepted::Started(deployment))
    }

    /// Whether a service is live by decision, or anywhere because a way back got stuck.
    fn is_live_anywhere(&self, service: &ServiceName) -> bool {
        let mut instances = self.presence.values();
        self.ledger.live.contains_key(service)
            || instances.any(|status| status.live.contains_key(service))
    }

    /// Makes an order of what differs from what the fleet served before: the set of then, and no
    /// mixture of then and now.
    pub(super) fn rollback_order(&self, rollback: RollbackOrder) -> Result<Order, Refusal> {
        let Ledger { live, before, .. } = &self.ledger;
        if before.is_empty() {
            return Err(match live.keys().next() {
                Some(service) => Refusal::NoEarlierRelease(service.clone()),
                None => Refusal::NeverDeployed,
            });
        }
        let services: BTreeSet<_> = live.keys().chain(before.keys()).collect();
        let changed = services
            .into_iter()
            .filter(|service| live.get(*service) != before.get(*service));
        let last = self.ledger.deployment.as_ref().map(|d| &d.order.policy);
        let mut policy = rollback
            .policy
            .or_else(|| last.cloned())
            .unwrap_or_default();
        // What a command has prepared for the live release it has prepared for good.
        policy.before_switch = None;
        // It has served; nothing may be in the way back.
        policy.peer_checks = PeerChecks::No;
        Ok(Order {
            deployment: rollback.deployment,
            requested_by: rollback.requested_by,
            releases: changed
                .map(|service| (service.clone(), before.get(service).cloned()))
                .collect(),
            plan: rollback.plan,
            policy,
            promotion: Promotion::Automatic,
        })
    }

    /// Begins a cut-over: a new epoch, written down before anyone is told.
    pub(super) fn begin(
        &mut self,
        direction: Direction,
        position: Position,
        reason: Option<String>,
        _now: Timestamp,
        fx: &mut Vec<CoordinatorEffect>,
    ) {
        let Some(deployment) = self.ledger.active() else {
            return;
        };
        let (participants, releases) = match direction {
            Direction::Forward => (
                deployment.order.plan.waves[position.wave].instances.clone(),
                deployment.order.releases.clone(),
            ),
            Direction::Back => {
                let services = deployment.order.releases.keys();
                let previous = |service| deployment.previous.get(service).cloned();
                let releases = services.map(|service| (service.clone(), previous(service)));
                (deployment.changed.clone(), releases.collect())
            }
        };
        let cut_over = CutOver {
            epoch: self.ledger.epoch.next(),
            deployment: deployment.order.deployment.clone(),
            direction,
            participants: participants.clone(),
            releases,
            policy: deployment.order.policy.clone(),
        };
        let epoch = cut_over.epoch;
        let within = cut_over.policy.prepare + cut_over.policy.drain + PREPARE_SLACK;
        self.trouble = None;
        self.phase = Phase::Preparing {
            epoch,
            waiting: participants,
        };
        let begin = Begin {
            position,
            cut_over,
            reason,
        };
        self.record(CoordinatorRecord::Begun(Box::new(begin)), fx);
        self.prompt_all(fx);
        Self::timer(CoordinatorTimer::PrepareDeadline(epoch), within, fx);
        Self::timer(CoordinatorTimer::Resend(epoch), self.resend_after(), fx);
    }

    /// A vote of the epoch under way, given to this term.
    pub(super) fn voted(
        &mut self,
        from: &InstanceId,
        report: Report,
        now: Timestamp,
        fx: &mut Vec<CoordinatorEffect>,
    ) {
        match (&mut self.phase, report) {
            (Phase::Preparing { waiting, .. }, Report::Prepared) => {
                waiting.remove(from);
                if waiting.is_empty() {
                    self.all_prepared(now, fx);
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
                self.abort(format!("instance `{from}`: {reason}"), fx);
            }
            (Phase::CheckingPeers { .. }, Report::PeersReady) => {
                self.peers_seen(from, BTreeMap::new(), now, fx);
            }
            (Phase::CheckingPeers { .. }, Report::PeersNotReady { unseen }) => {
                self.peers_seen(from, unseen, now, fx);
            }
            (Phase::BeforeSwitch { waiting, .. }, Report::BeforeSwitchDone { .. }) => {
                if waiting.contains(from) {
                    self.begin_arming(now, fx);
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
                    self.all_armed(round_trip, now, fx);
                }
            }
            (Phase::Holding { waiting, since, .. }, Report::Held(_)) => {
                waiting.remove(from);
                if waiting.is_empty() {
                    let since = *since;
                    self.all_held(now.since(since), fx);
                }
            }
            // An answer to an earlier directive of the same epoch, repeated by the network.
            (_, _) => {}
        }
    }

    fn all_prepared(&mut self, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        if !self.check_peers(fx) {
            self.all_ready(now, fx);
        }
    }

    /// All are ready, for themselves and for each other.
    pub(super) fn all_ready(&mut self, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        let Some((begin, _)) = self.ledger.latest() else {
            return;
        };
        let epoch = begin.cut_over.epoch;
        let manual = begin.cut_over.direction == Direction::Forward
            && begin.position == Position::default()
            && self
                .ledger
                .active()
                .is_some_and(|d| d.order.promotion == Promotion::Manual);
        if manual && !self.is_promoted {
            self.phase = Phase::Ready { epoch };
        } else {
            self.before_switch(now, fx);
        }
    }

    /// Someone wants the deployment to go on by itself who found it waiting, or about to wait.
    fn promote_when_ready(&mut self, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        self.is_promoted = true;
        if matches!(self.phase, Phase::Ready { .. }) {
            self.before_switch(now, fx);
        }
    }

    pub(super) fn promote(
        &mut self,
        now: Timestamp,
        fx: &mut Vec<CoordinatorEffect>,
    ) -> Result<Accepted, Refusal> {
        let Some(active) = self.ledger.active() else {
            return Err(Refusal::NothingUnderWay);
        };
        let deployment = active.order.deployment.clone();
        if !matches!(self.phase, Phase::Ready { .. }) {
            return Err(Refusal::NotReady(self.phase.to_string()));
        }
        self.before_switch(now, fx);
        Ok(Accepted::Done(deployment))
    }

    /// Has one instance run the command that comes before the switch, once in a deployment: before
    /// its first step forward. A coordinator that restarts meanwhile aborts, and never asks again.
    fn before_switch(&mut self, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        let Some((begin, _)) = self.ledger.latest() else {
            return;
        };
        let cut_over = &begin.cut_over;
        let first = begin.position == Position::default();
        let within = match cut_over.direction {
            Direction::Forward if first => cut_over.policy.before_switch,
            Direction::Forward | Direction::Back => None,
        };
        let (Some(within), Some(elected)) = (within, cut_over.participants.first()) else {
            self.begin_arming(now, fx);
            return;
        };
        let epoch = cut_over.epoch;
        self.phase = Phase::BeforeSwitch {
            epoch,
            waiting: [elected.clone()].into(),
        };
        self.prompt_all(fx);
        let within = within + PREPARE_SLACK;
        Self::timer(CoordinatorTimer::BeforeSwitchDeadline(epoch), within, fx);
        Self::timer(CoordinatorTimer::Resend(epoch), self.resend_after(), fx);
    }

    fn begin_arming(&mut self, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        let Some((begin, _)) = self.ledger.latest() else {
            return;
        };
        let epoch = begin.cut_over.epoch;
        self.phase = Phase::Arming {
            epoch,
            waiting: begin.cut_over.participants.clone(),
            since: now,
            round_trip: Duration::ZERO,
        };
        self.prompt_all(fx);
        Self::timer(CoordinatorTimer::ArmDeadline(epoch), ARM_DEADLINE, fx);
        Self::timer(CoordinatorTimer::Resend(epoch), self.resend_after(), fx);
    }

    /// Arming was a rehearsal: if the hold would not fit the budget, refuse before touching
    /// traffic. A hold is one round trip, one disk write, and the way to the last gate.
    fn all_armed(&mut self, round_trip: Duration, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        let Some((begin, _)) = self.ledger.latest() else {
            return;
        };
        let cut_over = &begin.cut_over;
        let (epoch, budget) = (cut_over.epoch, cut_over.policy.hold_budget);
        let predicted = round_trip + self.sync + round_trip / 2;
        if predicted > budget {
            let reason = format!(
                "the hold would take about {} ms, more than the hold budget of {} ms",
                predicted.as_millis(),
                budget.as_millis()
            );
            self.abort(reason, fx);
            return;
        }
        self.phase = Phase::Holding {
            epoch,
            waiting: cut_over.participants.clone(),
            since: now,
        };
        self.prompt_all(fx);
        Self::timer(CoordinatorTimer::HoldBudget(epoch), budget, fx);
        Self::timer(CoordinatorTimer::Resend(epoch), self.resend_after(), fx);
    }

    /// Everyone holds: decide. Past the budget the timer may merely be late, so look again.
    fn all_held(&mut self, held_for: Duration, fx: &mut Vec<CoordinatorEffect>) {
        let Some((begin, _)) = self.ledger.latest() else {
            return;
        };
        let cut_over = &begin.cut_over;
        if held_for > cut_over.policy.hold_budget {
            self.abort("the hold took longer than the hold budget".to_owned(), fx);
            return;
        }
        let epoch = cut_over.epoch;
        let waiting = cut_over.participants.clone();
        self.phase = Phase::Switching { epoch, waiting };
        if broken!(self, SwitchBeforeCommit) {
            self.prompt_all(fx);
        }
        self.record(CoordinatorRecord::Committed(epoch), fx);
        self.prompt_all(fx);
        Self::timer(CoordinatorTimer::Resend(epoch), self.resend_after(), fx);
    }
}
