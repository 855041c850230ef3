//! The ways back: abort before the commit, a cut-over in the other direction after it.

use super::{
    Accepted, Coordinator, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer, Outcome, Phase,
    Refusal,
};
use crate::cut_over::Direction;
use crate::id::{Epoch, InstanceId};
use crate::message::{InstanceStatus, StageView};
use crate::plan::Position;
use crate::time::Timestamp;
use std::time::Duration;

/// How long an abort waits for an instance that does not answer. The decision is durable; the
/// instance gets it when it comes back.
const ABORT_DEADLINE: Duration = Duration::from_secs(10);
/// The wait before a failed way back is tried again.
const RETRY_BACK: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Decides that the epoch under way never happens. Only before its commit.
    pub(super) fn abort(&mut self, reason: String, fx: &mut Vec<CoordinatorEffect>) {
        let Some((begin, _)) = self.ledger.latest() else {
            return;
        };
        let epoch = begin.cut_over.epoch;
        self.phase = Phase::Aborting {
            epoch,
            waiting: begin.cut_over.participants.clone(),
        };
        self.record(CoordinatorRecord::Aborted { epoch, reason }, fx);
        self.prompt_all(fx);
        Self::timer(CoordinatorTimer::AbortDeadline(epoch), ABORT_DEADLINE, fx);
        Self::timer(CoordinatorTimer::Resend(epoch), self.resend_after(), fx);
    }

    /// Aborts and names those who were waited for.
    pub(super) fn abort_waiting(&mut self, what: &str, fx: &mut Vec<CoordinatorEffect>) {
        let names: Vec<_> = self
            .phase
            .waiting_for()
            .iter()
            .map(|instance| format!("`{instance}`"))
            .collect();
        let noun = if names.len() == 1 {
            "instance"
        } else {
            "instances"
        };
        self.abort(format!("{noun} {} {what}", names.join(", ")), fx);
    }

    pub(super) fn prepare_overdue(&mut self, fx: &mut Vec<CoordinatorEffect>) {
        if matches!(self.phase, Phase::Preparing { .. }) {
            self.abort_waiting("was not ready in time", fx);
        }
    }

    pub(super) fn abort_by(
        &mut self,
        requested_by: &str,
        fx: &mut Vec<CoordinatorEffect>,
    ) -> Result<Accepted, Refusal> {
        let Some(active) = self.ledger.active() else {
            return Err(Refusal::NothingUnderWay);
        };
        let deployment = active.order.deployment.clone();
        let reason = format!("aborted by {requested_by}");
        let goes_back = self
            .ledger
            .latest()
            .is_some_and(|(begin, _)| begin.cut_over.direction == Direction::Back);
        match &self.phase {
            // It is on its way back already, and stopping that would be no way back.
            _ if goes_back => {}
            Phase::Preparing { .. }
            | Phase::CheckingPeers { .. }
            | Phase::Ready { .. }
            | Phase::BeforeSwitch { .. }
            | Phase::Arming { .. }
            | Phase::Holding { .. } => self.abort(reason, fx),
            Phase::Switching { .. } => self.trouble = Some(reason),
            Phase::Watching { .. } | Phase::Confirming { .. } => {
                self.trouble = Some(reason);
                self.go_back(Timestamp::default(), fx);
            }
            Phase::Idle | Phase::Aborting { .. } | Phase::Retiring { .. } => {}
        }
        Ok(Accepted::Done(deployment))
    }

    pub(super) fn abort_confirmed(
        &mut self,
        from: &InstanceId,
        epoch: Epoch,
        now: Timestamp,
        fx: &mut Vec<CoordinatorEffect>,
    ) {
        match &mut self.phase {
            Phase::Aborting {
                epoch: here,
                waiting,
            } if *here == epoch => {
                waiting.remove(from);
                if waiting.is_empty() {
                    self.abort_complete(now, fx);
                }
            }
            // An agent refused the epoch by itself, on a peer's question: it can never commit.
            Phase::Preparing { epoch: here, .. }
            | Phase::CheckingPeers { epoch: here, .. }
            | Phase::Ready { epoch: here }
            | Phase::BeforeSwitch { epoch: here, .. }
            | Phase::Arming { epoch: here, .. }
            | Phase::Holding { epoch: here, .. }
                if *here == epoch =>
            {
                self.abort(format!("instance `{from}` has refused the cut-over"), fx);
            }
            Phase::Idle
            | Phase::Preparing { .. }
            | Phase::CheckingPeers { .. }
            | Phase::Ready { .. }
            | Phase::BeforeSwitch { .. }
            | Phase::Arming { .. }
            | Phase::Holding { .. }
            | Phase::Switching { .. }
            | Phase::Watching { .. }
            | Phase::Confirming { .. }
            | Phase::Aborting { .. }
            | Phase::Retiring { .. } => {}
        }
    }

    /// Nobody is on the aborted epoch any more: take back what earlier waves changed, or end.
    pub(super) fn abort_complete(&mut self, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        let Some((begin, _)) = self.ledger.latest() else {
            return;
        };
        let (epoch, direction) = (begin.cut_over.epoch, begin.cut_over.direction);
        let Some(deployment) = self.ledger.active() else {
            return;
        };
        let reason = deployment.reason.clone().unwrap_or_default();
        match direction {
            Direction::Forward if deployment.changed.is_empty() => {
                self.finish(Outcome::Aborted { reason }, fx);
            }
            Direction::Forward => {
                self.trouble = Some(reason);
                self.go_back(now, fx);
            }
            Direction::Back
                if deployment.back_attempts < deployment.order.policy.rollback_attempts =>
            {
                self.trouble = Some(reason);
                self.phase = Phase::Watching { epoch };
                Self::timer(CoordinatorTimer::RetryBack(epoch), RETRY_BACK, fx);
            }
            Direction::Back => self.finish(Outcome::Stuck { reason }, fx),
        }
    }

    /// Begins a cut-over to what was live before, for everyone who has changed. A service that the
    /// deployment brought is removed again.
    pub(super) fn go_back(&mut self, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        let reason = self.trouble.take().unwrap_or_default();
        let at = Position::default();
        self.begin(Direction::Back, at, Some(reason), now, fx);
    }

    /// A link went down. Before the hold that is only a delay; in it, it is a no.
    pub(super) fn lost(&mut self, instance: &InstanceId, fx: &mut Vec<CoordinatorEffect>) {
        self.presence.remove(instance);
        let takes_part = self
            .ledger
            .latest()
            .is_some_and(|(begin, _)| begin.cut_over.participants.contains(instance));
        let before_commit = matches!(self.phase, Phase::Arming { .. } | Phase::Holding { .. });
        if takes_part && before_commit {
            self.abort(
                format!("instance `{instance}` was lost during the barrier"),
                fx,
            );
        }
    }

    /// An instance says how it stands: give it the decision it may have missed.
    pub(super) fn status(
        &mut self,
        from: &InstanceId,
        status: InstanceStatus,
        fx: &mut Vec<CoordinatorEffect>,
    ) {
        let stage = status.stage;
        self.presence.insert(from.clone(), status);
        match stage {
            StageView::Preparing(epoch) | StageView::Prepared(epoch) | StageView::Armed(epoch) => {
                if self.phase.epoch() != Some(epoch) {
                    self.resolve_doubt(from, epoch, fx);
                }
            }
            StageView::Settled => {}
        }
    }
}
