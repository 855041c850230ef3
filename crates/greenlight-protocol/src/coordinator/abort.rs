//! What undoes a cut-over: an abort before the commit, a rollback after it.

use super::in_progress::CutOverInProgress;
use super::{
    Accepted, Coordinator, CoordinatorRecord, CoordinatorTimer, Decision, Next, Outcome, Phase,
    Refusal,
};
use crate::cut_over::Direction;
use crate::id::{Epoch, InstanceId};
use crate::message::{Directive, InstanceStatus, ParticipationView};
use crate::strategy::Position;
use std::time::Duration;

/// How long an abort waits for an instance that does not answer. The decision is durable; the
/// instance gets it when it comes back.
const ABORT_DEADLINE: Duration = Duration::from_secs(10);
/// The wait before a failed rollback is tried again.
const RETRY_ROLLBACK_AFTER: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Decides that the epoch in progress never happens. Only before its commit.
    pub(super) fn abort(
        &mut self,
        cut_over: CutOverInProgress,
        reason: String,
    ) -> CutOverInProgress {
        let epoch = cut_over.epoch();
        let waiting = cut_over.participants().clone();
        self.record(CoordinatorRecord::Aborted { epoch, reason });
        let deadline = Some((CoordinatorTimer::AbortDeadline(epoch), ABORT_DEADLINE));
        self.enter(cut_over, Phase::Aborting, waiting, deadline)
    }

    /// Aborts and names the instances that did not answer.
    pub(super) fn abort_waiting(
        &mut self,
        cut_over: CutOverInProgress,
        what: &str,
    ) -> CutOverInProgress {
        let names = cut_over.waiting.iter();
        let names: Vec<_> = names.map(|instance| format!("`{instance}`")).collect();
        let noun = if names.len() == 1 {
            "instance"
        } else {
            "instances"
        };
        let reason = format!("{noun} {} {what}", names.join(", "));
        self.abort(cut_over, reason)
    }

    /// Command `Abort`.
    pub(super) fn abort_on_request(&mut self, requested_by: &str) -> Result<Accepted, Refusal> {
        let Some(active) = self.ledger.active() else {
            return Err(Refusal::NothingUnderWay);
        };
        let deployment = active.request.deployment.clone();
        let reason = format!("aborted by {requested_by}");
        self.step(|coordinator, mut cut_over| match cut_over.phase {
            // It is being rolled back already, and that is not stopped.
            _ if cut_over.is_rollback() => Some(cut_over),
            Phase::Preparing
            | Phase::CheckingPeers { .. }
            | Phase::Ready
            | Phase::BeforeSwitch
            | Phase::Arming { .. }
            | Phase::Holding { .. } => Some(coordinator.abort(cut_over, reason)),
            Phase::Switching => {
                cut_over.rollback_reason = Some(reason);
                Some(cut_over)
            }
            Phase::Watching | Phase::Confirming => coordinator.roll_back(reason),
            Phase::Idle | Phase::Aborting | Phase::RetryingRollback | Phase::Retiring => {
                Some(cut_over)
            }
        });
        Ok(Accepted::Done(deployment))
    }

    /// An instance has aborted the epoch.
    pub(super) fn abort_confirmed(
        &mut self,
        mut cut_over: CutOverInProgress,
        from: &InstanceId,
    ) -> Next {
        if cut_over.phase == Phase::Aborting {
            return match cut_over.answered(from) {
                true => self.abort_complete(cut_over),
                false => Some(cut_over),
            };
        }
        // An agent aborted the epoch on its own, because a peer asked: it can never commit.
        if cut_over.phase.is_before_decision() {
            let reason = format!("instance `{from}` has aborted the cut-over");
            return Some(self.abort(cut_over, reason));
        }
        Some(cut_over)
    }

    /// All participants have confirmed the abort, or had their time: roll back what earlier waves
    /// changed, or end.
    pub(super) fn abort_complete(&mut self, mut cut_over: CutOverInProgress) -> Next {
        let deployment = self.ledger.active()?;
        let reason = deployment.reason.clone().unwrap_or_default();
        let attempts = deployment.request.policy.rollback_attempts;
        match cut_over.started.cut_over.direction {
            Direction::Forward if deployment.changed.is_empty() => {
                self.finish(Outcome::Aborted { reason })
            }
            Direction::Forward => self.roll_back(reason),
            Direction::Back if deployment.rollback_attempts < attempts => {
                let timer = CoordinatorTimer::RetryRollback(cut_over.epoch());
                self.set_timer(timer, RETRY_ROLLBACK_AFTER);
                cut_over.rollback_reason = Some(reason);
                Some(cut_over.unattended(Phase::RetryingRollback))
            }
            Direction::Back => self.finish(Outcome::Stuck { reason }),
        }
    }

    /// Starts a cut-over to what was live before, for every instance that has changed. A service
    /// that is new with the deployment is removed again.
    pub(super) fn roll_back(&mut self, reason: String) -> Next {
        self.start_cut_over(Direction::Back, Position::default(), Some(reason))
    }

    /// A link went down. Before the hold that is only a delay; in it, it is a no.
    pub(super) fn lost(&mut self, instance: &InstanceId) {
        self.connected.remove(instance);
        self.step(|coordinator, cut_over| {
            let is_barrier = matches!(cut_over.phase, Phase::Arming { .. } | Phase::Holding { .. });
            if !is_barrier || !cut_over.participants().contains(instance) {
                return Some(cut_over);
            }
            let reason = format!("instance `{instance}` was lost during the barrier");
            Some(coordinator.abort(cut_over, reason))
        });
    }

    /// An instance reports its status: send it the decision that it may have missed.
    pub(super) fn status(&mut self, from: &InstanceId, status: InstanceStatus) {
        let participation = status.participation;
        self.connected.insert(from.clone(), status);
        match participation {
            ParticipationView::Preparing(epoch)
            | ParticipationView::Prepared(epoch)
            | ParticipationView::Armed(epoch) => {
                if self.epoch() != Some(epoch) {
                    self.resolve_in_doubt(from, epoch);
                }
            }
            ParticipationView::Idle => {}
        }
    }

    /// An agent that waits for a decision gets it, if there is one.
    pub(super) fn resolve_in_doubt(&mut self, from: &InstanceId, epoch: Epoch) {
        let directive = match self.ledger.decided.get(&epoch) {
            Some(Decision::Committed | Decision::Completed) => Directive::Switch,
            Some(Decision::Aborted) | None => Directive::Abort,
            Some(Decision::Open) => return,
        };
        self.send(from, epoch, directive);
    }
}
