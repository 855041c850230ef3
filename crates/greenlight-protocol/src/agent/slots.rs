//! What runs in the two slots of each service.
//!
//! This part knows starts, checks and stops, and nothing of cut-overs: which release belongs into a
//! slot is the ledger's.

use super::effect::AgentEffect;
use super::output::Output;
use crate::id::{Epoch, Incarnation};
use crate::policy::Policy;
use crate::release::{Release, Slot};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a slot's application is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotState {
    /// Started or found again, and its check has not yet passed.
    Starting,
    /// Its check passes.
    Ready,
    /// It ran well once, and its check fails.
    Unhealthy,
    /// It is being drained and stopped.
    Stopping,
}

/// Whether a slot can take traffic for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// Not known yet, or not yet ready.
    Pending,
    Dead,
}

impl Readiness {
    /// The readiness of two slots together: a dead one spoils it, a pending one delays it.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Dead, _) | (_, Self::Dead) => Self::Dead,
            (Self::Pending, _) | (_, Self::Pending) => Self::Pending,
            (Self::Ready, Self::Ready) => Self::Ready,
        }
    }
}

/// What runs in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RunningSlot {
    pub(super) incarnation: Incarnation,
    pub(super) digest: String,
    pub(super) state: SlotState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Listed {
    #[default]
    No,
    Yes,
}

/// The slots of one instance. What is not here does not run, once the runtime has listed what does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Slots {
    running: BTreeMap<Slot, RunningSlot>,
    /// Whether the runtime has reported what runs; until then an absent slot is unknown, not empty.
    listed: Listed,
    /// Numbers the starts of this instance.
    next_attempt: u32,
}

impl Slots {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Slot, &RunningSlot)> {
        self.running.iter()
    }

    pub(super) fn get(&self, slot: &Slot) -> Option<&RunningSlot> {
        self.running.get(slot)
    }

    pub(super) fn is_empty(&self, slot: &Slot) -> bool {
        !self.running.contains_key(slot)
    }

    /// Whether the runtime has told what runs.
    pub(super) fn are_listed(&self) -> bool {
        self.listed == Listed::Yes
    }

    pub(super) fn is_ready(&self, slot: &Slot, release: &Release) -> bool {
        self.readiness(slot, release) == Readiness::Ready
    }

    pub(super) fn readiness(&self, slot: &Slot, release: &Release) -> Readiness {
        match self.running.get(slot) {
            Some(running) if running.digest == release.digest => match running.state {
                SlotState::Ready => Readiness::Ready,
                SlotState::Starting => Readiness::Pending,
                SlotState::Unhealthy | SlotState::Stopping => Readiness::Dead,
            },
            None if self.listed == Listed::No => Readiness::Pending,
            Some(_) | None => Readiness::Dead,
        }
    }

    /// Starts a release in an empty slot, for this cut-over.
    pub(super) fn start(
        &mut self,
        slot: Slot,
        epoch: Epoch,
        release: Release,
        ready_within: Duration,
        output: &mut Output,
    ) {
        let attempt = self.next_attempt;
        let incarnation = Incarnation { epoch, attempt };
        self.next_attempt += 1;
        self.fill(slot.clone(), incarnation, release.digest.clone());
        output.push(AgentEffect::Start {
            slot,
            incarnation,
            release,
            ready_within,
        });
    }

    /// Drains and stops what runs in a slot, unless that is under way.
    pub(super) fn stop(&mut self, slot: &Slot, policy: &Policy, output: &mut Output) {
        let Some(running) = self.running.get_mut(slot) else {
            return;
        };
        if running.state == SlotState::Stopping {
            return;
        }
        running.state = SlotState::Stopping;
        output.push(AgentEffect::Stop {
            slot: slot.clone(),
            drain: policy.drain,
            stop: policy.stop,
        });
    }

    /// This was found running after a restart of the agent.
    pub(super) fn found(&mut self, slot: Slot, incarnation: Incarnation, digest: String) {
        self.next_attempt = self.next_attempt.max(incarnation.attempt + 1);
        self.fill(slot, incarnation, digest);
    }

    /// All that runs has been told.
    pub(super) fn listed(&mut self) {
        self.listed = Listed::Yes;
    }

    /// Notes what a check has said. Says whether it is of what runs there and is not being stopped.
    pub(super) fn checked(
        &mut self,
        slot: &Slot,
        incarnation: Incarnation,
        state: SlotState,
    ) -> bool {
        let running = self.running.get_mut(slot);
        let checked = running.filter(|running| running.is_current(incarnation));
        checked.map(|running| running.state = state).is_some()
    }

    /// What ran there is gone by itself. Says whether it was there; a stop reports its own end.
    pub(super) fn exited(&mut self, slot: &Slot, incarnation: Incarnation) -> bool {
        let running = self.running.get(slot);
        let was_there = running.is_some_and(|running| running.is_current(incarnation));
        if was_there {
            self.running.remove(slot);
        }
        was_there
    }

    /// A stop is complete.
    pub(super) fn stopped(&mut self, slot: &Slot) {
        let running = self.running.get(slot);
        if running.is_some_and(|running| running.state == SlotState::Stopping) {
            self.running.remove(slot);
        }
    }

    fn fill(&mut self, slot: Slot, incarnation: Incarnation, digest: String) {
        let running = RunningSlot {
            incarnation,
            digest,
            state: SlotState::Starting,
        };
        self.running.insert(slot, running);
    }
}

impl RunningSlot {
    fn is_current(&self, incarnation: Incarnation) -> bool {
        self.incarnation == incarnation && self.state != SlotState::Stopping
    }
}
