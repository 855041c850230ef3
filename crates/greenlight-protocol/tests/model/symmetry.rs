//! Which states are the same: those that differ only in messages that no longer matter, or in the
//! names of instances.

use super::dead::Facts;
use super::fleet::{Fleet, Place, ROOM, State};
use super::message::Names;
use super::table::{MessageId, Net, NodeId, Outcome, RENAMINGS, Renaming, What};
use super::world::message::Message;
use greenlight_protocol::Coordinator;
use std::sync::Arc;

impl Fleet {
    /// The one state that stands for all that are the same as this one.
    pub(crate) fn standing_for(&self, state: State) -> State {
        self.canonical(&self.without_dead_messages(state))
    }

    /// The state without the messages that no longer matter.
    fn without_dead_messages(&self, mut state: State) -> State {
        let server = self.servers.entry(state.server);
        let machines: Vec<_> = self.machines_of(&state).collect();
        let facts = Facts {
            server: &server.node.disk,
            machines: machines.iter().map(|machine| &machine.node.disk).collect(),
            last_term: server
                .node
                .process
                .as_ref()
                .filter(|_| state.spent.coordinator_crashes == self.faults.coordinator_crashes)
                .map(Coordinator::term),
            reminders: self.faults.reminders,
            deaths: self.faults.deaths > 0,
            mutant: self.faults.mutant,
            net: &state.net,
            messages: &self.messages,
        };
        let mut kept = Net::default();
        for message in state.net.messages() {
            if facts.is_dead(message) {
                self.check_dead(&state, &facts, message);
            } else {
                kept.put(message);
            }
        }
        state.net = kept;
        state
    }

    fn check_dead(&self, state: &State, facts: &Facts<'_>, message: MessageId) {
        let read = self.read(state, message);
        let content = self.messages.message(message);
        let to = content.addressee();
        let node = to.map_or(state.server, |index| state.machines[index]);
        let global = |sent: &MessageId| to.map_or(*sent, |index| self.to_global(index, *sent));
        let sends_nothing = read[0]
            .sent
            .iter()
            .map(global)
            .all(|sent| facts.is_dead(sent) || state.net.has(sent) || self.is_reminder(sent));
        let mut idle = read[0].node == node && sends_nothing;
        if let Message::Directive(to, envelope) = content
            && let Some(same) = facts.same_as(*to, envelope)
        {
            let same = self.read(state, same);
            idle |= same[0].node == read[0].node && same[0].sent == read[0].sent;
        }
        assert!(idle, "{} is not dead", content.describe());
    }

    fn read(&self, state: &State, message: MessageId) -> Arc<[Outcome]> {
        let place = match self.messages.message(message).addressee() {
            Some(index) => Place::Machine(index),
            None => Place::Server,
        };
        self.outcomes(state, place, &What::Reads(message))
    }

    /// Of all states that differ only in the names of instances, the least.
    fn canonical(&self, state: &State) -> State {
        let size = self.faults.instances;
        let fits = |names: &Names| names[size..].iter().copied().eq(size..ROOM);
        let named = RENAMINGS
            .iter()
            .enumerate()
            .filter(|(_, names)| fits(names));
        let machines = |names: &Names| {
            let mut renamed = state.machines;
            for (old, new) in names.iter().enumerate() {
                renamed[*new] = state.machines[old];
            }
            renamed
        };
        let named: Vec<_> = named
            .map(|(renaming, names)| (machines(names), renaming))
            .collect();
        let least = named.iter().map(|(machines, _)| *machines).min();
        let ties = named
            .iter()
            .filter(|(machines, _)| Some(*machines) == least);
        let states = ties.map(|(machines, renaming)| self.renamed(state, *machines, *renaming));
        let states = states.min_by_key(|state| (state.server, state.net));
        states.expect("one of them leaves the state as it is")
    }

    fn renamed(&self, state: &State, machines: [NodeId; ROOM], renaming: Renaming) -> State {
        if renaming == 0 {
            return *state;
        }
        let mut net = Net::default();
        for message in state.net.messages() {
            net.put(self.messages.renamed(message, renaming));
        }
        State {
            server: self.servers.renamed(state.server, renaming, &self.messages),
            machines,
            net,
            ..*state
        }
    }
}
