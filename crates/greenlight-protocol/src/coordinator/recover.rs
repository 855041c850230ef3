//! Coming back after a crash: what was decided is carried out, what was not is aborted.

use super::{
    Coordinator, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer, Ledger, Phase, Verdict,
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
            trouble: None,
            is_promoted: false,
            retiring: None,
            presence: BTreeMap::new(),
            sync: Duration::ZERO,
            mutant,
        };
        let mut fx = Vec::new();
        let term = coordinator.ledger.term.next();
        coordinator.record(CoordinatorRecord::TermStarted(term), &mut fx);
        coordinator.take_up(now, &mut fx);
        (coordinator, fx)
    }

    fn take_up(&mut self, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        let Some((begin, verdict)) = self.ledger.latest() else {
            self.take_up_idle(now, fx);
            return;
        };
        let cut_over = begin.cut_over.clone();
        let epoch = cut_over.epoch;
        match verdict {
            Verdict::Open if broken!(self, ResumeUndecided) => {
                self.phase = Phase::Holding {
                    epoch,
                    waiting: cut_over.participants,
                    since: now,
                };
                self.prompt_all(fx);
                Self::timer(CoordinatorTimer::Resend(epoch), self.resend_after(), fx);
            }
            Verdict::Open => self.abort("the coordinator restarted before the commit".into(), fx),
            Verdict::Committed => {
                // What was found may have been read from a cache that never reached the disk:
                // write it again before acting on it.
                self.record(CoordinatorRecord::Committed(epoch), fx);
                let waiting = cut_over.participants;
                self.phase = Phase::Switching { epoch, waiting };
                self.prompt_all(fx);
                Self::timer(CoordinatorTimer::Resend(epoch), self.resend_after(), fx);
            }
            Verdict::Settled => self.watch(epoch, now, fx),
            Verdict::Aborted => {
                let reason = self
                    .ledger
                    .active()
                    .and_then(|d| d.reason.clone())
                    .unwrap_or_default();
                self.abort(reason, fx);
            }
        }
    }

    fn take_up_idle(&mut self, now: Timestamp, fx: &mut Vec<CoordinatorEffect>) {
        if self.ledger.active().is_some() {
            // Accepted, and nothing begun: begin.
            self.begin(Direction::Forward, Position::default(), None, now, fx);
        }
        self.keep_warm(fx);
    }
}
