//! One instance as the model sees it: the real agent, what survives it, and what it drives.
//!
//! A step is one event and as many of its effects as are carried out before a crash. The effects
//! of one event touch this instance only, and messages; the messages already sent stay sent.
//!
//! Deliberately absent: time, and the requests themselves.

use super::faults::Faults;
use super::gate::Gate;
use super::message::canonical;
use super::past;
use super::step::{Reaches, Step, Taken, tokens_up_to};
use super::table::Node;
use super::world::agent::{Begun, at_hand, begin, is_stale};
use super::world::message::{Read, name};
use super::world::proxy::Admits;
use super::world::slots::{App, Slots};
use greenlight_protocol::agent::{Ledger, Promise, SlotState};
use greenlight_protocol::{
    Agent, AgentEffect, AgentEvent, AgentRecord, AgentTimer, Color, Directive, DirectiveEnvelope,
    Epoch, Incarnation, Mutant, PeerAnswer, Slot, Token,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What every machine calls itself. No decision depends on a name, so one table serves for all
/// instances, and names are translated where messages leave and arrive.
pub(crate) const ME: usize = 0;

/// One instance.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    mutant: Mutant,
    gate_may_end: bool,
    may_be_replaced: bool,
    pub(crate) agent: Option<Agent>,
    records: Vec<AgentRecord>,
    /// What the records say; two machines whose records say the same are the same.
    pub(crate) disk: Ledger,
    pub(crate) timers: BTreeMap<AgentTimer, Duration>,
    pub(crate) gate: Gate,
    /// Answers of the gate that the agent has yet to read.
    pub(crate) answers: BTreeSet<AgentEvent>,
    pub(crate) slots: Slots,
    listed: bool,
}

impl Node for Machine {
    /// What makes two machines the same; see [`super::message::without_reasons`].
    fn key(&self) -> String {
        super::message::without_reasons(&format!(
            "{:?}",
            (
                &self.agent,
                &self.disk,
                &self.timers,
                &self.gate,
                &self.answers,
                &self.slots,
                self.listed
            )
        ))
    }

