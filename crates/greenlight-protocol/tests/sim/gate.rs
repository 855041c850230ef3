//! The proxy of one instance: a shell of the real control, with requests, a file and a clock that
//! are simulated.
//!
//! Each write takes its time, and while it lasts requests go on and orders wait, as in the proxy,
//! whose admin thread it blocks. So a process may end between the flip of a gate and its record.
//!
//! What the gate must do for the protocol (`docs/design/testing.md`) is checked here by what happened:
//! `seen` is what the run has seen of each service, whatever the control believes.
//!
//! In one file, because what the run has seen is checked where the control's effects are carried
//! out.
//!
//! Deliberately absent: connections, bytes, threads. A request has three moments here: it is
//! claimed, it is being admitted, it is written.

use crate::world::answers;
use crate::world::proxy::{Asked, Did, ProcessId, Proxy};
use greenlight_gate::{
    Awaited, Counts, CountsByService, Durability, GateMutant, Mode, Route as Word, Ticket,
};
use greenlight_protocol::{
    AgentEvent, Color, Epoch, GateAction, OnUncertain, ServiceEvidence, ServiceName,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Number of a request.
pub(crate) type RequestId = u64;

/// What a gate admits to, and which cut-over made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Admits {
    pub(crate) color: Color,
    /// The cut-over that made live what is there.
    pub(crate) ordinal: Epoch,
    /// The hold whose deadline has reopened the gate without a decision.
    pub(crate) expired: Option<Epoch>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    #[default]
    Closed,
    Open(Admits),
    Held(Option<Admits>),
    Shed(Option<Admits>),
}

impl Route {
    /// What it admits to, or did before it was held.
    pub(crate) fn served(self) -> Option<Admits> {
        match self {
            Self::Closed => None,
            Self::Open(admits) => Some(admits),
            Self::Held(admits) | Self::Shed(admits) => admits,
        }
    }
}

/// The gate of one service in one process.
#[derive(Clone, Debug, Default)]
struct ServiceGate {
    /// Grows with every change of the route.
    generation: u64,
    in_flight: [u64; 2],
    admitting: [u64; 2],
    waiting: Vec<RequestId>,
    counts: Counts,
}

/// What a run has seen of a service's gate, over all its processes.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Whether it was ever opened or parked.
    was_used: bool,
    is_parked: bool,
    /// The newest cut-over of a command that was obeyed, and of an opening.
    obeyed: Epoch,
    opened: Epoch,
    /// When the hold that is on ends at the latest.
    hold_ends: Option<u64>,
    /// Cut-overs whose hold has expired.
    expired: BTreeSet<Epoch>,
    /// Whether its process has ended after it noted an opening, and it was not opened since: it
    /// may serve neither color.
    is_in_doubt: bool,
}

/// What the gate makes happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum GateOutput {
    /// These look at the gate again.
    Wakes(Vec<RequestId>),
    /// To the agent, if it is still the one that asked; nothing is told of a refused opening.
    Answered {
        event: Option<AgentEvent>,
        is_forgotten: bool,
    },
    /// The gate has flipped.
    Flipped {
        service: ServiceName,
        to: Option<Epoch>,
    },
    /// A deadline has ended a hold.
    Expired { service: ServiceName, sheds: bool },
    /// A deadline passes after this.
    Deadline {
        process: ProcessId,
        generation: u64,
        after: Duration,
    },
    /// The time for an exclusive hold is over after this.
    Budget {
        process: ProcessId,
        ticket: u64,
        after: Duration,
    },
    /// A write takes as long as it takes.
    Writes { process: ProcessId, synced: bool },
    /// A replication is on its way to each of these.
    Replicates(BTreeSet<ProcessId>),
    /// A command waits for followers for this long.
    ReplicationBudget {
        process: ProcessId,
        ticket: u64,
        after: Duration,
    },
    /// A successor was given everything, or refused.
    HandsOver { is_refused: bool },
    /// A rule on gates is broken.
    Broken(String),
}

/// The gates of one process.
#[derive(Debug, Default)]
struct Gates {
    services: BTreeMap<ServiceName, ServiceGate>,
    /// Whether the last write failed: a restart finds what was written before it.
    is_behind: bool,
    /// Of a follower: when what it holds ends at the latest by its own deadline.
    hold_ends: Option<u64>,
}

