//! The network: messages that are lost, repeated, late or cut off, and links that break.
//!
//! Messages may overtake each other. What a process tells itself does not come through here.

use super::coordinator::Input;
use super::event::{Event, Message, Place};
use super::simulation::Simulation;
use greenlight_protocol::{AgentEvent, CoordinatorEvent};

impl Simulation {
    pub(crate) fn send(&mut self, from: Place, to: Place, message: Message) {
        if self.rng.hits(self.profile.loss) {
            self.stats.count("message lost");
            return;
        }
        if self.rng.hits(self.profile.duplicates) {
            self.stats.count("message repeated");
            let message = message.clone();
            let delay = self.delay() * 3;
            self.after(delay, Event::Arrives { from, to, message });
        }
        let delay = self.delay();
        self.after(delay, Event::Arrives { from, to, message });
    }

    fn delay(&mut self) -> u64 {
        if self.rng.hits(self.profile.stragglers) {
            self.stats.count("message late");
            return self.rng.micros(1_000, 1_500_000);
        }
        self.rng.around(self.profile.delay)
    }

    pub(crate) fn arrives(&mut self, from: Place, to: Place, message: Message) {
        if self.blocked.contains(&(from, to)) {
            self.stats.count("message cut off");
            return;
        }
        match (to, from, message) {
            (Place::Coordinator, Place::Instance(from), Message::Report(envelope)) => {
                let from = self.machines[from].name.clone();
                self.tell_coordinator(CoordinatorEvent::Reported { from, envelope });
            }
            (Place::Instance(at), _, Message::Directive(envelope)) => {
                let life = self.machines[at].agent.life;
                self.tell_agent(at, life, AgentEvent::Directed(envelope));
            }
            (Place::Instance(at), Place::Instance(from), Message::Ask(epoch)) => {
                let life = self.machines[at].agent.life;
                let peer = self.machines[from].name.clone();
                self.tell_agent(at, life, AgentEvent::PeerAsked { peer, epoch });
            }
            (Place::Instance(at), _, Message::Answer(epoch, answer)) => {
                let life = self.machines[at].agent.life;
                self.tell_agent(at, life, AgentEvent::PeerAnswered { epoch, answer });
            }
            (to, from, message) => unreachable!("{message:?} from {from:?} to {to:?}"),
        }
    }

    /// The agent will try to reach the coordinator, and go on trying.
    pub(crate) fn dial(&mut self, at: usize, soon: bool) {
        let agent = self.machines[at].agent.life;
        let coordinator = self.coordinator.life;
        let last = if soon { 100_000 } else { 2_000_000 };
        let pause = self.rng.micros(5_000, last);
        let dials = Event::Dials {
            at,
            agent,
            coordinator,
        };
        self.after(pause, dials);
    }

    pub(crate) fn dials(&mut self, at: usize, agent: u64, coordinator: u64) {
        let here = Place::Instance(at);
        let machine = &self.machines[at];
        let both_up = machine.agent.is_up() && self.coordinator.is_up();
        let same = machine.agent.life == agent && self.coordinator.life == coordinator;
        if !both_up || !same || machine.link_up {
            return;
        }
        if self.blocked.contains(&(here, Place::Coordinator))
            || self.blocked.contains(&(Place::Coordinator, here))
        {
            self.dial(at, false);
            return;
        }
        let machine = &mut self.machines[at];
        machine.link_up = true;
        machine.session += 1;
        let name = machine.name.clone();
        self.tell_coordinator(CoordinatorEvent::Connected(name));
        let delay = self.rng.around(self.profile.delay);
        let event = AgentEvent::Connected;
        let life = agent;
        self.after(delay, Event::ToAgent { at, life, event });
    }

    pub(crate) fn link_is_down(&mut self, at: usize, session: u64) {
        let machine = &self.machines[at];
        if machine.session == session {
            let name = machine.name.clone();
            self.tell_coordinator(CoordinatorEvent::Disconnected(name));
        }
    }

    /// A link breaks; the coordinator notices later.
    pub(crate) fn link_breaks(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if !machine.link_up {
            return;
        }
        machine.link_up = false;
        let session = machine.session;
        let pause = self.rng.micros(500, 100_000);
        self.after(pause, Event::LinkIsDown { at, session });
    }

    pub(crate) fn tell_coordinator(&mut self, event: CoordinatorEvent) {
        if self.coordinator.is_up() {
            self.coordinator.inbox.push_back(Input::Event(event));
            self.wake(Place::Coordinator);
        }
    }

    pub(crate) fn tell_agent(&mut self, at: usize, life: u64, event: AgentEvent) {
        let agent = &mut self.machines[at].agent;
        if agent.is_up() && agent.life == life {
            agent.inbox.push_back(event);
            self.wake(Place::Instance(at));
        }
    }
}
