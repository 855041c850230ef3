//! A fleet with faults as a state space: what may happen in a state, and what must hold in all.

use super::fair::Schedule;
use super::faults::{Coordinator, Faults, Spent};
use super::machine::Machine;
use super::past;
use super::rules::Check;
use super::server::Server;
use super::step::Step;
use super::table::{
    Entry, MessageId, MessageTable, Net, Node, NodeId, Outcome, RENAMINGS, Renaming, Table, What,
};
use greenlight_protocol::coordinator::Decision;
use greenlight_protocol::{Command, Epoch, Phase};
use stateright::{Model, Property};
use std::sync::Arc;

/// The most instances that a state has room for.
pub(crate) const ROOM: usize = 3;

/// One state of the fleet, all by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) server: NodeId,
    pub(crate) machines: [NodeId; ROOM],
    pub(crate) net: Net,
    pub(crate) spent: Spent,
    /// The newest cut-over that any gate was ever opened for.
    pub(crate) newest: Epoch,
    /// The rule that was broken on the way.
    pub(crate) breach: Option<&'static str>,
}

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Server,
    Machine(usize),
}

/// One thing that happens in a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) place: Place,
    pub(crate) what: What,
    /// Which of the step's outcomes: 0 is the complete one, the others end in a crash.
    pub(crate) outcome: usize,
}

/// The fleet and everything known of it.
pub(crate) struct Fleet {
    pub(crate) faults: Faults,
    pub(crate) servers: Table<Server>,
    pub(crate) machines: Table<Machine>,
    pub(crate) messages: MessageTable,
    pub(crate) schedule: Schedule,
    starts: Vec<State>,
    pub(crate) check: Check,
}

impl Fleet {
    /// A fleet that serves `v1` and has just been told to deploy `v2`.
    pub(crate) fn new(faults: Faults, check: Check) -> Self {
        let mut fleet = Self {
            faults,
            servers: Table::new(),
            machines: Table::new(),
            messages: MessageTable::new(),
            schedule: Schedule::default(),
            starts: Vec::new(),
            check,
        };
        fleet.starts = fleet.start();
        fleet
    }

    fn start(&self) -> Vec<State> {
        let past = past::of_agent(self.faults);
        let machine = Machine::with(past, self.faults).settled();
        let newest = machine.disk.latest_decided();
        let machine = self.machines.root(machine);
        let there = |index| match index {
            index if index < self.faults.instances => machine,
            _ => NodeId::MAX,
        };
        let past = past::of_coordinator(self.faults);
        let server = Server::with(self.faults.instances, past, self.faults.mutant);
        let server = server.take(&Step::Restarts).remove(0).node;
        let request = past::request(self.faults.instances, "d2", "v2");
        let begun = server.command(Command::Deploy(Box::new(request)));
        let begun = self.servers.roots(begun, &self.messages);
        let quiet = State {
            server: NodeId::MAX,
            machines: std::array::from_fn(there),
            net: Net::default(),
            spent: Spent::default(),
            newest,
            breach: None,
        };
        let starts = begun.iter();
        let starts = starts.map(|outcome| self.apply(quiet, Place::Server, outcome));
        starts
            .filter(|state| state.spent.is_within(&self.faults))
            .collect()
    }

    fn apply(&self, mut state: State, place: Place, outcome: &Outcome) -> State {
        match place {
            Place::Server => {
                state.server = outcome.node;
                state.spent.coordinator_crashes += u8::from(outcome.crashes);
                for message in &outcome.sent {
                    state.net.put(*message);
                }
            }
            Place::Machine(index) => {
                state.machines[index] = outcome.node;
                state.spent.agent_crashes += u8::from(outcome.crashes);
                for message in &outcome.sent {
                    let message = self.to_global(index, *message);
                    if !self.is_reminder(message) {
                        state.net.put(message);
                    }
                }
            }
        }
        if let Some(fault) = outcome.fault {
            state.spent.add(fault);
        }
        state.newest = state.newest.max(outcome.opened.unwrap_or_default());
        state.breach = state.breach.or(outcome.breach);
        state
    }

    /// A message as the instance with this index reads it: every machine calls itself
    /// [`super::machine::ME`], and its peers by what comes after it.
    pub(crate) fn to_local(&self, index: usize, message: MessageId) -> MessageId {
        let back = self.faults.instances - index;
        self.messages.renamed(message, self.rotation(back))
    }

    /// A message that the instance with this index wrote, as all others read it.
    pub(crate) fn to_global(&self, index: usize, message: MessageId) -> MessageId {
        self.messages.renamed(message, self.rotation(index))
    }

