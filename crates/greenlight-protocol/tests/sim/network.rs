//! The network: messages that are lost, repeated, late or cut off, and links that break.
//!
//! Messages may overtake each other. What a process tells itself does not come through here.

use super::coordinator::Input;
use super::event::{Event, Place};
use super::simulation::Simulation;
use crate::world::message::{Message, Read};
use greenlight_protocol::{AgentEvent, CoordinatorEvent};

impl Simulation {
    pub(crate) fn send(&mut self, message: Message) {
        if self.rng.hits(self.profile.loss) {
            self.stats.count("message lost");
            return;
        }
        if self.rng.hits(self.profile.duplicates) {
            self.stats.count("message repeated");
            let delay = self.delay() * 3;
            self.after(delay, Event::Arrives(message.clone()));
        }
        let delay = self.delay();
        self.after(delay, Event::Arrives(message));
    }

    fn delay(&mut self) -> u64 {
        if self.rng.hits(self.profile.stragglers) {
            self.stats.count("message late");
            return self.rng.micros(1_000, 1_500_000);
        }
        self.rng.around(self.profile.delay)
    }

    pub(crate) fn arrives(&mut self, message: Message) {
        let way = (Place::of(message.sender()), Place::of(message.addressee()));
        if self.blocked.contains(&way) {
            self.stats.count("message cut off");
            return;
        }
        match message.read() {
            Read::Coordinator(event) => self.tell_coordinator(event),
            Read::Agent(at, event) => {
                let life = self.machines[at].agent.life;
                self.tell_agent(at, life, event);
            }
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
