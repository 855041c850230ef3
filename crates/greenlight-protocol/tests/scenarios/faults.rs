//! What can go wrong in the fleet: crashes and restarts, cut links, applications that die.

use super::{InFlight, Story, Timer};
use greenlight_protocol::agent::BeforeSwitchFailed;
use greenlight_protocol::{Agent, AgentEvent, Coordinator, CoordinatorEvent, InstanceId, Slot};
use std::collections::BTreeSet;

impl Story {
    /// The coordinator's process ends; its records stay.
    pub(crate) fn crash_coordinator(&mut self) {
        self.coordinator = None;
        self.timers
            .retain(|_, timer| !matches!(timer, Timer::Coordinator(_)));
    }

    /// The coordinator comes back from its records, and everyone's link with it.
    pub(crate) fn restart_coordinator(&mut self) {
        let fleet: BTreeSet<_> = self.machines.keys().cloned().collect();
        let (coordinator, effects) = Coordinator::recover(fleet.clone(), &self.records, self.now);
        self.coordinator = Some(coordinator);
        self.carry_out(effects);
        for machine in fleet {
            self.connect(&machine);
        }
    }

    /// The agent's process ends; its records, its gate and its slots stay.
    pub(crate) fn crash_agent(&mut self, at: &InstanceId) {
        self.machine(at).agent = None;
        self.timers
            .retain(|_, timer| !matches!(timer, Timer::Agent(who, _) if who == at));
        self.in_flight
            .retain(|in_flight| in_flight.told_at() != Some(at));
    }

    /// The agent comes back from its records, is told what runs, and connects.
    pub(crate) fn restart_agent(&mut self, at: &InstanceId) {
        let (agent, effects) = Agent::recover(at.clone(), &self.machine(at).disk);
        self.machine(at).agent = Some(agent);
        self.carry_out_at(at, effects);
        let running: Vec<_> = self
            .machine(at)
            .slots
            .iter()
            .map(|(slot, _)| slot.clone())
            .collect();
        for event in self.machine(at).slots.found() {
            self.learns(at, event);
        }
        // The link is up before the first check has passed.
        self.connect(at);
        self.run();
        for slot in running {
            if let Some(event) = self.machine(at).slots.passes(&slot) {
                self.learns(at, event);
            }
        }
    }

    /// A link comes up: both ends notice.
    pub(crate) fn connect(&mut self, at: &InstanceId) {
        if self.machine(at).agent.is_none() {
            return;
        }
        let now = self.now;
        if let Some(coordinator) = &mut self.coordinator {
            let effects = coordinator.handle(CoordinatorEvent::Connected(at.clone()), now);
            self.carry_out(effects);
            self.learns(at, AgentEvent::Connected);
        }
    }

    /// A link goes down: the coordinator notices, and what was on its way is lost.
    pub(crate) fn disconnect(&mut self, at: &InstanceId) {
        self.in_flight.retain(|in_flight| {
            let report = in_flight.report().map(|(from, _)| from);
            in_flight.directed_to().or(report).as_ref() != Some(at)
        });
        let now = self.now;
        if let Some(coordinator) = &mut self.coordinator {
            let effects = coordinator.handle(CoordinatorEvent::Disconnected(at.clone()), now);
            self.carry_out(effects);
        }
    }

    /// The application in a slot dies, and its agent is told.
    pub(crate) fn kill(&mut self, at: &InstanceId, version: &str) {
        let slots = &mut self.machine(at).slots;
        let running = slots.iter().find(|(_, app)| app.digest == version);
        let slot = running.map(|(slot, _)| slot.clone());
        let slot = slot.expect("the version runs there");
        let died = slots.dies(&slot, "killed by the test");
        let (_, event) = died.expect("it runs there");
        self.learns(at, event);
    }

    /// The application in a slot dies, and its agent knows at once, before all else.
    pub(crate) fn dies_now(&mut self, at: &InstanceId, slot: &Slot) {
        let died = self.machine(at).slots.dies(slot, "killed by the test");
        let (_, event) = died.expect("it runs there");
        self.tell(at, event);
    }

    /// Commands before the switch end, those that run and those to come.
    pub(crate) fn end_command(&mut self, result: &Result<String, BeforeSwitchFailed>) {
        self.command_ends = Some(result.clone());
        for (at, machine) in &self.machines {
            for epoch in &machine.commands {
                let (epoch, result) = (*epoch, result.clone());
                let event = AgentEvent::BeforeSwitchEnded { epoch, result };
                self.in_flight.push_back(InFlight::Local(at.clone(), event));
            }
        }
    }
}
