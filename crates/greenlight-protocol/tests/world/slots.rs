//! What runs in the slots of an instance, whoever knows of it; and what its agent learns of it.
//!
//! Deliberately absent: how long a start, a check or a stop takes.

use greenlight_protocol::{AgentEvent, DrainEvidence, Incarnation, Slot};
use std::collections::BTreeMap;

/// An application; `Condition` is what a driver knows of it besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct App<Condition = ()> {
    pub(crate) incarnation: Incarnation,
    pub(crate) digest: String,
    /// Whether this incarnation has ever passed its check (G4).
    pub(crate) passed: bool,
    pub(crate) stopping: bool,
    pub(crate) condition: Condition,
}

/// All slots in which something runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slots<Condition = ()>(BTreeMap<Slot, App<Condition>>);

impl<Condition> Default for Slots<Condition> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<Condition> Slots<Condition> {
    /// An application starts; whether its slot was free.
    pub(crate) fn start(&mut self, slot: Slot, app: App<Condition>) -> bool {
        self.0.insert(slot, app).is_none()
    }

    pub(crate) fn get(&self, slot: &Slot) -> Option<&App<Condition>> {
        self.0.get(slot)
    }

    pub(crate) fn get_mut(&mut self, slot: &Slot) -> Option<&mut App<Condition>> {
        self.0.get_mut(slot)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&Slot, &App<Condition>)> {
        self.0.iter()
    }

    /// What an agent finds that has just started. Nobody is there any more who would end what was
    /// being stopped.
    pub(crate) fn found(&mut self) -> Vec<AgentEvent> {
        let found = self.0.iter_mut().map(|(slot, app)| {
            app.stopping = false;
            AgentEvent::SlotFound {
                slot: slot.clone(),
                incarnation: app.incarnation,
                digest: app.digest.clone(),
            }
        });
        found.chain([AgentEvent::SlotsListed]).collect()
    }

    /// A check passes.
    pub(crate) fn passes(&mut self, slot: &Slot) -> Option<AgentEvent> {
        let app = self.0.get_mut(slot)?;
        app.passed = true;
        let (slot, incarnation) = (slot.clone(), app.incarnation);
        Some(AgentEvent::SlotReady { slot, incarnation })
    }

    /// A check fails.
    pub(crate) fn fails(&self, slot: &Slot, reason: &str) -> Option<AgentEvent> {
        Some(AgentEvent::SlotUnhealthy {
            slot: slot.clone(),
            incarnation: self.0.get(slot)?.incarnation,
            reason: reason.to_owned(),
        })
    }

    /// What runs there is to end.
    pub(crate) fn stop(&mut self, slot: &Slot) {
        if let Some(app) = self.0.get_mut(slot) {
            app.stopping = true;
        }
    }

    /// It has ended because it was to.
    pub(crate) fn stopped(&mut self, slot: &Slot) -> AgentEvent {
        self.0.remove(slot);
        let (slot, drained) = (slot.clone(), DrainEvidence::default());
        AgentEvent::SlotStopped { slot, drained }
    }

    /// It ends by itself.
    pub(crate) fn dies(
        &mut self,
        slot: &Slot,
        reason: &str,
    ) -> Option<(App<Condition>, AgentEvent)> {
        let app = self.0.remove(slot)?;
        let event = exited(slot, app.incarnation, reason);
        Some((app, event))
    }
}

impl<Condition> App<Condition> {
    /// One that has not been checked.
    pub(crate) fn new(incarnation: Incarnation, digest: String, condition: Condition) -> Self {
        Self {
            incarnation,
            digest,
            passed: false,
            stopping: false,
            condition,
        }
    }
}

/// What runs, or should, has exited.
pub(crate) fn exited(slot: &Slot, incarnation: Incarnation, reason: &str) -> AgentEvent {
    AgentEvent::SlotExited {
        slot: slot.clone(),
        incarnation,
        reason: reason.to_owned(),
    }
}
