//! Coming back after a crash: what was decided is carried out, what was not is aborted.

use super::in_progress::CutOverInProgress;
use super::{Coordinator, CoordinatorEffect, CoordinatorRecord, Decision, Ledger, Next, Phase};
use crate::cut_over::Direction;
use crate::id::InstanceId;
use crate::mutant::{Mutant, broken};
use crate::strategy::Position;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Coordinator {
    /// The coordinator as its records describe it, in a new term, and what must be done first.
    #[must_use = "effects not carried out are lost"]
    pub fn recover(
        fleet: BTreeSet<InstanceId>,
        records: &[CoordinatorRecord],
        now: Timestamp,
    ) -> (Self, Vec<CoordinatorEffect>) {
        Self::recover_with(fleet, records, now, Mutant::None)
    }

    /// [`Coordinator::recover`] with a rule broken.
    #[must_use = "effects not carried out are lost"]
    pub fn recover_with(
        fleet: BTreeSet<InstanceId>,
        records: &[CoordinatorRecord],
        now: Timestamp,
        mutant: Mutant,
    ) -> (Self, Vec<CoordinatorEffect>) {
        let mut coordinator = Self {
            fleet,
            ledger: Ledger::replay(records),
            in_progress: None,
            is_promoted: false,
            retiring: None,
            connected: BTreeMap::new(),
            sync: Duration::ZERO,
            effects: Vec::new(),
            mutant,
        };
        let term = coordinator.ledger.term.next();
        coordinator.record(CoordinatorRecord::TermStarted(term));
        coordinator.in_progress = coordinator.resume(now);
        let effects = std::mem::take(&mut coordinator.effects);
        (coordinator, effects)
    }

    /// What the ledger says is to be done with the deployment under way.
    fn resume(&mut self, now: Timestamp) -> Next {
        let Some((started, decision)) = self.ledger.latest() else {
            return self.resume_idle();
        };
        let cut_over = CutOverInProgress::new(started.clone());
        let epoch = cut_over.epoch();
        match decision {
            Decision::Open if broken!(self, ResumeUndecided) => {
                let waiting = cut_over.participants().clone();
                Some(self.enter(cut_over, Phase::Holding { since: now }, waiting, None))
            }
            Decision::Open => {
                let reason = "the coordinator restarted before the commit".to_owned();
                Some(self.abort(cut_over, reason))
            }
            Decision::Committed => {
                // What was found may have been read from a cache that never reached the disk:
                // write it again before acting on it.
                self.record(CoordinatorRecord::Committed(epoch));
                Some(self.switch(cut_over))
            }
            Decision::Completed => self.watch(cut_over),
            Decision::Aborted => {
                let reason = self.ledger.active()?.reason.clone().unwrap_or_default();
                Some(self.abort(cut_over, reason))
            }
        }
    }

    fn resume_idle(&mut self) -> Next {
        // Accepted, and no cut-over started: start one.
        let next = self.start_cut_over(Direction::Forward, Position::default(), None);
        self.keep_warm();
        next
    }
}