    fn rotation(&self, by: usize) -> Renaming {
        let size = self.faults.instances;
        let turned = std::array::from_fn(|i| if i < size { (i + by) % size } else { i });
        let found = RENAMINGS.iter().position(|names| *names == turned);
        found.expect("a rotation is a renaming")
    }

    /// Whether this is a message that only reminds the coordinator of an instance.
    pub(crate) fn is_reminder(&self, message: MessageId) -> bool {
        !self.faults.reminders && self.messages.message(message).is_reminder()
    }

    pub(crate) fn outcomes(&self, state: &State, place: Place, what: &What) -> Arc<[Outcome]> {
        match place {
            Place::Server => {
                let entry = self.servers.entry(state.server);
                self.servers.outcomes(entry, what, &self.messages)
            }
            Place::Machine(index) => {
                let entry = self.machines.entry(state.machines[index]);
                match what {
                    What::Reads(message) => {
                        let message = self.to_local(index, *message);
                        self.machines.read(entry, message, &self.messages)
                    }
                    What::Own(step) => self.machines.take(entry, step, &self.messages),
                }
            }
        }
    }

    /// Offers every outcome that is within the faults and leads to another state.
    fn offer(&self, state: &State, place: Place, what: &What, actions: &mut Vec<Action>) {
        let mut spent = state.spent;
        if let Some(fault) = what.fault() {
            spent.add(fault);
        }
        if !spent.is_within(&self.faults) {
            return;
        }
        let outcomes = self.outcomes(state, place, what);
        for (number, outcome) in outcomes.iter().enumerate() {
            let next = self.apply(*state, place, outcome);
            if next != *state && next.spent.is_within(&self.faults) {
                actions.push(Action {
                    place,
                    what: what.clone(),
                    outcome: number,
                });
            }
        }
    }

    /// A gate's deadline is later than the coordinator's budget, so it passes only if the
    /// coordinator is not there to decide. If it has decided to commit and the decision does not
    /// get through before the deadline, G1 is given up by choice (`on_uncertain: serve_old`):
    /// that case is left out here, and stated in the guarantees.
    fn may_expire(&self, state: &State, machine: &Machine, step: &Step) -> bool {
        let held_for = match *step == Step::FollowerExpires {
            true => machine.gate.left_held_for(),
            false => machine.gate.held_for(),
        };
        let Some(epoch) = held_for else {
            return false;
        };
        if machine.gate.has_opened() >= Some(epoch) {
            // It needs no news of the decision.
            return true;
        }
        let server = &self.servers.entry(state.server).node;
        let committed = matches!(
            server.disk.decided.get(&epoch),
            Some(Decision::Committed | Decision::Completed)
        );
        let holding = server.process.as_ref().is_some_and(|process| {
            matches!(process.phase(), Phase::Holding { .. }) && process.epoch() == Some(epoch)
        });
        !committed && !holding
    }

    pub(crate) fn machines_of<'a>(
        &'a self,
        state: &'a State,
    ) -> impl Iterator<Item = &'a Entry<Machine>> {
        let ids = &state.machines[..self.faults.instances];
        ids.iter().map(|id| self.machines.entry(*id))
    }
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.starts.clone()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let stays_away = self.faults.coordinator == Coordinator::StaysAway;
        let server = self.servers.entry(state.server);
        for step in &server.steps {
            if *step != Step::Restarts || !stays_away {
                self.offer(state, Place::Server, &What::Own(step.clone()), actions);
            }
        }
        for index in 0..self.faults.instances {
            let place = Place::Machine(index);
            let machine = self.machines.entry(state.machines[index]);
            for step in &machine.steps {
                let expires = matches!(
                    step,
                    Step::HoldExpires | Step::HoldIsRefused | Step::FollowerExpires
                );
                if !expires || self.may_expire(state, &machine.node, step) {
                    self.offer(state, place, &What::Own(step.clone()), actions);
                }
            }
            if self.faults.reconnections && machine.node.agent.is_some() {
                self.offer(state, place, &What::Own(Step::Connects), actions);
                let seen = What::Own(Step::SeesConnection(index));
                self.offer(state, Place::Server, &seen, actions);
            }
        }
        for message in state.net.messages() {
            let place = match self.messages.message(message).addressee() {
                Some(index) => Place::Machine(index),
                None => Place::Server,
            };
            self.offer(state, place, &What::Reads(message), actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let outcomes = self.outcomes(state, action.place, &action.what);
        let next = self.apply(*state, action.place, &outcomes[action.outcome]);
        Some(self.standing_for(next))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.rules()
    }
}
