//! A fleet in memory: a coordinator, agents, and beside each agent the control of its gates and
//! fake slots.
//!
//! Everything happens in one deterministic order: messages are delivered first in, first out, and
//! time passes only when a test says so. Faults are made by the tests, between two messages.
//!
//! Deliberately absent: randomness. Random faults are the simulator's, all faults the model's.

#[path = "faults.rs"]
mod faults;
#[path = "front.rs"]
mod front;

use crate::world::agent::{Begun, begin};
use crate::world::coordinator;
pub(crate) use crate::world::message::name;
use crate::world::message::{Message, Read, index};
use crate::world::proxy::Proxy;
use crate::world::slots::{App, Slots, exited};
use greenlight_protocol::agent::BeforeSwitchFailed;
use greenlight_protocol::coordinator::{CoordinatorRecord, DeploymentRequest, Promotion};
use greenlight_protocol::message::ReportEnvelope;
use greenlight_protocol::{
    Accepted, Agent, AgentEffect, AgentEvent, AgentRecord, AgentTimer, Color, Command, Coordinator,
    CoordinatorEffect, CoordinatorEvent, CoordinatorTimer, DeploymentId, Epoch, Incarnation,
    InstanceId, Outcome, Plan, Policy, Refusal, Release, Slot, Strategy, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What a service's gate does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Requests are refused: it was never opened, or its service was removed.
    Closed,
    Open(Color),
    Held,
    Parked,
    Shed,
}

/// One machine: what survives its agent, and the agent.
pub(crate) struct Machine {
    pub(crate) agent: Option<Agent>,
    disk: Vec<AgentRecord>,
    pub(crate) proxy: Proxy,
    pub(crate) slots: Slots,
    /// Versions that exit here instead of passing their check.
    pub(crate) broken: BTreeSet<String>,
    /// The gate's process is away: orders do not reach it.
    pub(crate) gate_is_away: bool,
    /// In place of the gate stands something that cannot hold, and that will not change.
    pub(crate) front_is_stubborn: bool,
    /// What it has prepared cannot be reached by others.
    pub(crate) is_unseen: bool,
    /// How often it was asked to look at its peers and began to.
    pub(crate) looks: usize,
    pub(crate) starts: usize,
    /// Commands before the switch that were begun here, by epoch; they outlive the agent.
    pub(crate) commands: Vec<Epoch>,
    pub(crate) holds: usize,
}

/// Something on its way.
#[derive(Clone, Debug)]
pub(crate) enum InFlight {
    Message(Message),
    /// What an agent learns from its own instance.
    Local(InstanceId, AgentEvent),
}

impl InFlight {
    /// What a report on its way says, and who has sent it.
    pub(crate) fn report(&self) -> Option<(InstanceId, &ReportEnvelope)> {
        match self {
            Self::Message(Message::Report(from, envelope)) => Some((name(*from), envelope)),
            Self::Message(_) | Self::Local(..) => None,
        }
    }

    /// The instance that a directive on its way is for.
    pub(crate) fn directed_to(&self) -> Option<InstanceId> {
        match self {
            Self::Message(Message::Directive(to, _)) => Some(name(*to)),
            Self::Message(_) | Self::Local(..) => None,
        }
    }

