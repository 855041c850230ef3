//! What must hold in every state: the guarantees, and that the state ends well.
//!
//! G4, the half of G6 that is about one directive or vote, and that nothing is stopped which
//! serves, are rules on steps; a step that breaks one leaves a breach in the state after it.

use super::faults::Coordinator;
use super::fleet::{Fleet, State};
use greenlight_protocol::{Epoch, agent, coordinator};
use stateright::Property;
use std::collections::BTreeSet;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// All guarantees, and that every state ends well once faults stop.
    Everything,
    /// G1 alone.
    OnlyG1,
}

impl Fleet {
    pub(crate) fn rules(&self) -> Vec<Property<Self>> {
        let g1 = Property::always("G1", Self::never_mixed);
        match self.check {
            Check::OnlyG1 => vec![g1],
            Check::Everything => vec![
                g1,
                Property::always("G2", Self::never_divided),
                Property::always("G5", Self::never_early),
                Property::always("G4 and G6", Self::never_in_breach),
                Property::always("it ends well", |fleet, state| fleet.end_of(state).is_ok()),
            ],
        }
    }

    /// G4 and G6: no step has broken a rule, and nobody would obey what is stale.
    fn never_in_breach(&self, state: &State) -> bool {
        let server = self.servers.entry(state.server);
        let sound = self
            .machines_of(state)
            .all(|machine| machine.flaw.is_none());
        sound && server.flaw.is_none() && state.breach.is_none()
    }

    /// G1: no gate admits to an older release once any gate was opened to a newer one.
    fn never_mixed(&self, state: &State) -> bool {
        self.machines_of(state).all(|machine| {
            let mut admits = machine.node.gate.admits();
            admits.all(|admits| admits.ordinal >= state.newest)
        })
    }

    /// G2: no two instances ever make different decisions durable for one cut-over, and none is
    /// said to be complete before all have made theirs.
    fn never_divided(&self, state: &State) -> bool {
        let mut committed = BTreeSet::new();
        let mut aborted = BTreeSet::new();
        for machine in self.machines_of(state) {
            for (epoch, decision) in &machine.node.disk.decided {
                match decision {
                    agent::Decision::Committed => committed.insert(*epoch),
                    agent::Decision::Aborted => aborted.insert(*epoch),
                };
            }
        }
        let server = &self.servers.entry(state.server).node;
        let completed_early = server.disk.decided.iter().any(|(epoch, decision)| {
            *decision == coordinator::Decision::Completed
                && self
                    .machines_of(state)
                    .any(|machine| !machine.node.disk.decided.contains_key(epoch))
        });
        committed.is_disjoint(&aborted) && !completed_early
    }

    /// G5: what a gate was opened to was committed before, durably.
    fn never_early(&self, state: &State) -> bool {
        let server = &self.servers.entry(state.server).node;
        let committed = |epoch: &Epoch| {
            matches!(
                server.disk.decided.get(epoch),
                Some(coordinator::Decision::Committed | coordinator::Decision::Completed)
            )
        };
        (state.newest == Epoch(0) || committed(&state.newest))
            && self.machines_of(state).all(|machine| {
                let disk = &machine.node.disk;
                let mut switched = disk.decided.iter();
                switched.all(|(e, decision)| *decision == agent::Decision::Aborted || committed(e))
            })
    }

    /// What becomes of the state once faults stop.
    pub(crate) fn end_of(&self, state: &State) -> Result<(), String> {
        match self.faults.coordinator {
            Coordinator::ComesBack => self.schedule.ends_well(self, state),
            Coordinator::StaysAway => self.schedule.peers_end_well(self, state),
        }
    }
}
