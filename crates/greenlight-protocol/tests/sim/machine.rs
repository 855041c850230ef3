//! The agent's process on one instance: the real machine, its journal, and what it drives.

use super::disk::Ending;
use super::event::{Event, Place};
use super::gate::GateOutput;
use super::oracle::{Breach, Checked, breach};
use super::process::{Process, Work};
use super::simulation::{Act, Simulation};
use crate::world::agent::{Begun, begin, is_stale};
use crate::world::answers;
use crate::world::message::Message;
use crate::world::proxy::{Asked, ProcessId};
use greenlight_protocol::{
    Agent, AgentEffect, AgentEvent, AgentRecord, AgentTimer, Epoch, GateAction, Report, ServiceName,
};
use std::time::Duration;

pub(crate) type AgentProcess = Process<Agent, AgentEvent, AgentEffect, AgentRecord, AgentTimer>;

/// How often an agent looks whether its gate was restarted, in microseconds.
const LEADER_CHECK_INTERVAL: u64 = 100_000;

impl Simulation {
    pub(crate) fn start_agent(&mut self, at: usize) -> Checked {
        let machine = &mut self.machines[at];
        if machine.agent.is_up() {
            return Ok(());
        }
        let journal = machine.agent.disk.open();
        for record in &journal.found {
            self.oracle.agent_wrote(&machine.name, record)?;
        }
        if journal.torn {
            self.stats.count("agent found a torn record");
        }
        let mutant = self.profile.mutant;
        let (agent, effects) = Agent::recover_with(machine.name.clone(), &journal.records, mutant);
        machine.agent.machine = Some(agent);
        machine.agent.plan(effects);
        machine.agent.work.push_back(Work::List);
        self.wake(Place::Instance(at));
        self.dial(at, true);
        self.asks_who_leads(at);
        Ok(())
    }

    /// The process ends; its gate and its applications go on. It comes back some time later.
    pub(crate) fn end_agent(&mut self, at: usize, ending: Ending) {
        let machine = &mut self.machines[at];
        // The power may go when the process is gone already.
        machine.agent.disk.end(ending, &mut self.rng);
        if !machine.agent.is_up() {
            return;
        }
        machine.agent.forget();
        machine.gate.proxy.forget_who_asked();
        machine.drains.clear();
        machine.starting.clear();
        self.link_breaks(at);
        let pause = self.restart_after();
        self.after(pause, Event::Starts(Place::Instance(at)));
    }

    pub(crate) fn start_gate(&mut self, at: usize) -> Checked {
        if self.machines[at].gate.is_up() {
            return Ok(());
        }
        self.machines[at].gate.start(self.now);
        self.faults.proxy_is_back(at, self.now);
        self.asks_who_leads(at);
        self.gate_changed(at)
    }

    /// The agent will notice which process of its proxy leads.
    pub(crate) fn asks_who_leads(&mut self, at: usize) {
        let machine = &self.machines[at];
        let (life, leader) = (machine.agent.life, machine.gate.leader());
        let pause = self.rng.micros(0, LEADER_CHECK_INTERVAL);
        self.after(pause, Event::LeaderCheck { at, life, leader });
    }

    pub(crate) fn leader_check(&mut self, at: usize, life: u64, leader: Option<ProcessId>) {
        if leader.is_some() && self.machines[at].gate.leader() == leader {
            self.tell_agent(at, life, AgentEvent::GateConnected);
        }
    }

    pub(crate) fn gate_deadline(
        &mut self,
        at: usize,
        process: ProcessId,
        generation: u64,
    ) -> Checked {
        let gate = &mut self.machines[at].gate;
        gate.deadline_passes(process, generation, self.now);
        self.gate_settled(at)
    }

    pub(crate) fn gate_budget(&mut self, at: usize, process: ProcessId, ticket: u64) -> Checked {
        let gate = &mut self.machines[at].gate;
        gate.budget_is_over(process, ticket, self.now);
        self.gate_settled(at)
    }

    pub(crate) fn gate_writes(&mut self, at: usize, process: ProcessId) -> Checked {
        if !self.machines[at].gate.proxy.is_writing(process) {
            return Ok(());
        }
        let mut result = Ok(());
        if self.rng.hits(self.profile.sync_error) {
            self.stats.count("gate's write failed");
            result = Err("the disk is broken".to_owned());
        }
        self.machines[at].gate.writes(process, result, self.now);
        self.gate_settled(at)
    }

    /// The gate's process ends, and often its agent with it.
    pub(crate) fn gate_ends(&mut self, at: usize, process: ProcessId) -> Checked {
        let gate = &self.machines[at].gate;
        if self.act == Act::Chaos && gate.leader() == Some(process) {
            self.end_gate(at, false)?;
            if self.rng.coin() {
                self.end_agent(at, Ending::Process);
            }
        }
        Ok(())
    }