    /// The instance that is told this by itself.
    pub(crate) fn told_at(&self) -> Option<&InstanceId> {
        match self {
            Self::Local(at, _) => Some(at),
            Self::Message(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Coordinator(CoordinatorTimer),
    Agent(InstanceId, AgentTimer),
    /// The deadline of a hold, in a process of a proxy.
    Gate(InstanceId, u64, u64),
}

/// The whole fleet.
pub(crate) struct Story {
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) records: Vec<CoordinatorRecord>,
    pub(crate) machines: BTreeMap<InstanceId, Machine>,
    pub(crate) in_flight: VecDeque<InFlight>,
    timers: BTreeMap<(Timestamp, u64), Timer>,
    armed: u64,
    pub(crate) now: Timestamp,
    /// The coordinator crashes as soon as it has written this many records.
    pub(crate) crash_after: Option<usize>,
    /// How commands before the switch end; while there is nothing here, they run.
    pub(crate) command_ends: Option<Result<String, BeforeSwitchFailed>>,
    /// Directives to this instance are lost.
    pub(crate) deaf: Option<InstanceId>,
}

impl Story {
    /// A fleet that has never run anything, everyone connected.
    pub(crate) fn new(size: usize) -> Self {
        let names: BTreeSet<_> = (1..=size).map(name).collect();
        let mut story = Self {
            coordinator: None,
            records: Vec::new(),
            machines: BTreeMap::new(),
            in_flight: VecDeque::new(),
            timers: BTreeMap::new(),
            armed: 0,
            now: Timestamp(0),
            crash_after: None,
            command_ends: None,
            deaf: None,
        };
        for machine in names {
            story.machines.insert(machine.clone(), Machine::new());
            story.restart_agent(&machine);
        }
        story.restart_coordinator();
        story.run();
        story
    }

    /// A fleet on which `shop` at `v1` was deployed and nothing else is left running.
    pub(crate) fn serving_v1(size: usize) -> Self {
        let mut story = Self::new(size);
        let request = story.request(&[("shop", "v1")]);
        story
            .deploy(request)
            .expect("an idle fleet takes a request");
        story.pass(Duration::from_hours(1));
        story
    }

    /// A deployment of everyone at once, named after its first version.
    pub(crate) fn request(&self, releases: &[(&str, &str)]) -> DeploymentRequest {
        self.request_by(Strategy::BlueGreen, releases)
    }

    /// A deployment with a strategy.
    pub(crate) fn request_by(
        &self,
        strategy: Strategy,
        releases: &[(&str, &str)],
    ) -> DeploymentRequest {
        let instances = self.machines.keys().cloned().collect();
        DeploymentRequest {
            deployment: DeploymentId(releases.first().map_or("", |(_, version)| version).into()),
            requested_by: "a test".to_owned(),
            releases: releases
                .iter()
                .map(|(service, version)| ((*service).into(), Some(release(version))))
                .collect(),
            plan: Plan::compile(strategy, &instances).expect("the fleet is not empty"),
            policy: Policy::default(),
            promotion: Promotion::Automatic,
        }
    }

    pub(crate) fn deploy(&mut self, request: DeploymentRequest) -> Result<Accepted, Refusal> {
        self.command(Command::Deploy(Box::new(request)))
    }

    pub(crate) fn command(&mut self, command: Command) -> Result<Accepted, Refusal> {
        let now = self.now;
        let coordinator = self.coordinator.as_mut().expect("the coordinator is up");
        let (accepted, effects) = coordinator.command(command, now)?;
        self.carry_out(effects);
        Ok(accepted)
    }

    /// Delivers until nothing is on its way.
    pub(crate) fn run(&mut self) {
        self.run_until(|_| false);
    }

    /// Delivers until the condition holds or nothing is on its way; says whether it holds.
    pub(crate) fn run_until(&mut self, reached: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..100_000 {
            if reached(self) {
                return true;
            }
            let Some(message) = self.in_flight.pop_front() else {
                return false;
            };
            self.deliver(message);
        }
        panic!(
            "the fleet never comes to rest; on its way: {:?}",
            self.in_flight
        );
    }

    /// Lets time pass: delivers, and fires what is due.
    pub(crate) fn pass(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).expect("tests do not wait for ages");
        let end = Timestamp(self.now.0 + micros);
        self.run();
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= end
        {
            let (at, _) = *entry.key();
            let timer = entry.remove();
            self.now = self.now.max(at);
            self.fire(timer);
            self.run();
        }
        self.now = end;
    }

    pub(crate) fn machine(&mut self, at: &InstanceId) -> &mut Machine {
        self.machines.get_mut(at).expect("the instance exists")
    }

    /// By instance: the version that its gate for `service` is open to, if it is open.
    pub(crate) fn served(&self, service: &str) -> Vec<Option<String>> {
        self.machines
            .values()
            .map(|machine| {
                let Gate::Open(color) = machine.gate(service) else {
                    return None;
                };
                let slot = Slot {
                    service: service.into(),
                    color,
                };
                Some(machine.slots.get(&slot)?.digest.clone())
            })
            .collect()
    }

    /// By instance: every version that runs, in order.
    pub(crate) fn running(&self) -> Vec<Vec<String>> {
        self.machines
            .values()
            .map(|machine| {
                let mut versions: Vec<_> = machine
                    .slots
                    .iter()
                    .map(|(_, app)| app.digest.clone())
                    .collect();
                versions.sort();
                versions
            })
            .collect()
    }

    /// How the latest deployment ended, if it has.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        let ledger = self.coordinator.as_ref()?.ledger();
        ledger.deployment.as_ref()?.outcome.as_ref()
    }

