//! The proxy of one instance: a shell of the real control, with requests, a file and a clock that
//! are simulated.
//!
//! Each write takes its time, and while it lasts requests go on and orders wait, as in the proxy,
//! whose admin thread it blocks. So a process may end between the flip of a gate and its record.
//!
//! What the gate must do for the protocol (`docs/design/testing.md`) is checked here by what happened:
//! `seen` is what the world has seen of each service, whatever the control believes.
//!
//! In one file, because what the world has seen is checked where the control's effects are carried
//! out.
//!
//! Deliberately absent: connections, bytes, threads. A request has three moments here: it is
//! claimed, it is being admitted, it is written.

use crate::gate_file::GateFile;
use crate::gates::shell::{Done, GateProcess};
use greenlight_gate::{
    Answer, Awaited, Command, Counts, CountsByService, Durability, GateEvent, GateMutant, Mode,
    Route as Word, RoutingState, Ticket,
};
use greenlight_protocol::{
    Color, Epoch, GateAction, HoldEvidence, OnUncertain, ServiceEvidence, ServiceName,
    SwitchEvidence,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
pub(crate) struct ServiceGate {
    pub(crate) route: Route,
    /// Grows with every change of the route.
    pub(crate) generation: u64,
    in_flight: [u64; 2],
    admitting: [u64; 2],
    waiting: Vec<RequestId>,
    counts: Counts,
}

/// What the world has seen of a service's gate, over all its processes.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// By color: the cut-over that made live what is there.
    ordinals: BTreeMap<Color, Epoch>,
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

/// A command of an agent.
#[derive(Clone, Debug)]
enum Asked {
    Hold {
        epoch: Epoch,
        services: BTreeSet<ServiceName>,
    },
    Open {
        epoch: Epoch,
        admits: BTreeMap<ServiceName, Option<Admits>>,
        is_done: bool,
    },
    Park {
        epoch: Epoch,
        services: BTreeSet<ServiceName>,
    },
}

/// What the gate makes happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum GateOutput {
    /// These look at the gate again.
    Wakes(Vec<RequestId>),
    /// To the agent that asked.
    Held {
        asker: u64,
        epoch: Epoch,
        evidence: HoldEvidence,
    },
    /// To the agent that asked for a hold.
    Refused {
        asker: u64,
        epoch: Epoch,
        reason: String,
    },
    /// The gate has flipped.
    Flipped {
        service: ServiceName,
        to: Option<Admits>,
    },
    /// To the agent that asked.
    Opened {
        asker: u64,
        epoch: Epoch,
        colors: BTreeMap<ServiceName, Option<Color>>,
        evidence: SwitchEvidence,
    },
    /// A command to open or to park was refused.
    RefusedOther,
    /// To the agent that asked.
    Parked {
        asker: u64,
        services: BTreeSet<ServiceName>,
    },
    /// A deadline has ended a hold.
    Expired { service: ServiceName, sheds: bool },
    /// A deadline passes after this.
    Deadline { generation: u64, after: Duration },
    /// The time for an exclusive hold is over after this.
    Budget { ticket: u64, after: Duration },
    /// A write takes as long as it takes.
    Writes { synced: bool },
    /// A rule on gates is broken.
    Broken(String),
}

/// What is on its way to the disk.
#[derive(Clone, Debug)]
struct Write {
    ticket: Option<Ticket>,
    durability: Durability,
    state: RoutingState<()>,
}

/// The proxy's process and what it keeps.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) up: bool,
    /// Counts its starts.
    pub(crate) life: u64,
    pub(crate) services: BTreeMap<ServiceName, ServiceGate>,
    pub(crate) outputs: Vec<GateOutput>,
    process: Option<GateProcess>,
    mutant: GateMutant,
    file: GateFile,
    writing: Option<Write>,
    /// Whether the last write failed: a restart finds what was written before it.
    is_behind: bool,
    /// What comes in during a write.
    inbox: VecDeque<GateEvent<()>>,
    waits: Vec<(Ticket, Awaited)>,
    asked: BTreeMap<Ticket, (u64, Asked)>,
    tickets: u64,
    seen: BTreeMap<ServiceName, Seen>,
}

