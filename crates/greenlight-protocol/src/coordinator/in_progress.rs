//! The cut-over in progress: what all phases have in common, and the phase.
//!
//! There is one as long as a deployment is under way, from its first cut-over on. Handlers take it
//! by value and return what it has become, so none of them has to ask whether there is one.

use super::ledger::CutOverStarted;
use super::phase::Phase;
use crate::cut_over::Direction;
use crate::id::{Epoch, InstanceId};
use crate::strategy::Position;
use std::collections::BTreeSet;

/// A cut-over that has started and whose deployment is not over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CutOverInProgress {
    pub(super) started: CutOverStarted,
    /// Who has yet to answer the phase's directive.
    pub(super) waiting: BTreeSet<InstanceId>,
    /// Why the fleet must be rolled back once the switch is complete, or the rollback is retried.
    pub(super) rollback_reason: Option<String>,
    pub(super) phase: Phase,
}

impl CutOverInProgress {
    /// One that was started; nobody has been asked for anything yet.
    pub(super) fn new(started: CutOverStarted) -> Self {
        Self {
            started,
            waiting: BTreeSet::new(),
            rollback_reason: None,
            phase: Phase::Preparing,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.started.cut_over.epoch
    }

    pub(super) fn participants(&self) -> &BTreeSet<InstanceId> {
        &self.started.cut_over.participants
    }

    pub(super) fn is_rollback(&self) -> bool {
        self.started.cut_over.direction == Direction::Back
    }

    /// Whether it is the first step of a deployment, on its way to the new releases.
    pub(super) fn is_first_step(&self) -> bool {
        !self.is_rollback() && self.started.position == Position::default()
    }

    /// In a phase in which nobody is asked for anything.
    pub(super) fn unattended(self, phase: Phase) -> Self {
        Self {
            waiting: BTreeSet::new(),
            phase,
            ..self
        }
    }

    /// Notes that an instance has answered; says whether all have.
    pub(super) fn answered(&mut self, from: &InstanceId) -> bool {
        self.waiting.remove(from);
        self.waiting.is_empty()
    }
}