    pub(crate) fn step_agent(&mut self, at: usize) -> Checked {
        if let Some(work) = self.machines[at].agent.work.pop_front() {
            return self.agent_works(at, work);
        }
        let process = &mut self.machines[at].agent;
        let Some(agent) = &mut process.machine else {
            return Ok(());
        };
        let event = match process.due.pop_front() {
            Some(timer) => Some(AgentEvent::TimerFired(timer)),
            None => process.inbox.pop_front(),
        };
        let Some(event) = event else {
            return Ok(());
        };
        let before = is_stale(agent, &event).then(|| agent.clone());
        let effects = agent.handle(event);
        let reports_only = effects
            .iter()
            .all(|effect| matches!(effect, AgentEffect::Report(_)));
        if before.is_some_and(|before| before != *agent || !reports_only) {
            return breach("G6: a stale directive changed something");
        }
        process.plan(effects);
        self.wake(Place::Instance(at));
        Ok(())
    }

    fn agent_works(&mut self, at: usize, work: Work<AgentEffect>) -> Checked {
        let here = Place::Instance(at);
        if self.rng.hits(self.profile.crash_at_effect) {
            self.stats.count("agent crashed at an effect");
            self.end_agent(at, Ending::Process);
            return Ok(());
        }
        let mut cost = self.rng.micros(2, 60);
        match work {
            Work::Effect(effect) => cost += self.agent_does(at, effect)?,
            Work::Sync => {
                if self.rng.hits(self.profile.sync_error) {
                    self.stats.count("agent's sync failed");
                    let disk = &mut self.machines[at].agent.disk;
                    disk.fail_to_sync(&mut self.rng);
                    self.end_agent(at, Ending::Process);
                    return Ok(());
                }
                let machine = &mut self.machines[at];
                for durable in machine.agent.disk.sync() {
                    self.oracle.agent_wrote(&machine.name, &durable)?;
                }
            }
            Work::List => self.list(at),
        }
        self.wake_after(here, cost);
        Ok(())
    }

    /// Carries out one effect; says how long it keeps the process. What takes longer ends later.
    fn agent_does(&mut self, at: usize, effect: AgentEffect) -> Result<u64, Breach> {
        let life = self.machines[at].agent.life;
        self.trace.note(self.now, &(Place::Instance(at), &effect));
        let Some(agent) = &self.machines[at].agent.machine else {
            return Ok(0);
        };
        match begin(at, agent, effect).map_err(|rule| Breach(rule.to_owned()))? {
            Begun::Write(record) => {
                let process = &mut self.machines[at].agent;
                if process.disk.write(&record).is_err() {
                    self.stats.count("agent's disk was full");
                    self.end_agent(at, Ending::Process);
                    return Ok(0);
                }
                process.work.push_front(Work::Sync);
                return Ok(self.sync_takes());
            }
            Begun::Send(message) => {
                let message = self.with_sync(message);
                self.send(message);
            }
            Begun::Ask(asked) => return self.ask_gate(at, asked),
            Begun::Start {
                slot,
                incarnation,
                release,
                ready_within,
            } => self.begin(at, slot, incarnation, release, ready_within),
            Begun::CheckPeers { epoch, peers } => {
                let unseen = peers.into_iter().filter(|peer| {
                    let machine = &self.machines[self.names[peer]];
                    let is_up = machine.agent.is_up() && machine.gate.is_up();
                    !is_up || self.rng.hits(0.02)
                });
                let unseen = unseen.map(|peer| (peer, "no road".to_owned())).collect();
                self.tell_agent(at, life, AgentEvent::PeersChecked { epoch, unseen });
            }
            // No policy of the simulation has such a command.
            Begun::RunBeforeSwitch(_) => {}
            Begun::Stop { slot, drain, stop } => self.stop(at, slot, drain, stop)?,
            Begun::SetTimer { timer, after } => {
                let takes = self.machines[at].agent.clock.takes(after);
                let due = self.now + takes;
                self.machines[at].agent.timers.insert(timer, due);
                let timer = Event::AgentTimer {
                    at,
                    life,
                    timer,
                    due,
                };
                self.after(takes, timer);
            }
        }
        Ok(0)
    }

    /// The shell fills in how long its last sync took.
    fn with_sync(&mut self, mut message: Message) -> Message {
        if let Message::Report(_, envelope) = &mut message
            && let Report::Armed { sync } = &mut envelope.report
        {
            *sync = Duration::from_micros(self.rng.around(1_500));
        }
        message
    }

    /// A hold runs beside the process, because it may wait; the rest is done in order.
    fn ask_gate(&mut self, at: usize, asked: Asked) -> Result<u64, Breach> {
        let (is_up, services) = (self.machines[at].gate.is_up(), asked.action.clone());
        match services {
            GateAction::Hold { .. } => {
                let life = self.machines[at].agent.life;
                let delay = self.rng.around(200);
                self.after(delay, Event::HoldArrives { at, asked, life });
                Ok(0)
            }
            GateAction::Open { colors, .. } => {
                if is_up {
                    self.machines[at].gate.ask(asked, self.now);
                    self.gate_changed(at)?;
                    self.look_at_both(at, colors.into_keys());
                }
                Ok(self.rng.around(500))
            }
            GateAction::Park { .. } => {
                self.machines[at].gate.ask(asked, self.now);
                self.gate_changed(at)?;
                Ok(self.rng.around(200))
            }
        }
    }