impl Gate {
    pub(crate) fn new(mutant: GateMutant) -> Self {
        Self {
            mutant,
            ..Self::default()
        }
    }

    /// The process comes up with what it kept.
    pub(crate) fn start(&mut self, now: u64) {
        self.up = true;
        self.life += 1;
        let kept = self.file.written.clone();
        for (name, state) in &kept.services {
            let mut gate = ServiceGate::default();
            if let Some((_, seen)) = &state.evidence {
                gate.counts.held = seen.held;
                gate.counts.shed = seen.shed;
            }
            self.services.insert(ServiceName(name.clone()), gate);
        }
        let process = GateProcess::restarted(self.life, kept, self.mutant);
        for (name, service) in process.control.services() {
            if let Some(deadline) = service.mode.deadline() {
                let seen = self.seen.entry(ServiceName(name.clone())).or_default();
                seen.hold_ends = Some(now + latest(deadline.max_hold_ms));
            }
        }
        self.process = Some(process);
        let followers = BTreeSet::new();
        self.give(GateEvent::Started { followers }, now);
    }

    /// The process is gone; with the machine, so is what was not synced. What was being written
    /// is there or not. Says whether a gate had flipped whose record was not yet written.
    pub(crate) fn end(&mut self, with_machine: bool, write_is_done: bool) -> bool {
        let mut was_flipping = self.is_flipping();
        if let Some(write) = self.writing.take() {
            self.is_behind = !write_is_done;
            if write_is_done {
                self.file.write(write.state, write.durability);
                was_flipping = false;
            }
        }
        if std::mem::take(&mut self.is_behind) {
            for seen in self.seen.values_mut() {
                seen.expired.clear();
            }
        }
        self.up = false;
        self.life += 1;
        self.process = None;
        for (name, state) in &self.file.written.services {
            if matches!(state.mode, Mode::Opening { .. }) {
                let seen = self.seen.entry(ServiceName(name.clone())).or_default();
                seen.is_in_doubt = true;
            }
        }
        self.services.clear();
        self.inbox.clear();
        self.waits.clear();
        self.asked.clear();
        if with_machine {
            self.file.written = self.file.synced.clone();
            for seen in self.seen.values_mut() {
                seen.is_parked = false;
                seen.expired.clear();
                seen.hold_ends = None;
                // It obeys again what it has forgotten.
                seen.obeyed = Epoch(0);
                seen.opened = Epoch(0);
            }
        }
        was_flipping
    }

    /// Whether a gate has flipped, and that is being written.
    pub(crate) fn is_flipping(&self) -> bool {
        let ticket = self.writing.as_ref().and_then(|write| write.ticket);
        let asked = ticket.and_then(|ticket| self.asked.get(&ticket));
        matches!(asked, Some((_, Asked::Open { is_done: true, .. })))
    }

    /// What a process would do with requests when it starts.
    pub(crate) fn routes_in_file(&self) -> impl Iterator<Item = (ServiceName, Word)> {
        let kept = self.file.written.services.iter();
        kept.map(|(name, state)| (ServiceName(name.clone()), state.mode.route()))
    }

    /// What was being written is written, or could not be.
    pub(crate) fn writes(&mut self, result: Result<(), String>, now: u64) {
        let Some(write) = self.writing.take() else {
            return;
        };
        self.is_behind = result.is_err();
        if !self.is_behind {
            self.file.write(write.state, write.durability);
        }
        if let Some(ticket) = write.ticket {
            self.handle(GateEvent::Written { ticket, result }, now);
        } else {
            self.carry_out(None, now);
        }
        while self.writing.is_none()
            && let Some(event) = self.inbox.pop_front()
        {
            self.handle(event, now);
        }
    }

    /// Makes a service known.
    pub(crate) fn define(&mut self, service: &ServiceName, now: u64) {
        let name = service.0.clone();
        let command = Command::Define { name, settings: () };
        self.command(command, None, now);
    }

