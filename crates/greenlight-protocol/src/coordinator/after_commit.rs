//! After the commit: every gate opens, the new release is watched, the old one is retired.

use super::{
    Coordinator, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer, Decision, Outcome, Phase,
};
use crate::cut_over::Direction;
use crate::id::{Epoch, InstanceId};
use crate::message::{Directive, Healthy};
use crate::time::Timestamp;
use std::time::Duration;

/// How long a deployment waits for an instance that is away when the watch is over.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);

impl Coordinator {
    pub(super) fn switched(
        &mut self,
        from: &InstanceId,
        epoch: Epoch,
        rollback_reason: Option<String>,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let Phase::Switching {
            epoch: here,
            waiting,
        } = &mut self.phase
        else {
            if let Some(reason) = rollback_reason {
                self.unhealthy(epoch, reason, now, effects);
            }
            return;
        };
        if *here != epoch {
            return;
        }
        waiting.remove(from);
        let complete = waiting.is_empty();
        if rollback_reason.is_some() {
            self.rollback_reason = rollback_reason;
        }
        if complete {
            self.all_switched(epoch, now, effects);
        }
    }

    fn all_switched(&mut self, epoch: Epoch, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        self.record(CoordinatorRecord::Completed(epoch), effects);
        self.watch(epoch, now, effects);
    }

    /// Observes what was cut over to; a rollback is not watched but cleaned up after.
    pub(super) fn watch(
        &mut self,
        epoch: Epoch,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let policy = started.cut_over.policy.clone();
        match started.cut_over.direction {
            Direction::Back if self.ledger.warm.is_none() => {
                // A restart between the last `Retired` and the end of the deployment.
                self.finish_rollback(effects);
            }
            Direction::Back => {
                self.phase = Phase::Retiring { epoch };
                self.begin_retire(epoch, effects);
            }
            Direction::Forward => {
                self.phase = Phase::Watching { epoch };
                if let Some(reason) = self.rollback_reason.take() {
                    self.unhealthy(epoch, reason, now, effects);
                } else {
                    Self::timer(CoordinatorTimer::WatchOver(epoch), policy.watch, effects);
                }
            }
        }
    }

    /// A live application died or fails its check: while it is watched, the fleet is rolled back.
    pub(super) fn unhealthy(
        &mut self,
        epoch: Epoch,
        reason: String,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        if self.phase.epoch() != Some(epoch) {
            return;
        }
        match &self.phase {
            Phase::Watching { .. } | Phase::Confirming { .. } => {
                self.rollback_reason = Some(reason);
                self.roll_back(now, effects);
            }
            Phase::Switching { .. } => self.rollback_reason = Some(reason),
            Phase::Idle
            | Phase::Preparing { .. }
            | Phase::CheckingPeers { .. }
            | Phase::Ready { .. }
            | Phase::BeforeSwitch { .. }
            | Phase::Arming { .. }
            | Phase::Holding { .. }
            | Phase::Aborting { .. }
            | Phase::Retiring { .. } => {}
        }
    }

    /// The time of the watch is over, or that for the last confirmations.
    pub(super) fn watch_over(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        match &self.phase {
            Phase::Watching { epoch } => {
                let epoch = *epoch;
                let waiting = started.cut_over.participants.clone();
                self.phase = Phase::Confirming { epoch, waiting };
                self.prompt_all(effects);
                Self::timer(CoordinatorTimer::WatchOver(epoch), CONFIRM_WITHIN, effects);
                Self::timer(CoordinatorTimer::Resend(epoch), super::RESEND_SLOW, effects);
            }
            // Whoever is still away cannot stop the others: the decision stands.
            Phase::Confirming { .. } => self.proceed(now, effects),
            Phase::Idle
            | Phase::Preparing { .. }
            | Phase::BeforeSwitch { .. }
            | Phase::CheckingPeers { .. }
            | Phase::Ready { .. }
            | Phase::Arming { .. }
            | Phase::Holding { .. }
            | Phase::Switching { .. }
            | Phase::Aborting { .. }
            | Phase::Retiring { .. } => {}
        }
    }