/// The proxies of an instance, with what their requests count.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) proxy: Proxy,
    pub(crate) outputs: Vec<GateOutput>,
    /// How often the present successor has asked for everything.
    pub(crate) asked_to_hand_over: u32,
    gates: BTreeMap<ProcessId, Gates>,
    seen: BTreeMap<ServiceName, Seen>,
}

impl Gate {
    pub(crate) fn new(mutant: GateMutant) -> Self {
        Self {
            proxy: Proxy::new(mutant),
            outputs: Vec::new(),
            asked_to_hand_over: 0,
            gates: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    pub(crate) fn leader(&self) -> Option<ProcessId> {
        self.proxy.leader()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.leader().is_some()
    }

    /// A process comes up with what the file has.
    pub(crate) fn start(&mut self, now: u64) {
        let mut gates = Gates::default();
        for (name, state) in &self.proxy.file.written.services {
            let mut gate = ServiceGate::default();
            if let Some(seen) = &state.evidence {
                gate.counts.held = seen.held;
                gate.counts.shed = seen.shed;
            }
            let name = ServiceName(name.clone());
            if let Some(deadline) = state.mode.deadline() {
                let seen = self.seen.entry(name.clone()).or_default();
                seen.hold_ends = Some(now + latest(deadline.max_hold_ms));
            }
            gates.services.insert(name, gate);
        }
        let id = self.proxy.start();
        self.gates.insert(id, gates);
        self.goes_on(now);
    }

    /// A successor asks the process that leads for everything.
    pub(crate) fn replace(&mut self, now: u64) {
        self.proxy.replace();
        self.goes_on(now);
    }

    /// The successor leads.
    pub(crate) fn successor_leads(&mut self, now: u64) {
        let Some(predecessor) = self.leader() else {
            return;
        };
        let Some(id) = self.proxy.successor_leads() else {
            return;
        };
        self.gates.insert(id, Gates::default());
        for (service, before) in self.routes(predecessor).collect::<Vec<_>>() {
            self.gate(id, &service);
            let after = self.route(id, &service);
            let is_parked = self.seen.get(&service).is_some_and(|seen| seen.is_parked);
            if is_parked && matches!(after, Some(Route::Open(_))) {
                self.broken(format!("`{service}` is parked, and a successor let it go"));
            }
            if after != Some(before) {
                self.broken(format!(
                    "`{service}` is {before:?}, of its successor {after:?}"
                ));
            }
        }
        self.goes_on(now);
    }

    /// The successor dies before it leads.
    pub(crate) fn successor_fails(&mut self, now: u64) {
        self.proxy.successor_fails();
        self.goes_on(now);
    }

    pub(crate) fn replication_arrives(&mut self, to: ProcessId, now: u64) {
        self.proxy.replication_arrives(to);
        self.goes_on(now);
    }

    pub(crate) fn replication_is_overdue(&mut self, id: ProcessId, ticket: u64, now: u64) {
        self.proxy.replication_is_overdue(id, Ticket(ticket));
        self.goes_on(now);
    }

    /// A follower has no connections left.
    pub(crate) fn follower_leaves(&mut self, id: ProcessId, now: u64) {
        if let Some(gates) = self.gates.remove(&id) {
            self.proxy.follower_leaves(id, &gates.counts());
            self.goes_on(now);
        }
    }

    /// The process is gone; with the machine, so is what was not synced. What was being written
    /// is there or not. Says whether a gate had flipped whose record was not yet written.
    pub(crate) fn end(&mut self, id: ProcessId, with_machine: bool, write_is_done: bool) -> bool {
        let was_writing = self.proxy.is_writing(id);
        let (Some(ended), Some(gates)) =
            (self.proxy.end(id, write_is_done), self.gates.remove(&id))
        else {
            return false;
        };
        if gates.is_behind || (was_writing && !write_is_done) {
            for seen in self.seen.values_mut() {
                seen.expired.clear();
            }
        }
        for asked in ended.unanswered {
            let reason = "the connection broke".to_owned();
            if let Some(event) = answers::event(&asked.action, Err(reason)) {
                self.outputs.push(GateOutput::Answered {
                    event: Some(event),
                    is_forgotten: asked.is_forgotten,
                });
            }
        }
        for (name, state) in &self.proxy.file.written.services {
            if matches!(state.mode, Mode::Opening { .. }) {
                let seen = self.seen.entry(ServiceName(name.clone())).or_default();
                seen.is_in_doubt = true;
            }
        }
        if with_machine {
            self.proxy.file.written = self.proxy.file.synced.clone();
            for seen in self.seen.values_mut() {
                seen.is_parked = false;
                seen.expired.clear();
                seen.hold_ends = None;
                // It obeys again what it has forgotten.
                seen.obeyed = Epoch(0);
                seen.opened = Epoch(0);
            }
        }
        ended.was_flipping
    }

    /// What a process would do with requests when it starts.
    pub(crate) fn routes_in_file(&self) -> impl Iterator<Item = (ServiceName, Word)> {
        let kept = self.proxy.file.written.services.iter();
        kept.map(|(name, state)| (ServiceName(name.clone()), state.mode.route()))
    }

    /// What was being written is written, or could not be.
    pub(crate) fn writes(&mut self, id: ProcessId, result: Result<(), String>, now: u64) {
        if !self.proxy.is_writing(id) {
            return;
        }
        if let Some(gates) = self.gates.get_mut(&id) {
            gates.is_behind = result.is_err();
        }
        self.proxy.writes(id, result);
        self.goes_on(now);
    }

    /// Makes a service known.
    pub(crate) fn define(&mut self, service: &ServiceName, now: u64) {
        self.proxy.define(service);
        self.goes_on(now);
    }

    /// A command of an agent.
    pub(crate) fn ask(&mut self, asked: Asked, now: u64) {
        self.proxy.ask(asked);
        self.goes_on(now);
    }

    pub(crate) fn deadline_passes(&mut self, id: ProcessId, generation: u64, now: u64) {
        self.proxy.deadline_passes(id, generation);
        self.goes_on(now);
    }

    pub(crate) fn budget_is_over(&mut self, id: ProcessId, ticket: u64, now: u64) {
        self.proxy.wait_is_over(id, Ticket(ticket), false);
        self.goes_on(now);
    }

    /// What a gate does with requests, if the process knows the service.
    pub(crate) fn route(&self, id: ProcessId, service: &ServiceName) -> Option<Route> {
        let word = self.proxy.route(id, service)?;
        let expired = match self.proxy.mode(id, service) {
            Some(Mode::Expired { .. }) => Some(self.epoch(id, service)),
            _ => None,
        };
        let admits = |color: Color| Admits {
            color,
            ordinal: self.proxy.admits(service, color).ordinal,
            expired,
        };
        Some(match word {
            Word::Closed => Route::Closed,
            Word::Open(color) => Route::Open(admits(color)),
            Word::Held(color) => Route::Held(color.map(admits)),
            Word::Shed(color) => Route::Shed(color.map(admits)),
        })
    }

    /// What each gate of a process does with requests.
    pub(crate) fn routes(&self, id: ProcessId) -> impl Iterator<Item = (ServiceName, Route)> {
        let process = self.proxy.process(id).into_iter();
        let names = process.flat_map(|process| process.routes.keys());
        names.filter_map(move |name| {
            let service = ServiceName(name.clone());
            let route = self.route(id, &service)?;
            Some((service, route))
        })
    }

    /// Which change of its route a gate is at.
    pub(crate) fn generation(&self, id: ProcessId, service: &ServiceName) -> u64 {
        self.known(id, service).map_or(0, |gate| gate.generation)
    }

    /// A request takes a place in flight.
    pub(crate) fn claim(&mut self, id: ProcessId, service: &ServiceName, color: Color) {
        self.gate(id, service).in_flight[index(color)] += 1;
    }

    /// A request gives its place back.
    pub(crate) fn release(&mut self, id: ProcessId, service: &ServiceName, color: Color, now: u64) {
        self.gate(id, service).in_flight[index(color)] -= 1;
        self.goes_on(now);
    }

    /// The moment before its first byte.
    pub(crate) fn begin_admitting(&mut self, id: ProcessId, service: &ServiceName, color: Color) {
        self.gate(id, service).admitting[index(color)] += 1;
    }

    /// Its first byte is written.
    pub(crate) fn admitted(
        &mut self,
        id: ProcessId,
        service: &ServiceName,
        admits: Admits,
        now: u64,
    ) {
        let at = nanos(now);
        let counts = &mut self.gate(id, service).counts;
        let color = match admits.color {
            Color::Blue => &mut counts.blue,
            Color::Green => &mut counts.green,
        };
        color.admitted += 1;
        color.last_admission_ns = Some(at);
        color.first_admission_ns.get_or_insert(at);
        if let Some(epoch) = admits.expired
            && matches!(self.proxy.mode(id, service), Some(Mode::Expired { .. }))
        {
            // What was admitted against G1 must be in the evidence from now on.
            let seen = self.evidence(id, service, epoch);
            let is_told =
                seen.is_none_or(|seen| seen.expired && seen.last_admission_old_ns == Some(at));
            if !is_told {
                self.broken(format!(
                    "`{service}`: an admission after the hold of {epoch} had expired is not told"
                ));
            }
        }
        self.end_admitting(id, service, admits.color, now);
    }

    pub(crate) fn end_admitting(
        &mut self,
        id: ProcessId,
        service: &ServiceName,
        color: Color,
        now: u64,
    ) {
        self.gate(id, service).admitting[index(color)] -= 1;
        self.goes_on(now);
    }

    pub(crate) fn wait(
        &mut self,
        id: ProcessId,
        service: &ServiceName,
        request: RequestId,
        now: u64,
    ) {
        self.gate(id, service).waiting.push(request);
        let seen = self.seen.entry(service.clone()).or_default();
        if !seen.was_used {
            return self.broken(format!("`{service}` was never opened, and a request waits"));
        }
        let ends = match self.proxy.leader() == Some(id) {
            true => seen.hold_ends,
            false => self.gates.get(&id).and_then(|gates| gates.hold_ends),
        };
        let is_held = matches!(self.proxy.mode(id, service), Some(Mode::Held { .. }));
        if is_held && !self.proxy.is_writing(id) && ends.is_none_or(|ends| now > ends) {
            self.broken(format!("the hold of `{service}` outlives its deadline"));
        }
    }

    /// What is in flight to a color, in all processes.
    pub(crate) fn in_flight(&self, service: &ServiceName, color: Color) -> u64 {
        let processes = self.gates.values();
        let gates = processes.filter_map(|gates| gates.services.get(service));
        gates.map(|gate| gate.in_flight[index(color)]).sum()
    }

    /// Whether a process lets requests through to a color.
    pub(crate) fn serves(&self, service: &ServiceName, color: Color) -> bool {
        let mut processes = self.gates.keys();
        processes.any(|id| self.proxy.route(*id, service) == Some(Word::Open(color)))
    }

    pub(crate) fn is_unsettled(&self) -> bool {
        self.does(|route| matches!(route, Word::Held(_) | Word::Shed(_)))
    }

    /// Whether a gate of any process does this.
    pub(crate) fn does(&self, what: impl Fn(Word) -> bool) -> bool {
        let processes = self.gates.keys().filter_map(|id| self.proxy.process(*id));
        let mut routes = processes.flat_map(|process| process.routes.values());
        routes.any(|route| what(*route))
    }

    /// Carries out what can be carried out now.
    fn goes_on(&mut self, now: u64) {
        loop {
            let gates = &self.gates;
            let counts = |id: ProcessId| gates.get(&id).map(Gates::counts).unwrap_or_default();
            if let Some((id, did)) = self.proxy.next(nanos(now), counts) {
                self.did(id, did, now);
            } else if !self.settle() {
                return;
            }
        }
    }

    fn did(&mut self, id: ProcessId, did: Did, now: u64) {
        match did {
            Did::ResetCounters(service) => self.gate(id, &service).counts.reset_totals(),
            Did::CountedExpiry(service) => self.has_expired(id, &service),
            Did::Routed {
                service,
                route,
                asked,
                opened,
            } => {
                self.routed(&service, route, asked.as_ref());
                if let Some(to) = opened {
                    self.flipped(&service, to.map(|to| to.ordinal));
                }
                self.wakes(id, &service, route);
            }
            Did::ServicesSet => {
                let process = self.proxy.process(id);
                let names = process
                    .into_iter()
                    .flat_map(|process| process.routes.keys());
                for name in names.cloned().collect::<Vec<_>>() {
                    self.gate(id, &ServiceName(name));
                }
            }
            Did::Armed {
                generation,
                after_ms,
                asked,
            } => {
                if let Some(GateAction::Hold { services, .. }) = asked.map(|asked| asked.action) {
                    for service in services {
                        let seen = self.seen.entry(service).or_default();
                        seen.hold_ends = Some(now + latest(after_ms));
                    }
                } else if let Some(gates) = self.gates.get_mut(&id) {
                    gates.hold_ends = Some(now + latest(after_ms));
                }
                self.outputs.push(GateOutput::Deadline {
                    process: id,
                    generation,
                    after: Duration::from_millis(after_ms),
                });
            }
            Did::Writes(durability) => self.outputs.push(GateOutput::Writes {
                process: id,
                synced: durability == Durability::Disk,
            }),
            Did::Waits { ticket, what } => {
                if let Awaited::NoRequests { within_ms, .. } = what {
                    self.outputs.push(GateOutput::Budget {
                        process: id,
                        ticket: ticket.0,
                        after: Duration::from_millis(within_ms),
                    });
                }
            }
            Did::Answered(asked, answer) => {
                let answer = answer.map(drop).map_err(|refusal| refusal.to_string());
                if answer.is_ok() {
                    self.obeyed(id, &asked);
                }
                self.outputs.push(GateOutput::Answered {
                    event: answers::event(&asked.action, answer),
                    is_forgotten: asked.is_forgotten,
                });
            }
            Did::Replicates { to, limit } => {
                self.outputs.push(GateOutput::Replicates(to));
                if let Some((ticket, limit_ms)) = limit {
                    self.outputs.push(GateOutput::ReplicationBudget {
                        process: id,
                        ticket: ticket.0,
                        after: Duration::from_millis(limit_ms),
                    });
                }
            }
            Did::HandsOver(answer) => {
                let is_refused = answer.is_err();
                self.outputs.push(GateOutput::HandsOver { is_refused });
            }
            Did::AnsweredOther => {}
        }
    }

    /// A gate does something else: on a command, or because a hold has ended.
    fn routed(&mut self, service: &ServiceName, route: Word, asked: Option<&Asked>) {
        let action = asked.map(|asked| &asked.action);
        let is_opening = matches!(action, Some(GateAction::Open { .. }));
        let seen = self.seen.entry(service.clone()).or_default();
        seen.was_used |= matches!(action, Some(GateAction::Park { .. }));
        if seen.is_parked && !is_opening && matches!(route, Word::Open(_)) {
            self.broken(format!("`{service}` is parked and was let go unasked"));
        }
    }

    fn flipped(&mut self, service: &ServiceName, to: Option<Epoch>) {
        let seen = self.seen.entry(service.clone()).or_default();
        seen.was_used = true;
        // Its process may end before it answers.
        seen.is_parked = false;
        seen.is_in_doubt = false;
        let service = service.clone();
        self.outputs.push(GateOutput::Flipped { service, to });
    }

    fn wakes(&mut self, id: ProcessId, service: &ServiceName, route: Word) {
        let gate = self.gate(id, service);
        gate.generation += 1;
        if let Word::Open(color) = route {
            gate.counts.opened(color);
        }
        let woken = std::mem::take(&mut gate.waiting);
        if !woken.is_empty() {
            self.outputs.push(GateOutput::Wakes(woken));
        }
    }

    fn has_expired(&mut self, id: ProcessId, service: &ServiceName) {
        self.gate(id, service).counts.expired += 1;
        let epoch = self.epoch(id, service);
        let mode = self.proxy.mode(id, service);
        let is_leader = self.leader() == Some(id);
        let seen = self.seen.entry(service.clone()).or_default();
        if is_leader {
            seen.expired.insert(epoch);
            seen.hold_ends = None;
        }
        let sheds = match mode {
            Some(Mode::Expired { then, .. }) => then == OnUncertain::Shed,
            _ => seen.is_in_doubt,
        };
        let service = service.clone();
        self.outputs.push(GateOutput::Expired { service, sheds });
    }

    /// G6, and that an expiry does not cease to be told.
    fn obeyed(&mut self, id: ProcessId, asked: &Asked) {
        let (epoch, services): (_, Vec<_>) = match &asked.action {
            GateAction::Hold {
                epoch, services, ..
            }
            | GateAction::Park { epoch, services } => (*epoch, services.iter().cloned().collect()),
            GateAction::Open { epoch, colors } => (*epoch, colors.keys().cloned().collect()),
        };
        let is_hold = matches!(asked.action, GateAction::Hold { .. });
        // An answer that has waited for a follower tells of what newer commands have changed since.
        let is_newest = |service: &ServiceName| self.epoch(id, service) <= epoch;
        let services: Vec<_> = services.into_iter().filter(is_newest).collect();
        for service in &services {
            let seen = self.seen.entry(service.clone()).or_default();
            if epoch < seen.obeyed || (is_hold && epoch <= seen.opened && seen.opened.0 > 0) {
                let last = seen.obeyed.max(seen.opened);
                let text = format!("G6: `{service}` obeyed a command of {epoch} after {last}");
                return self.broken(text);
            }
            seen.obeyed = epoch;
            let has_expired = seen.expired.contains(&epoch);
            let seen = self.evidence(id, service, epoch);
            if has_expired && seen.is_some_and(|seen| !seen.expired) {
                let text = format!("`{service}`: that the hold of {epoch} expired is not told");
                return self.broken(text);
            }
        }
        for service in &services {
            match asked.action {
                GateAction::Hold { .. } => {}
                GateAction::Open { .. } => {
                    // It was open to this already.
                    if !asked.has_flipped {
                        let to = asked.targets.get(service).copied().flatten();
                        self.flipped(service, to.map(|to| to.ordinal));
                    }
                    let seen = self.seen.entry(service.clone()).or_default();
                    seen.opened = epoch;
                    seen.is_parked = false;
                    seen.hold_ends = None;
                }
                GateAction::Park { .. } => {
                    if self.proxy.mode(id, service).is_some_and(Mode::is_parked) {
                        let seen = self.seen.entry(service.clone()).or_default();
                        seen.is_parked = true;
                    }
                }
            }
        }
    }

    fn evidence(
        &self,
        id: ProcessId,
        service: &ServiceName,
        epoch: Epoch,
    ) -> Option<ServiceEvidence> {
        let control = &self.proxy.process(id)?.control;
        let counts = self.gates.get(&id)?.counts();
        control.evidence(epoch.0, &counts, None).remove(&service.0)
    }

    fn broken(&mut self, what: String) {
        self.outputs.push(GateOutput::Broken(what));
    }

    fn epoch(&self, id: ProcessId, service: &ServiceName) -> Epoch {
        let process = self.proxy.process(id);
        let service = process.and_then(|process| process.control.services().get(&service.0));
        Epoch(service.map_or(0, |service| service.epoch))
    }

    fn gate(&mut self, id: ProcessId, service: &ServiceName) -> &mut ServiceGate {
        let gates = self.gates.entry(id).or_default();
        gates.services.entry(service.clone()).or_default()
    }

    fn known(&self, id: ProcessId, service: &ServiceName) -> Option<&ServiceGate> {
        self.gates.get(&id)?.services.get(service)
    }

    /// Tells the control of what has been waited for for long enough; whether there was anything.
    fn settle(&mut self) -> bool {
        let mut over = Vec::new();
        for id in self.gates.keys() {
            let waits = self.proxy.waits(*id);
            let so = waits.filter(|(_, what)| self.is_over(*id, what));
            over.extend(so.map(|(ticket, _)| (*id, ticket)));
        }
        for (id, ticket) in &over {
            self.proxy.wait_is_over(*id, *ticket, true);
        }
        !over.is_empty()
    }

    fn is_over(&self, id: ProcessId, what: &Awaited) -> bool {
        match what {
            Awaited::NoneAdmitting(of) => of.iter().all(|(name, color)| {
                let gate = self.known(id, &ServiceName(name.clone()));
                gate.is_none_or(|gate| gate.admitting[index(*color)] == 0)
            }),
            Awaited::NoRequests { of, .. } => of
                .iter()
                .all(|(name, color)| self.in_flight(&ServiceName(name.clone()), *color) == 0),
            Awaited::Counts { .. } => false,
        }
    }
}

impl Gates {
    fn counts(&self) -> CountsByService {
        let services = self.services.iter();
        services
            .map(|(name, gate)| {
                let mut counts = gate.counts.clone();
                counts.blue.in_flight.requests = gate.in_flight[0];
                counts.green.in_flight.requests = gate.in_flight[1];
                (name.0.clone(), counts)
            })
            .collect()
    }
}

fn index(color: Color) -> usize {
    match color {
        Color::Blue => 0,
        Color::Green => 1,
    }
}

/// Microseconds by which a deadline passes also on a clock that is slow.
fn latest(after_ms: u64) -> u64 {
    after_ms * 1_500 + 200_000
}

fn nanos(micros: u64) -> u64 {
    micros * 1_000
}
