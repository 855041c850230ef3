//! Coming back after a crash: what was decided is carried out, what was not is aborted.

use super::{
    Coordinator, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer, Decision, Ledger, Phase,
};
use crate::cut_over::Direction;
use crate::id::InstanceId;
use crate::mutant::{Mutant, broken};
use crate::plan::Position;
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
            phase: Phase::Idle,
            rollback_reason: None,
            is_promoted: false,
            retiring: None,
            connected: BTreeMap::new(),
            sync: Duration::ZERO,
            mutant,
        };
        let mut effects = Vec::new();
        let term = coordinator.ledger.term.next();
        coordinator.record(CoordinatorRecord::TermStarted(term), &mut effects);
        coordinator.recover_cut_over(now, &mut effects);
        (coordinator, effects)
    }

    fn recover_cut_over(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        let Some((started, decision)) = self.ledger.latest() else {
            self.recover_idle(now, effects);
            return;
        };
        let cut_over = started.cut_over.clone();
        let epoch = cut_over.epoch;
        match decision {
            Decision::Open if broken!(self, ResumeUndecided) => {
                self.phase = Phase::Holding {
                    epoch,
                    waiting: cut_over.participants,
                    since: now,
                };
                self.prompt_all(effects);
                Self::timer(
                    CoordinatorTimer::Resend(epoch),
                    self.resend_after(),
                    effects,
                );
            }
            Decision::Open => self.abort(
                "the coordinator restarted before the commit".into(),
                effects,
            ),
            Decision::Committed => {
                // What was found may have been read from a cache that never reached the disk:
                // write it again before acting on it.
                self.record(CoordinatorRecord::Committed(epoch), effects);
                let waiting = cut_over.participants;
                self.phase = Phase::Switching { epoch, waiting };
                self.prompt_all(effects);
                Self::timer(
                    CoordinatorTimer::Resend(epoch),
                    self.resend_after(),
                    effects,
                );
            }
            Decision::Completed => self.watch(epoch, now, effects),
            Decision::Aborted => {
                let reason = self
                    .ledger
                    .active()
                    .and_then(|d| d.reason.clone())
                    .unwrap_or_default();
                self.abort(reason, effects);
            }
        }
    }

    fn recover_idle(&mut self, now: Timestamp, effects: &mut Vec<CoordinatorEffect>) {
        if self.ledger.active().is_some() {
            // Accepted, and nothing begun: begin.
            self.start_cut_over(Direction::Forward, Position::default(), None, now, effects);
        }
        self.keep_warm(effects);
    }
}
