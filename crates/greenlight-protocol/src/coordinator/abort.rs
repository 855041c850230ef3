//! What undoes a cut-over: an abort before the commit, a rollback after it.

use super::{
    Accepted, Coordinator, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer, Outcome, Phase,
    Refusal,
};
use crate::cut_over::Direction;
use crate::id::{Epoch, InstanceId};
use crate::message::{InstanceStatus, ParticipationView};
use crate::plan::Position;
use crate::time::Timestamp;
use std::time::Duration;

/// How long an abort waits for an instance that does not answer. The decision is durable; the
/// instance gets it when it comes back.
const ABORT_DEADLINE: Duration = Duration::from_secs(10);
/// The wait before a failed rollback is tried again.
const RETRY_ROLLBACK_AFTER: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Decides that the epoch under way never happens. Only before its commit.
    pub(super) fn abort(&mut self, reason: String, effects: &mut Vec<CoordinatorEffect>) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let epoch = started.cut_over.epoch;
        self.phase = Phase::Aborting {
            epoch,
            waiting: started.cut_over.participants.clone(),
        };
        self.record(CoordinatorRecord::Aborted { epoch, reason }, effects);
        self.prompt_all(effects);
        Self::timer(
            CoordinatorTimer::AbortDeadline(epoch),
            ABORT_DEADLINE,
            effects,
        );
        Self::timer(
            CoordinatorTimer::Resend(epoch),
            self.resend_after(),
            effects,
        );
    }

    /// Aborts and names those who were waited for.
    pub(super) fn abort_waiting(&mut self, what: &str, effects: &mut Vec<CoordinatorEffect>) {
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
        self.abort(format!("{noun} {} {what}", names.join(", ")), effects);
    }

    pub(super) fn prepare_overdue(&mut self, effects: &mut Vec<CoordinatorEffect>) {
        if matches!(self.phase, Phase::Preparing { .. }) {
            self.abort_waiting("was not ready in time", effects);
        }
    }

    pub(super) fn abort_on_request(
        &mut self,
        requested_by: &str,
        effects: &mut Vec<CoordinatorEffect>,
    ) -> Result<Accepted, Refusal> {
        let Some(active) = self.ledger.active() else {
            return Err(Refusal::NothingUnderWay);
        };
        let deployment = active.request.deployment.clone();
        let reason = format!("aborted by {requested_by}");
        let is_rollback = self
            .ledger
            .latest()
            .is_some_and(|(started, _)| started.cut_over.direction == Direction::Back);
        match &self.phase {
            // It is being rolled back already, and that is not stopped.
            _ if is_rollback => {}
            Phase::Preparing { .. }
            | Phase::CheckingPeers { .. }
            | Phase::Ready { .. }
            | Phase::BeforeSwitch { .. }
            | Phase::Arming { .. }
            | Phase::Holding { .. } => self.abort(reason, effects),
            Phase::Switching { .. } => self.rollback_reason = Some(reason),
            Phase::Watching { .. } | Phase::Confirming { .. } => {
                self.rollback_reason = Some(reason);
                self.roll_back(Timestamp::default(), effects);
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
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        match &mut self.phase {
            Phase::Aborting {
                epoch: here,
                waiting,
            } if *here == epoch => {
                waiting.remove(from);
                if waiting.is_empty() {
                    self.abort_complete(now, effects);
                }
            }
            // An agent aborted the epoch by itself, on a peer's question: it can never commit.
            Phase::Preparing { epoch: here, .. }
            | Phase::CheckingPeers { epoch: here, .. }
            | Phase::Ready { epoch: here }
            | Phase::BeforeSwitch { epoch: here, .. }
            | Phase::Arming { epoch: here, .. }
            | Phase::Holding { epoch: here, .. }
                if *here == epoch =>
            {
                self.abort(
                    format!("instance `{from}` has aborted the cut-over"),
                    effects,
                );
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

    /// All participants have confirmed the abort: roll back what earlier waves changed, or end.
    pub(super) fn abort_complete(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        let Some((started, _)) = self.ledger.latest() else {
            return;
        };
        let (epoch, direction) = (started.cut_over.epoch, started.cut_over.direction);
        let Some(deployment) = self.ledger.active() else {
            return;
        };
        let reason = deployment.reason.clone().unwrap_or_default();
        match direction {
            Direction::Forward if deployment.changed.is_empty() => {
                self.finish(Outcome::Aborted { reason }, effects);
            }
            Direction::Forward => {
                self.rollback_reason = Some(reason);
                self.roll_back(now, effects);
            }
            Direction::Back
                if deployment.rollback_attempts < deployment.request.policy.rollback_attempts =>
            {
                self.rollback_reason = Some(reason);
                self.phase = Phase::Watching { epoch };
                Self::timer(
                    CoordinatorTimer::RetryRollback(epoch),
                    RETRY_ROLLBACK_AFTER,
                    effects,
                );
            }
            Direction::Back => self.finish(Outcome::Stuck { reason }, effects),
        }
    }

    /// Starts a cut-over to what was live before, for everyone who has changed. A service that is new
    /// with the deployment is removed again.
    pub(super) fn roll_back(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        let reason = self.rollback_reason.take().unwrap_or_default();
        let at = Position::default();
        self.start_cut_over(Direction::Back, at, Some(reason), now, effects);
    }

    /// A link went down. Before the hold that is only a delay; in it, it is a no.
    pub(super) fn lost(&mut self, instance: &InstanceId, effects: &mut Vec<CoordinatorEffect>) {
        self.connected.remove(instance);
        let takes_part = self
            .ledger
            .latest()
            .is_some_and(|(started, _)| started.cut_over.participants.contains(instance));
        let before_commit = matches!(self.phase, Phase::Arming { .. } | Phase::Holding { .. });
        if takes_part && before_commit {
            self.abort(
                format!("instance `{instance}` was lost during the barrier"),
                effects,
            );
        }
    }

    /// An instance says how it stands: give it the decision it may have missed.
    pub(super) fn status(
        &mut self,
        from: &InstanceId,
        status: InstanceStatus,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let participation = status.participation;
        self.connected.insert(from.clone(), status);
        match participation {
            ParticipationView::Preparing(epoch)
            | ParticipationView::Prepared(epoch)
            | ParticipationView::Armed(epoch) => {
                if self.phase.epoch() != Some(epoch) {
                    self.resolve_in_doubt(from, epoch, effects);
                }
            }
            ParticipationView::Idle => {}
        }
    }
}