    /// Everything that may happen here by itself, faults included.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.gate.held_for().is_some() {
            steps.push(match self.gate.is_closing() {
                true => Step::HoldIsRefused,
                false => Step::HoldExpires,
            });
        }
        steps.push(Step::GateRestarts);
        steps.extend((0..self.gate.waiting()).map(Step::NothingIsOnItsWay));
        steps.extend(self.steps_of_replacement());
        for (slot, app) in self.slots.iter() {
            // One that is being stopped ends by its stop.
            if !app.stopping {
                steps.push(Step::SlotDies(slot.color));
            }
        }
        let Some(agent) = &self.agent else {
            steps.push(Step::Restarts);
            // What was told to end ends, with nobody there to see it.
            let stopping = self.slots.iter().filter(|(_, app)| app.stopping);
            steps.extend(stopping.map(|(slot, _)| Step::StopEnds(slot.color)));
            return steps;
        };
        steps.push(Step::Crashes);
        if self.gate.keeps_agent_waiting() {
            return steps;
        }
        if self.gate.is_back() {
            steps.push(Step::GateIsNoticed);
        }
        if !self.listed {
            steps.push(Step::SlotsAreListed);
        }
        for number in 0..self.answers.len() {
            steps.push(Step::GateAnswers(number));
        }
        for (slot, incarnation, state) in agent.slots() {
            let Some(app) = self.slots.get(slot) else {
                continue;
            };
            if app.incarnation != incarnation {
                continue;
            }
            let color = slot.color;
            match state {
                SlotState::Starting => {
                    steps.extend([Step::CheckPasses(color), Step::CheckFails(color)]);
                }
                SlotState::Ready => steps.push(Step::CheckFails(color)),
                SlotState::Unhealthy => steps.push(Step::CheckPasses(color)),
                SlotState::Stopping if app.stopping => steps.push(Step::StopEnds(color)),
                SlotState::Stopping => {}
            }
        }
        steps.extend(self.timers.keys().map(|timer| Step::AgentTimer(*timer)));
        steps
    }

    /// G6: whether a stale directive would change anything, sent or not; and whether the gate would
    /// break a rule of its own.
    fn flaw(&self) -> Option<&'static str> {
        if let Some(flaw) = super::demands::flaw(self.gate.control()) {
            return Some(flaw);
        }
        let agent = self.agent.as_ref()?;
        let newest = at_hand(agent).max(self.disk.latest_decided());
        let directives = |token: Token| {
            let cut_over = past::cut_over(token.epoch, 2);
            [
                Directive::Prepare(Box::new(cut_over)),
                Directive::Arm,
                Directive::Hold,
                Directive::Switch,
                Directive::Abort,
                Directive::Retire,
            ]
            .map(|directive| AgentEvent::Directed(DirectiveEnvelope { token, directive }))
        };
        tokens_up_to(agent.term(), newest.next())
            .flat_map(directives)
            .filter(|event| is_stale(agent, event))
            .any(|event| {
                let mut after = agent.clone();
                let effects = after.handle(event);
                let reports_only = effects
                    .iter()
                    .all(|effect| matches!(effect, AgentEffect::Report(_)));
                !reports_only || after != *agent
            })
            .then_some("G6: a stale directive is obeyed")
    }

    /// Takes a step: the complete one first, then the ones that a crash cuts short.
    fn take(&self, step: &Step) -> Vec<Taken<Self>> {
        let mut next = self.clone();
        let events = match step {
            Step::Crashes => {
                next.crash();
                let crashed = Taken::of(next);
                return vec![Taken {
                    crashes: true,
                    ..crashed
                }];
            }
            Step::HoldExpires | Step::HoldIsRefused => {
                return self.at_gate(Taken::deadline_passes);
            }
            Step::NothingIsOnItsWay(n) => return self.at_gate(|taken| taken.wait_is_over(*n)),
            Step::FollowerExpires => return self.at_gate(Taken::follower_deadline_passes),
            Step::ProxyIsReplaced => return self.at_gate(Taken::proxy_is_replaced),
            Step::SuccessorLeads => return self.at_gate(Taken::successor_leads),
            Step::SuccessorFails => return self.at_gate(Taken::successor_fails),
            Step::ReplicationArrives => return self.at_gate(Taken::replication_arrives),
            Step::FollowerLeaves => return self.at_gate(Taken::follower_leaves),
            Step::GateRestarts => {
                let mut taken = Taken::of(next);
                taken.gate_restarts();
                return vec![taken];
            }
            Step::Restarts => return self.restart(),
            Step::GateIsNoticed => {
                next.gate.is_noticed();
                vec![AgentEvent::GateConnected]
            }
            Step::GateAnswers(number) => {
                let event = self.answers.iter().nth(*number).cloned();
                let event = event.expect("the step was offered");
                next.answers.remove(&event);
                vec![event]
            }
            Step::CheckPasses(color) => next.slots.passes(&slot(*color)).into_iter().collect(),
            Step::CheckFails(color) => next.slots.fails(&slot(*color), "").into_iter().collect(),
            Step::StopEnds(color) => {
                next.gate.loses(*color);
                vec![next.slots.stopped(&slot(*color))]
            }
            Step::SlotDies(color) => {
                next.gate.loses(*color);
                let died = next.slots.dies(&slot(*color), "");
                died.into_iter().map(|(_, event)| event).collect()
            }
            Step::SlotsAreListed => next.list(),
            Step::AgentTimer(timer) => {
                next.timers.remove(timer);
                vec![AgentEvent::TimerFired(*timer)]
            }
            // It stays on its way.
            Step::Reads(_) | Step::Connects if self.gate.keeps_agent_waiting() => Vec::new(),
            Step::Connects => vec![AgentEvent::Connected],
            Step::Reads(message) => match message.clone().read() {
                Read::Agent(_, event) => vec![event],
                Read::Coordinator(_) => unreachable!("reports are for the coordinator"),
            },
            Step::CoordinatorTimer(_)
            | Step::SeesConnection(_)
            | Step::PersonAborts
            | Step::PersonDeploys => {
                unreachable!("these are the coordinator's")
            }
        };
        next.tell(events)
    }
}

impl Machine {
    /// An instance as its records describe it, its agent not yet started.
    pub(crate) fn with(records: Vec<AgentRecord>, faults: Faults) -> Self {
        let mut disk = Ledger::default();
        for record in &records {
            disk.apply(record);
        }
        let live = disk.live.get(&"shop".into());
        let admits = live.map(|live| Admits {
            color: live.color,
            ordinal: live.epoch,
        });
        let mut slots = Slots::default();
        if let Some(live) = live {
            let incarnation = Incarnation {
                epoch: live.epoch,
                attempt: 0,
            };
            let mut app = App::new(incarnation, live.release.digest.clone(), ());
            app.passed = true;
            slots.start(slot(live.color), app);
        }
        Self {
            mutant: faults.mutant,
            gate_may_end: faults.gate_failures > 0,
            may_be_replaced: faults.replacements > 0,
            agent: None,
            records,
            timers: BTreeMap::new(),
            gate: Gate::open_to(admits, faults.gate_mutant),
            answers: BTreeSet::new(),
            slots,
            listed: false,
            disk,
        }
    }

