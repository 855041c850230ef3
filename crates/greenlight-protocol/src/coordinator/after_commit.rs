//! After the commit: every gate opens, the new release is watched, the old one is retired.

use super::in_progress::CutOverInProgress;
use super::{Coordinator, CoordinatorRecord, CoordinatorTimer, Next, Outcome, Phase};
use crate::cut_over::Direction;
use crate::id::{Epoch, InstanceId};
use crate::message::{Directive, Healthy};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a deployment waits for an instance that is away when the watch is over.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

impl Coordinator {
    /// An instance has switched, or could not serve what it has switched to.
    pub(super) fn switched(
        &mut self,
        mut cut_over: CutOverInProgress,
        from: &InstanceId,
        problem: Option<String>,
    ) -> Next {
        if cut_over.phase != Phase::Switching {
            return match problem {
                Some(reason) => self.unhealthy(cut_over, reason),
                None => Some(cut_over),
            };
        }
        if problem.is_some() {
            cut_over.rollback_reason = problem;
        }
        if !cut_over.answered(from) {
            return Some(cut_over);
        }
        self.record(CoordinatorRecord::Completed(cut_over.epoch()));
        self.watch(cut_over)
    }

    /// Observes what was cut over to; a rollback is not watched but cleaned up after.
    pub(super) fn watch(&mut self, mut cut_over: CutOverInProgress) -> Next {
        let epoch = cut_over.epoch();
        match cut_over.started.cut_over.direction {
            // A restart between the last `Retired` and the end of the deployment.
            Direction::Back if self.ledger.warm.is_none() => self.finish_rollback(),
            Direction::Back => {
                self.retire(epoch);
                Some(cut_over.unattended(Phase::Retiring))
            }
            Direction::Forward => {
                if let Some(reason) = cut_over.rollback_reason.take() {
                    return self.roll_back(reason);
                }
                let watch = cut_over.started.cut_over.policy.watch;
                self.set_timer(CoordinatorTimer::WatchOver(epoch), watch);
                Some(cut_over.unattended(Phase::Watching))
            }
        }
    }

    /// A live application died or fails its check: while it is watched, the fleet is rolled back.
    pub(super) fn unhealthy(&mut self, mut cut_over: CutOverInProgress, reason: String) -> Next {
        match cut_over.phase {
            Phase::Watching | Phase::Confirming => self.roll_back(reason),
            Phase::Switching => {
                cut_over.rollback_reason = Some(reason);
                Some(cut_over)
            }
            Phase::Idle
            | Phase::Preparing
            | Phase::CheckingPeers { .. }
            | Phase::Ready
            | Phase::BeforeSwitch
            | Phase::Arming { .. }
            | Phase::Holding { .. }
            | Phase::Aborting
            | Phase::RetryingRollback
            | Phase::Retiring => Some(cut_over),
        }
    }

    /// The time of the watch is over: everyone says once more how it stands.
    pub(super) fn confirm(&mut self, cut_over: CutOverInProgress) -> CutOverInProgress {
        let waiting = cut_over.participants().clone();
        let timer = CoordinatorTimer::WatchOver(cut_over.epoch());
        let deadline = Some((timer, CONFIRM_TIMEOUT));
        self.enter(cut_over, Phase::Confirming, waiting, deadline)
    }

    /// An instance has reported its status: whether it is healthy, if it was asked.
    pub(super) fn confirmed(&mut self, mut cut_over: CutOverInProgress, from: &InstanceId) -> Next {
        if cut_over.phase != Phase::Confirming {
            return Some(cut_over);
        }
        let live = self.connected.get(from).map(|status| &status.live);
        let mut releases = cut_over.started.cut_over.releases.iter();
        let is_well = releases.all(|(service, release)| {
            match (live.and_then(|live| live.get(service)), release) {
                (Some(live), Some(release)) => {
                    live.digest == release.digest && live.healthy == Healthy::Yes
                }
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
        });
        if live.is_some() && is_well && cut_over.waiting.remove(from) && cut_over.waiting.is_empty()
        {
            return self.proceed(&cut_over);
        }
        Some(cut_over)
    }

    /// The new releases are healthy: the next wave, or the end.
    pub(super) fn proceed(&mut self, cut_over: &CutOverInProgress) -> Next {
        let plan = &self.ledger.active()?.request.plan;
        match plan.after(cut_over.started.position) {
            Some(position) => self.start_cut_over(Direction::Forward, position, None),
            None => self.finish(Outcome::Promoted),
        }
    }

    /// Ends the deployment. What is left warm, be it by this one or by one before it, has its
    /// time from now on: nothing is retired while a deployment is under way.
    pub(super) fn finish(&mut self, outcome: Outcome) -> Next {
        let active = self.ledger.active()?;
        let deployment = active.request.deployment.clone();
        self.record(CoordinatorRecord::Finished {
            deployment,
            outcome,
        });
        self.keep_warm();
        None
    }

    fn finish_rollback(&mut self) -> Next {
        let reason = self.ledger.active()?.reason.clone().unwrap_or_default();
        self.finish(Outcome::RolledBack { reason })
    }

    /// Sets the time at which the releases that are left warm are retired, if there are any.
    pub(super) fn keep_warm(&mut self) {
        if let Some(warm) = &self.ledger.warm {
            let timer = CoordinatorTimer::WarmOver(warm.epoch);
            let after = warm.policy.keep_warm;
            self.set_timer(timer, after);
        }
    }

    /// The time of the warm releases is over. Nothing is retired while a deployment is under way.
    pub(super) fn warm_over(&mut self, epoch: Epoch) {
        let is_retiring = |c: &CutOverInProgress| c.phase == Phase::Retiring;
        let is_free = self.ledger.active().is_none();
        if is_free || self.in_progress.as_ref().is_some_and(is_retiring) {
            self.retire(epoch);
        }
    }

    /// Asks everyone to drain and stop what is not live since this epoch.
    fn retire(&mut self, epoch: Epoch) {
        let warm = self.ledger.warm.as_ref();
        let Some(warm) = warm.filter(|warm| warm.epoch == epoch) else {
            return;
        };
        let waiting: BTreeSet<_> = warm.instances.clone();
        for instance in &waiting {
            self.send(instance, epoch, Directive::Retire);
        }
        self.retiring = Some((epoch, waiting));
        self.set_timer(CoordinatorTimer::Resend(epoch), super::RESEND_SLOW);
    }

    /// An instance has stopped what is not live since this epoch.
    pub(super) fn retired(&mut self, from: &InstanceId, epoch: Epoch) {
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
        self.record(CoordinatorRecord::Retired(epoch));
        self.step(|coordinator, cut_over| match cut_over.phase {
            Phase::Retiring => coordinator.finish_rollback(),
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
            | Phase::RetryingRollback => Some(cut_over),
        });
    }
}