    /// A command of an agent; `admits` is what an opening leads to.
    pub(crate) fn order(
        &mut self,
        action: &GateAction,
        admits: BTreeMap<ServiceName, Option<Admits>>,
        asker: u64,
        now: u64,
    ) {
        let asked = match action {
            GateAction::Hold {
                epoch, services, ..
            } => Asked::Hold {
                epoch: *epoch,
                services: services.clone(),
            },
            GateAction::Open { epoch, .. } => Asked::Open {
                epoch: *epoch,
                admits,
                is_done: false,
            },
            GateAction::Park { epoch, services } => Asked::Park {
                epoch: *epoch,
                services: services.clone(),
            },
        };
        self.command(action.request().into(), Some((asker, asked)), now);
    }

    pub(crate) fn deadline_passes(&mut self, generation: u64, now: u64) {
        self.give(GateEvent::DeadlinePassed { generation }, now);
    }

    pub(crate) fn budget_is_over(&mut self, ticket: u64, now: u64) {
        let ticket = Ticket(ticket);
        if self.waits.iter().any(|(waits, _)| *waits == ticket) {
            self.waits.retain(|(waits, _)| *waits != ticket);
            let in_time = false;
            self.give(GateEvent::NoRequests { ticket, in_time }, now);
        }
    }

    /// A request takes a place in flight.
    pub(crate) fn claim(&mut self, service: &ServiceName, color: Color) {
        self.gate(service).in_flight[index(color)] += 1;
    }

    /// A request gives its place back.
    pub(crate) fn release(&mut self, service: &ServiceName, color: Color, now: u64) {
        self.gate(service).in_flight[index(color)] -= 1;
        self.settle(now);
    }

    /// The moment before its first byte.
    pub(crate) fn begin_admitting(&mut self, service: &ServiceName, color: Color) {
        self.gate(service).admitting[index(color)] += 1;
    }

    /// Its first byte is written.
    pub(crate) fn admitted(&mut self, service: &ServiceName, admits: Admits, now: u64) {
        let at = nanos(now);
        let counts = &mut self.gate(service).counts;
        let color = match admits.color {
            Color::Blue => &mut counts.blue,
            Color::Green => &mut counts.green,
        };
        color.admitted += 1;
        color.last_admission_ns = Some(at);
        color.first_admission_ns.get_or_insert(at);
        if let Some(epoch) = admits.expired
            && matches!(self.mode(service), Some(Mode::Expired { .. }))
        {
            // What was admitted against G1 must be in the evidence from now on.
            let seen = self.evidence(service, epoch);
            let is_told =
                seen.is_none_or(|seen| seen.expired && seen.last_admission_old_ns == Some(at));
            if !is_told {
                self.broken(format!(
                    "`{service}`: an admission after the hold of {epoch} had expired is not told"
                ));
            }
        }
        self.end_admitting(service, admits.color, now);
    }

    pub(crate) fn end_admitting(&mut self, service: &ServiceName, color: Color, now: u64) {
        self.gate(service).admitting[index(color)] -= 1;
        self.settle(now);
    }

    pub(crate) fn wait(&mut self, service: &ServiceName, request: RequestId, now: u64) {
        self.gate(service).waiting.push(request);
        let seen = self.seen.entry(service.clone()).or_default();
        if !seen.was_used {
            return self.broken(format!("`{service}` was never opened, and a request waits"));
        }
        let is_held = matches!(self.mode(service), Some(Mode::Held { .. }));
        let ends = self.seen[service].hold_ends;
        if is_held && self.writing.is_none() && ends.is_none_or(|ends| now > ends) {
            self.broken(format!("the hold of `{service}` outlives its deadline"));
        }
    }

    pub(crate) fn in_flight(&self, service: &ServiceName, color: Color) -> u64 {
        let gate = self.services.get(service);
        gate.map_or(0, |gate| gate.in_flight[index(color)])
    }

    pub(crate) fn is_unsettled(&self) -> bool {
        self.services
            .values()
            .any(|gate| matches!(gate.route, Route::Held(_) | Route::Shed(_)))
    }