    /// An instance has said how it stands: whether that is well, if it was asked.
    pub(super) fn confirmed(
        &mut self,
        from: &InstanceId,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let Some(status) = self.connected.get(from) else {
            return;
        };
        let is_well = started.cut_over.releases.iter().all(|(service, release)| {
            match (status.live.get(service), release) {
                (Some(live), Some(release)) => {
                    live.digest == release.digest && live.healthy == Healthy::Yes
                }
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
        });
        let Phase::Confirming { waiting, .. } = &mut self.phase else {
            return;
        };
        if is_well && waiting.remove(from) && waiting.is_empty() {
            self.proceed(now, effects);
        }
    }

    /// What was cut over to is good: the next wave, or the end.
    fn proceed(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let next = self
            .ledger
            .active()
            .and_then(|d| d.request.plan.after(started.position));
        if let Some(position) = next {
            self.start_cut_over(Direction::Forward, position, None, now, effects);
            return;
        }
        self.finish(Outcome::Promoted, effects);
    }

    /// Ends the deployment. What is left warm, be it by this one or by one before it, has its
    /// time from now on: nothing is retired while a deployment is under way.
    pub(super) fn finish(&mut self, outcome: Outcome, effects: &mut Vec<CoordinatorEffect>) {
        let Some(active) = self.ledger.active() else {
            return;
        };
        let deployment = active.request.deployment.clone();
        self.phase = Phase::Idle;
        self.rollback_reason = None;
        self.record(
            CoordinatorRecord::Finished {
                deployment,
                outcome,
            },
            effects,
        );
        self.keep_warm(effects);
    }

    /// Sets the time at which the releases that are left warm are retired, if there are any.
    pub(super) fn keep_warm(&self, effects: &mut Vec<CoordinatorEffect>) {
        if let Some(warm) = &self.ledger.warm {
            let timer = CoordinatorTimer::WarmOver(warm.epoch);
            Self::timer(timer, warm.policy.keep_warm, effects);
        }
    }

    /// Asks everyone to drain and stop what is not live since this epoch.
    pub(super) fn begin_retire(&mut self, epoch: Epoch, effects: &mut Vec<CoordinatorEffect>) {
        let Some(warm) = &self.ledger.warm else {
            return;
        };
        let busy = self.ledger.active().is_some() && !matches!(self.phase, Phase::Retiring { .. });
        if warm.epoch != epoch || busy {
            return;
        }
        let waiting = warm.instances.clone();
        for instance in &waiting {
            self.send(instance, epoch, Directive::Retire, effects);
        }
        self.retiring = Some((epoch, waiting));
        Self::timer(CoordinatorTimer::Resend(epoch), super::RESEND_SLOW, effects);
    }

    pub(super) fn retired(
        &mut self,
        from: &InstanceId,
        epoch: Epoch,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let Some((retiring, waiting)) = &mut self.retiring else {
            return;
        };
        if *retiring != epoch {
            return;
        }
        waiting.remove(from);
        if !waiting.is_empty() {
            return;
        }
        self.retiring = None;
        self.record(CoordinatorRecord::Retired(epoch), effects);
        if matches!(self.phase, Phase::Retiring { .. }) {
            self.finish_rollback(effects);
        }
    }

    fn finish_rollback(&mut self, effects: &mut Vec<CoordinatorEffect>) {
        let reason = self
            .ledger
            .active()
            .and_then(|d| d.reason.clone())
            .unwrap_or_default();
        self.finish(Outcome::RolledBack { reason }, effects);
    }

    /// An agent that waits for a decision gets it, if there is one.
    pub(super) fn resolve_in_doubt(
        &mut self,
        from: &InstanceId,
        epoch: Epoch,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let directive = match self.ledger.decided.get(&epoch) {
            Some(Decision::Committed | Decision::Completed) => Directive::Switch,
            Some(Decision::Aborted) | None => Directive::Abort,
            Some(Decision::Open) => return,
        };
        self.send(from, epoch, directive, effects);
    }
}