    /// Whoever opens and whoever does not: both are looked at right away.
    fn look_at_both(&mut self, at: usize, services: impl Iterator<Item = ServiceName>) {
        for service in services {
            let pause = self.rng.micros(0, 500);
            let probe = service.clone();
            self.after(pause, Event::Probe { at, service: probe });
            let other = self.rng.index(self.machines.len());
            let pause = self.rng.micros(500, 5_000);
            self.after(pause, Event::Probe { at: other, service });
        }
    }

    pub(crate) fn hold_arrives(&mut self, at: usize, mut asked: Asked, life: u64) -> Checked {
        let machine = &mut self.machines[at];
        if !machine.gate.is_up() {
            if let Some(event) = answers::event(&asked.action, Err("unreachable".to_owned())) {
                self.tell_agent(at, life, event);
            }
            return Ok(());
        }
        asked.is_forgotten = machine.agent.life != life;
        machine.gate.ask(asked, self.now);
        self.gate_changed(at)
    }

    /// Carries out what a change of the gate led to.
    pub(crate) fn gate_changed(&mut self, at: usize) -> Checked {
        self.tense_until = self.tense_until.max(self.now + 60_000);
        self.gate_settled(at)
    }

    pub(crate) fn gate_settled(&mut self, at: usize) -> Checked {
        let outputs = std::mem::take(&mut self.machines[at].gate.outputs);
        for output in outputs {
            self.trace.note(self.now, &output);
            match output {
                GateOutput::Wakes(requests) => {
                    for request in requests {
                        self.try_at_gate(request)?;
                    }
                }
                GateOutput::Answered {
                    event,
                    is_forgotten,
                } => self.gate_answers(at, event, is_forgotten),
                GateOutput::Flipped { service, to } => self.gate_flipped(at, &service, to)?,
                GateOutput::Expired { service, sheds } => {
                    self.stats.count("hold expired");
                    if sheds {
                        self.faults.begins_to_shed(at, service);
                    }
                }
                GateOutput::Deadline {
                    process,
                    generation,
                    after,
                } => {
                    let after = self.machines[at].gate_clock.takes(after);
                    let deadline = Event::GateDeadline {
                        at,
                        process,
                        generation,
                    };
                    self.after(after, deadline);
                    if self.rng.hits(self.profile.replaced_in_hold) {
                        let refused = 0;
                        let pause = self.rng.micros(0, 100_000);
                        self.after(pause, Event::ReplacementBegins { at, refused });
                    }
                }
                GateOutput::Budget {
                    process,
                    ticket,
                    after,
                } => {
                    let after = self.machines[at].gate_clock.takes(after);
                    let budget = Event::GateBudget {
                        at,
                        process,
                        ticket,
                    };
                    self.after(after, budget);
                }
                GateOutput::Writes { process, synced } => {
                    let takes = match synced {
                        true => self.sync_takes(),
                        false => self.rng.around(50),
                    };
                    self.after(takes, Event::GateWrites { at, process });
                    let flips = self.machines[at].gate.proxy.is_flipping(process);
                    if flips && self.rng.hits(self.profile.ends_in_flip) {
                        let within = self.rng.micros(0, takes);
                        self.after(within, Event::GateEnds { at, process });
                    }
                }
                GateOutput::Replicates(to) => self.replicates(at, to),
                GateOutput::ReplicationBudget {
                    process,
                    ticket,
                    after,
                } => {
                    let after = self.machines[at].gate_clock.takes(after);
                    let budget = Event::ReplicationBudget {
                        at,
                        process,
                        ticket,
                    };
                    self.after(after, budget);
                }
                GateOutput::HandsOver { is_refused } => self.hands_over(at, is_refused),
                GateOutput::Broken(what) => return breach(what),
            }
        }
        self.look_at_drains(at);
        Ok(())
    }

    fn gate_flipped(&mut self, at: usize, service: &ServiceName, to: Option<Epoch>) -> Checked {
        self.faults.gate_opened(at, service);
        let name = &self.machines[at].name;
        match to {
            Some(ordinal) => self.oracle.gate_opened(name, service, ordinal),
            None => self.oracle.gate_closed(name, service),
        }
    }

    /// A hold is answered later, because it may have waited; the rest is done in order.
    fn gate_answers(&mut self, at: usize, event: Option<AgentEvent>, is_forgotten: bool) {
        let life = self.machines[at].agent.life;
        match event {
            _ if is_forgotten => {}
            None => self.stats.count("gate refused to open or park"),
            Some(event @ (AgentEvent::GateHeld { .. } | AgentEvent::GateRefused { .. })) => {
                let delay = self.rng.around(200);
                self.after(delay, Event::ToAgent { at, life, event });
            }
            Some(event) => self.tell_agent(at, life, event),
        }
    }

    /// Whether the gate lets requests through to this slot.
    pub(crate) fn serves(&self, at: usize, slot: &greenlight_protocol::Slot) -> bool {
        self.machines[at].gate.serves(&slot.service, slot.color)
    }
}