    /// The instance some time after its start, when nothing is left to be done.
    pub(crate) fn settled(mut self) -> Self {
        let prompt = |machine: &Self| machine.steps().into_iter().find(Step::is_prompt);
        while let Some(step) = prompt(&self) {
            self = self.take(&step).remove(0).node;
        }
        self
    }

    /// What may happen because the proxy is being replaced.
    fn steps_of_replacement(&self) -> Vec<Step> {
        let gate = &self.gate;
        let may_be_replaced = self.may_be_replaced && !gate.has_follower();
        [
            (
                may_be_replaced && !gate.is_handing_over(),
                Step::ProxyIsReplaced,
            ),
            (gate.is_handing_over(), Step::SuccessorLeads),
            (gate.is_handing_over(), Step::SuccessorFails),
            (gate.replicates(), Step::ReplicationArrives),
            (gate.has_follower(), Step::FollowerLeaves),
            (gate.left_held_for().is_some(), Step::FollowerExpires),
        ]
        .into_iter()
        .filter_map(|(may_happen, step)| may_happen.then_some(step))
        .collect()
    }

    fn list(&mut self) -> Vec<AgentEvent> {
        self.listed = true;
        self.slots.found()
    }

    fn restart(&self) -> Vec<Taken<Self>> {
        let mut next = self.clone();
        let (agent, effects) = Agent::recover_with(name(ME), &self.records, self.mutant);
        next.agent = Some(agent);
        next.listed = false;
        next.carry_out(&effects)
    }

    /// Gives the agent events, if it runs, and carries out what follows.
    fn tell(mut self, events: Vec<AgentEvent>) -> Vec<Taken<Self>> {
        let Some(mut agent) = self.agent.take() else {
            return vec![Taken::of(self)];
        };
        let mut effects = Vec::new();
        for event in events {
            effects.extend(agent.handle(event));
        }
        self.agent = Some(agent);
        self.carry_out(&effects)
    }

    /// All effects, and then every beginning of them that a crash may leave. Where the agent has not
    /// noticed that the gate has restarted, the gate may also have been away all the while.
    fn carry_out(&self, effects: &[AgentEffect]) -> Vec<Taken<Self>> {
        let mut taken = self.carry_out_with(effects, Reaches::Yes);
        let tells_gate = |effect: &AgentEffect| matches!(effect, AgentEffect::Gate(_));
        if self.gate.is_back() && effects.iter().any(tells_gate) {
            taken.extend(self.carry_out_with(effects, Reaches::No));
        }
        taken
    }

    fn carry_out_with(&self, effects: &[AgentEffect], reaches_gate: Reaches) -> Vec<Taken<Self>> {
        let begin = || Taken {
            reaches_gate,
            ..Taken::of(self.clone())
        };
        let carry_out = |mut taken: Taken<Self>, effects: &[AgentEffect]| {
            taken.carry_out(effects);
            taken
        };
        let mut complete = carry_out(begin(), effects);
        complete.node.forget_idle_timers();
        let beginnings = (0..=effects.len()).map(|count| {
            let mut cut_short = carry_out(begin(), &effects[..count]);
            cut_short.node.crash();
            cut_short
        });
        let beginnings: Vec<_> = beginnings.collect();
        let at_gate = self.gate_ends_within(&complete, |count| {
            let ends_in = Taken {
                gate_ends_in: Some(count),
                ..begin()
            };
            let mut taken = carry_out(ends_in, effects);
            taken.node.forget_idle_timers();
            taken
        });
        let mut taken = Taken::with_crashes(complete, beginnings.into_iter());
        taken.extend(at_gate);
        taken
    }

    /// Something happens at the gate alone. What it says of a hold, the agent reads at once: a hold
    /// may take as long as it likes, and with it its answer.
    fn at_gate(&self, happens: impl Fn(&mut Taken<Self>)) -> Vec<Taken<Self>> {
        let mut complete = Taken::of(self.clone());
        happens(&mut complete);
        complete.check_serving();
        let cut_short = self.gate_ends_within(&complete, |count| {
            let mut taken = Taken::of(self.clone());
            taken.gate_ends_in = Some(count);
            happens(&mut taken);
            taken
        });
        let taken = [complete].into_iter().chain(cut_short);
        taken.flat_map(Taken::reads_of_hold).collect()
    }

    /// The gate's process may end between any two of its own effects.
    fn gate_ends_within(
        &self,
        complete: &Taken<Self>,
        ends_in: impl Fn(usize) -> Taken<Self>,
    ) -> Vec<Taken<Self>> {
        let ends = match self.gate_may_end {
            true => complete.gate_effects,
            false => 0,
        };
        let mut different: Vec<(String, Taken<Self>)> = Vec::new();
        for taken in (0..ends).map(ends_in) {
            let key = taken.node.key();
            if !different.iter().any(|(known, _)| *known == key) {
                different.push((key, taken));
            }
        }
        different.into_iter().map(|(_, taken)| taken).collect()
    }
}