    /// The name of the coordinator's phase.
    pub(crate) fn phase(&self) -> &'static str {
        self.coordinator
            .as_ref()
            .map_or("down", |c| c.phase().name().as_str())
    }

    fn deliver(&mut self, in_flight: InFlight) {
        if in_flight.directed_to().is_some() && in_flight.directed_to() == self.deaf {
            return;
        }
        match in_flight {
            InFlight::Local(at, event) => self.tell(&at, event),
            InFlight::Message(message) => match message.read() {
                Read::Agent(to, event) => self.tell(&name(to), event),
                Read::Coordinator(event) => {
                    let now = self.now;
                    if let Some(coordinator) = &mut self.coordinator {
                        let effects = coordinator.handle(event, now);
                        self.carry_out(effects);
                    }
                }
            },
        }
    }

    /// Gives an agent an event and carries out what follows.
    pub(crate) fn tell(&mut self, at: &InstanceId, event: AgentEvent) {
        if let Some(agent) = &mut self.machine(at).agent {
            let effects = agent.handle(event);
            self.carry_out_at(at, effects);
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Coordinator(timer) => {
                let now = self.now;
                if let Some(coordinator) = &mut self.coordinator {
                    let effects = coordinator.handle(CoordinatorEvent::TimerFired(timer), now);
                    self.carry_out(effects);
                }
            }
            Timer::Agent(at, timer) => self.tell(&at, AgentEvent::TimerFired(timer)),
            Timer::Gate(at, process, generation) => self.gate_deadline(&at, process, generation),
        }
    }

    fn set_timer(&mut self, timer: Timer, after: Duration) {
        self.armed += 1;
        let micros = u64::try_from(after.as_micros()).expect("no timer runs for ages");
        self.timers
            .insert((Timestamp(self.now.0 + micros), self.armed), timer);
    }

    fn carry_out(&mut self, effects: Vec<CoordinatorEffect>) {
        for effect in effects {
            match coordinator::begin(effect) {
                coordinator::Begun::Write(record) => {
                    self.records.push(*record);
                    if self.crash_after == Some(self.records.len()) {
                        self.crash_coordinator();
                        return;
                    }
                }
                coordinator::Begun::Send(message) => self.send(message),
                coordinator::Begun::SetTimer { timer, after } => {
                    self.set_timer(Timer::Coordinator(timer), after);
                }
            }
        }
    }

    fn carry_out_at(&mut self, at: &InstanceId, effects: Vec<AgentEffect>) {
        for effect in effects {
            let agent = self.machines[at].agent.as_ref();
            let agent = agent.expect("effects are an agent's");
            let begun = begin(index(at), agent, effect);
            self.begins(at, begun.expect("no story breaks a rule"));
        }
    }

    /// Nothing takes time but timers.
    fn begins(&mut self, at: &InstanceId, begun: Begun) {
        match begun {
            Begun::Write(record) => self.machine(at).disk.push(record),
            Begun::Send(message) => self.send(message),
            Begun::Ask(asked) => self.gate(at, asked),
            Begun::Start {
                slot,
                incarnation,
                release,
                ..
            } => self.start(at, &slot, incarnation, release),
            Begun::Stop { slot, .. } => {
                let event = self.machine(at).slots.stopped(&slot);
                self.learns(at, event);
            }
            Begun::CheckPeers { epoch, peers } => {
                self.machine(at).looks += 1;
                let cut_off = self.machines[at].is_unseen;
                let unseen = peers
                    .iter()
                    .filter(|peer| self.machines[*peer].is_unseen || cut_off);
                let unseen = unseen.map(|peer| (peer.clone(), "no road".to_owned()));
                let unseen = unseen.collect();
                self.learns(at, AgentEvent::PeersChecked { epoch, unseen });
            }
            Begun::RunBeforeSwitch(epoch) => {
                let commands = &mut self.machine(at).commands;
                if !commands.contains(&epoch) {
                    commands.push(epoch);
                }
                if let Some(result) = self.command_ends.clone() {
                    self.learns(at, AgentEvent::BeforeSwitchEnded { epoch, result });
                }
            }
            Begun::SetTimer { timer, after } => {
                self.set_timer(Timer::Agent(at.clone(), timer), after);
            }
        }
    }

    fn send(&mut self, message: Message) {
        self.in_flight.push_back(InFlight::Message(message));
    }

    /// An agent will learn something from its own instance.
    pub(crate) fn learns(&mut self, at: &InstanceId, event: AgentEvent) {
        self.in_flight.push_back(InFlight::Local(at.clone(), event));
    }

    fn start(&mut self, at: &InstanceId, slot: &Slot, incarnation: Incarnation, release: Release) {
        let machine = self.machine(at);
        machine.starts += 1;
        machine.proxy.define(&slot.service);
        self.gate_goes_on(at);
        let machine = self.machine(at);
        let event = if machine.broken.contains(&release.version) {
            exited(slot, incarnation, "it never passed its check")
        } else {
            let app = App::new(incarnation, release.digest, ());
            let was_free = machine.slots.start(slot.clone(), app);
            assert!(was_free, "`{slot}` was started while it was taken");
            let event = machine.slots.passes(slot);
            event.expect("it has just been started")
        };
        self.learns(at, event);
    }
}

/// A release whose digest is its version.
pub(crate) fn release(version: &str) -> Release {
    Release {
        version: version.to_owned(),
        digest: version.to_owned(),
        spec: String::new(),
    }
}