    fn command(&mut self, command: Command<()>, asked: Option<(u64, Asked)>, now: u64) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if let Some(asked) = asked {
            self.asked.insert(ticket, asked);
        }
        self.give(GateEvent::Commanded { ticket, command }, now);
    }

    /// What comes in during a write waits.
    fn give(&mut self, event: GateEvent<()>, now: u64) {
        if self.writing.is_some() || !self.inbox.is_empty() {
            self.inbox.push_back(event);
        } else {
            self.handle(event, now);
        }
    }

    fn handle(&mut self, event: GateEvent<()>, now: u64) {
        let ticket = match &event {
            GateEvent::Commanded { ticket, .. }
            | GateEvent::Written { ticket, .. }
            | GateEvent::Replicated { ticket, .. }
            | GateEvent::NoneAdmitting { ticket }
            | GateEvent::NoRequests { ticket, .. }
            | GateEvent::Counted { ticket, .. } => Some(*ticket),
            GateEvent::Started { .. }
            | GateEvent::DeadlinePassed { .. }
            | GateEvent::FollowerGone { .. }
            | GateEvent::HandedOver
            | GateEvent::HandoverFailed => None,
        };
        let counts = self.counts();
        let Some(process) = &mut self.process else {
            return;
        };
        process.take(event, nanos(now), &counts);
        self.carry_out(ticket, now);
    }

    fn carry_out(&mut self, ticket: Option<Ticket>, now: u64) {
        loop {
            let counts = self.counts();
            let Some(process) = &mut self.process else {
                return;
            };
            let Some(done) = process.next(&counts) else {
                break;
            };
            match done {
                Done::ResetCounters(service) => {
                    self.gate(&ServiceName(service)).counts.reset_totals();
                }
                Done::CountExpiry(service) => self.has_expired(&ServiceName(service)),
                Done::Routed { service, route } => {
                    self.routed(&ServiceName(service), route, ticket);
                }
                Done::ServicesSet => {
                    for name in process.routes.keys() {
                        self.services.entry(ServiceName(name.clone())).or_default();
                    }
                }
                Done::Armed {
                    generation,
                    after_ms,
                } => self.armed(generation, after_ms, ticket, now),
                Done::Persists {
                    ticket,
                    durability,
                    state,
                } => {
                    self.writing = Some(Write {
                        ticket,
                        durability,
                        state,
                    });
                    let synced = durability == Durability::Disk;
                    self.outputs.push(GateOutput::Writes { synced });
                    self.refresh();
                    return;
                }
                Done::Waits { ticket, what } => {
                    if let Awaited::NoRequests { within_ms, .. } = what {
                        let after = Duration::from_millis(within_ms);
                        let ticket = ticket.0;
                        self.outputs.push(GateOutput::Budget { ticket, after });
                    }
                    self.waits.push((ticket, what));
                }
                Done::Replicates { .. } => unreachable!("it has no predecessors"),
                Done::Replied { ticket, answer } => self.replied(ticket, answer),
            }
        }
        self.refresh();
        self.settle(now);
    }

    /// A gate does something else: on a command to open, or because a hold has ended.
    fn routed(&mut self, service: &ServiceName, route: Word, ticket: Option<Ticket>) {
        let command = ticket.and_then(|ticket| self.asked.get_mut(&ticket));
        let is_order = match command {
            Some((_, Asked::Open { is_done, .. })) => {
                *is_done = true;
                true
            }
            Some((_, Asked::Park { .. })) => {
                self.seen.entry(service.clone()).or_default().was_used = true;
                false
            }
            Some((_, Asked::Hold { .. })) | None => false,
        };
        let is_parked = self.seen.get(service).is_some_and(|seen| seen.is_parked);
        if is_parked && !is_order && matches!(route, Word::Open(_)) {
            self.broken(format!("`{service}` is parked and was let go unasked"));
        }
        if let Some((_, Asked::Open { admits, .. })) =
            ticket.and_then(|ticket| self.asked.get(&ticket)).cloned()
            && let Some(to) = admits.get(service).copied()
            && route == to.map_or(Word::Closed, |to| Word::Open(to.color))
        {
            self.flipped(service, to);
        }
        self.refresh_one(service);
        let gate = self.gate(service);
        gate.generation += 1;
        if let Word::Open(color) = route {
            gate.counts.opened(color);
        }
        let woken = std::mem::take(&mut gate.waiting);
        if !woken.is_empty() {
            self.outputs.push(GateOutput::Wakes(woken));
        }
    }

    fn flipped(&mut self, service: &ServiceName, to: Option<Admits>) {
        let seen = self.seen.entry(service.clone()).or_default();
        seen.was_used = true;
        // Its process may end before it answers.
        seen.is_parked = false;
        seen.is_in_doubt = false;
        if let Some(to) = to {
            seen.ordinals.insert(to.color, to.ordinal);
        }
        let service = service.clone();
        self.outputs.push(GateOutput::Flipped { service, to });
    }

    fn has_expired(&mut self, service: &ServiceName) {
        self.gate(service).counts.expired += 1;
        let mode = self.mode(service);
        let epoch = self.epoch(service);
        let seen = self.seen.entry(service.clone()).or_default();
        seen.expired.insert(epoch);
        seen.hold_ends = None;
        let sheds = match mode {
            Some(Mode::Expired { then, .. }) => then == OnUncertain::Shed,
            _ => seen.is_in_doubt,
        };
        let service = service.clone();
        self.outputs.push(GateOutput::Expired { service, sheds });
    }

    fn armed(&mut self, generation: u64, after_ms: u64, ticket: Option<Ticket>, now: u64) {
        if let Some((_, Asked::Hold { services, .. })) =
            ticket.and_then(|ticket| self.asked.get(&ticket)).cloned()
        {
            for service in services {
                let seen = self.seen.entry(service).or_default();
                seen.hold_ends = Some(now + latest(after_ms));
            }
        }
        let after = Duration::from_millis(after_ms);
        self.outputs
            .push(GateOutput::Deadline { generation, after });
    }

    fn replied(&mut self, ticket: Ticket, answer: Result<Answer, greenlight_gate::Refusal>) {
        self.waits.retain(|(waits, _)| *waits != ticket);
        let Some((asker, asked)) = self.asked.remove(&ticket) else {
            return;
        };
        let (epoch, services): (_, Vec<_>) = match &asked {
            Asked::Hold { epoch, services } | Asked::Park { epoch, services } => {
                (*epoch, services.iter().cloned().collect())
            }
            Asked::Open { epoch, admits, .. } => (*epoch, admits.keys().cloned().collect()),
        };
        let is_hold = matches!(asked, Asked::Hold { .. });
        match (answer, asked) {
            (Ok(_), asked) => {
                self.obeyed(epoch, &services, is_hold);
                self.tell(asker, asked);
            }
            (Err(refusal), Asked::Hold { .. }) => {
                let reason = refusal.to_string();
                self.outputs.push(GateOutput::Refused {
                    asker,
                    epoch,
                    reason,
                });
            }
            (Err(_), Asked::Open { .. } | Asked::Park { .. }) => {
                self.outputs.push(GateOutput::RefusedOther);
            }
        }
    }

    /// G6, and that an expiry does not cease to be told.
    fn obeyed(&mut self, epoch: Epoch, services: &[ServiceName], is_hold: bool) {
        for service in services {
            let seen = self.seen.entry(service.clone()).or_default();
            if epoch < seen.obeyed || (is_hold && epoch <= seen.opened && seen.opened.0 > 0) {
                let last = seen.obeyed.max(seen.opened);
                let text = format!("G6: `{service}` obeyed a command of {epoch} after {last}");
                return self.broken(text);
            }
            seen.obeyed = epoch;
            let has_expired = seen.expired.contains(&epoch);
            let seen = self.evidence(service, epoch);
            if has_expired && seen.is_some_and(|seen| !seen.expired) {
                let text = format!("`{service}`: that the hold of {epoch} expired is not told");
                return self.broken(text);
            }
        }
    }

    fn tell(&mut self, asker: u64, asked: Asked) {
        match asked {
            Asked::Hold { epoch, .. } => {
                let evidence = HoldEvidence::default();
                self.outputs.push(GateOutput::Held {
                    asker,
                    epoch,
                    evidence,
                });
            }
            Asked::Open {
                epoch,
                admits,
                is_done,
            } => {
                for (service, to) in &admits {
                    // It was open to this already.
                    if !is_done {
                        self.flipped(service, *to);
                    }
                    let seen = self.seen.entry(service.clone()).or_default();
                    seen.opened = epoch;
                    seen.is_parked = false;
                    seen.hold_ends = None;
                }
                let colors = admits.into_iter();
                let colors = colors.map(|(service, to)| (service, to.map(|to| to.color)));
                self.outputs.push(GateOutput::Opened {
                    asker,
                    epoch,
                    colors: colors.collect(),
                    evidence: SwitchEvidence::default(),
                });
                self.refresh();
            }
            Asked::Park { services, .. } => {
                for service in &services {
                    if self.mode(service).is_some() {
                        let seen = self.seen.entry(service.clone()).or_default();
                        seen.is_parked = true;
                    }
                }
                self.outputs.push(GateOutput::Parked { asker, services });
            }
        }
    }

    fn evidence(&self, service: &ServiceName, epoch: Epoch) -> Option<ServiceEvidence> {
        let control = &self.process.as_ref()?.control;
        let counts = self.counts();
        control.evidence(epoch.0, &counts, None).remove(&service.0)
    }

    fn broken(&mut self, what: String) {
        self.outputs.push(GateOutput::Broken(what));
    }

    /// What the requests of this process see, with what the world knows of it.
    fn refresh(&mut self) {
        let services: Vec<_> = self.services.keys().cloned().collect();
        for service in services {
            self.refresh_one(&service);
        }
    }

    fn refresh_one(&mut self, service: &ServiceName) {
        let Some(process) = &self.process else { return };
        let Some(word) = process.routes.get(&service.0).copied() else {
            return;
        };
        let expired = match self.mode(service) {
            Some(Mode::Expired { .. }) => Some(self.epoch(service)),
            _ => None,
        };
        let ordinals = self.seen.get(service).map(|seen| &seen.ordinals);
        let admits = |color: Color| {
            let ordinal = ordinals.and_then(|ordinals| ordinals.get(&color));
            Admits {
                color,
                ordinal: ordinal.copied().unwrap_or_default(),
                expired,
            }
        };
        let route = match word {
            Word::Closed => Route::Closed,
            Word::Open(color) => Route::Open(admits(color)),
            Word::Held(color) => Route::Held(color.map(admits)),
            Word::Shed(color) => Route::Shed(color.map(admits)),
        };
        self.gate(service).route = route;
    }

    fn mode(&self, service: &ServiceName) -> Option<Mode> {
        let control = &self.process.as_ref()?.control;
        Some(control.services().get(&service.0)?.mode)
    }

    fn epoch(&self, service: &ServiceName) -> Epoch {
        let control = self.process.as_ref().map(|process| &process.control);
        let service = control.and_then(|control| control.services().get(&service.0));
        Epoch(service.map_or(0, |service| service.epoch))
    }

    fn gate(&mut self, service: &ServiceName) -> &mut ServiceGate {
        self.services.entry(service.clone()).or_default()
    }

    /// Tells the control of what has been waited for for long enough.
    fn settle(&mut self, now: u64) {
        let waits = std::mem::take(&mut self.waits);
        let (over, waits) = waits.into_iter().partition(|(_, what)| self.is_over(what));
        self.waits = waits;
        let over: Vec<(Ticket, Awaited)> = over;
        for (ticket, what) in over {
            let event = match what {
                Awaited::NoneAdmitting(_) => GateEvent::NoneAdmitting { ticket },
                Awaited::NoRequests { .. } => GateEvent::NoRequests {
                    ticket,
                    in_time: true,
                },
                Awaited::Counts { .. } => unreachable!("it has no predecessors"),
            };
            self.give(event, now);
        }
    }

    fn is_over(&self, what: &Awaited) -> bool {
        let count = |(name, color): &(String, Color), of: fn(&ServiceGate) -> [u64; 2]| {
            let gate = self.services.get(&ServiceName(name.clone()));
            gate.map_or(0, |gate| of(gate)[index(*color)])
        };
        match what {
            Awaited::NoneAdmitting(of) => of.iter().all(|of| count(of, |g| g.admitting) == 0),
            Awaited::NoRequests { of, .. } => of.iter().all(|of| count(of, |g| g.in_flight) == 0),
            Awaited::Counts { .. } => false,
        }
    }

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