impl Taken<Machine> {
    /// The agent reads what the gate has said of a hold.
    fn reads_of_hold(mut self) -> Vec<Self> {
        let read: Vec<_> = self
            .node
            .answers
            .extract_if(.., |answer| {
                matches!(
                    answer,
                    AgentEvent::GateHeld { .. } | AgentEvent::GateRefused { .. }
                )
            })
            .collect();
        if read.is_empty() {
            return vec![self];
        }
        let taken = self.node.tell(read).into_iter();
        taken
            .map(|taken| Self {
                fault: taken.fault.or(self.fault),
                breach: self.breach.or(taken.breach),
                opened: self.opened.max(taken.opened),
                ..taken
            })
            .collect()
    }

    fn carry_out(&mut self, effects: &[AgentEffect]) {
        for effect in effects {
            let agent = self.node.agent.as_ref().expect("effects are an agent's");
            match begin(ME, agent, effect.clone()) {
                Ok(begun) => self.begins(begun),
                Err(breach) => self.breach = Some(breach),
            }
        }
        self.check_serving();
    }

    /// What takes time is begun here, and ends in a step of its own.
    fn begins(&mut self, begun: Begun) {
        match begun {
            Begun::Write(record) => {
                self.node.disk.apply(&record);
                self.node.records.push(record);
                self.node.normalize_gate();
            }
            Begun::Send(message) => self.sent.push(canonical(message)),
            Begun::Ask(asked) => self.ask(asked),
            Begun::Start {
                slot,
                incarnation,
                release,
                ..
            } => {
                let app = App::new(incarnation, release.digest, ());
                if !self.node.slots.start(slot, app) {
                    self.breach = Some("a taken slot was started");
                }
            }
            Begun::Stop { slot, .. } => self.stop(&slot),
            // No policy of the model asks for these.
            Begun::CheckPeers { .. } | Begun::RunBeforeSwitch(_) => {}
            Begun::SetTimer { timer, after } => {
                let timer = match timer {
                    // As if it had lasted long: peers are asked as well.
                    AgentTimer::QueryDecision { epoch, .. } => AgentTimer::QueryDecision {
                        epoch,
                        asked: u8::MAX,
                    },
                    AgentTimer::Restart => AgentTimer::Restart,
                };
                self.node.timers.insert(timer, after);
            }
        }
    }
}

impl Machine {
    /// Drops the timers that would change nothing: a state with them is no other state.
    fn forget_idle_timers(&mut self) {
        let Some(agent) = &self.agent else {
            return;
        };
        self.timers.retain(|timer, _| {
            let mut after = agent.clone();
            let effects = after.handle(AgentEvent::TimerFired(*timer));
            !effects.is_empty() || after != *agent
        });
        for epoch in [1, 2, 3].map(Epoch) {
            let answer = PeerAnswer::Unknown;
            let mut after = agent.clone();
            let effects = after.handle(AgentEvent::PeerAnswered { epoch, answer });
            assert!(
                effects.is_empty() && after == *agent,
                "an empty answer did something"
            );
        }
    }

    /// The newest cut-over of which no command can come any more but to open what it has decided.
    pub(crate) fn over(&self) -> Epoch {
        let decided = self.disk.latest_decided();
        match &self.disk.promise {
            // A later one was aborted before it came here.
            Promise::Prepared(cut_over) | Promise::Armed(cut_over) => {
                decided.min(Epoch(cut_over.epoch.0 - 1))
            }
            Promise::None => decided,
        }
    }

    pub(crate) fn normalize_gate(&mut self) {
        let over = self.over();
        self.gate.normalize(over);
        let Some(agent) = &self.agent else { return };
        // That a hold is refused which is over does nothing.
        self.answers.retain(|answer| {
            let is_dead = matches!(answer, AgentEvent::GateRefused { epoch, .. } if *epoch <= over);
            if is_dead {
                let mut after = agent.clone();
                let effects = after.handle(answer.clone());
                assert!(
                    effects.is_empty() && after == *agent,
                    "{answer:?} did something"
                );
            }
            !is_dead
        });
    }

    fn crash(&mut self) {
        self.agent = None;
        self.timers.clear();
        self.answers.clear();
        self.gate.forget_who_asked();
        self.listed = false;
    }
}

pub(crate) fn slot(color: Color) -> Slot {
    Slot {
        service: "shop".into(),
        color,
    }
}
