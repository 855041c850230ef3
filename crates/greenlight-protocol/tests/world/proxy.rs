//! The proxies of one instance: the real control of each process, the state file that they share,
//! and the commands that are under way.
//!
//! One process leads. After a replacement its predecessor follows until it has no connections
//! left. [`Proxy::next`] carries out one effect of one process, so that a process can end between
//! any two. What takes time is begun here, and the driver says when it is over: a write, a
//! deadline, requests that are waited for, a follower that obeys.
//!
//! Deliberately absent: requests, and what counts them. Nothing here reads a clock.

use super::file::GateFile;
use super::shell::{Done, GateProcess};
use greenlight_gate::{
    Answer, Awaited, Color, Command, CountsByService, Durability, GateEvent, GateMutant, Mode,
    Refusal, Route, RoutingState, Ticket,
};
use greenlight_protocol::{Epoch, GateAction, ServiceName};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Names a process: later ones have greater ids.
pub(crate) type ProcessId = u64;

/// What a gate admits to: a color, and the cut-over that made live what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Admits {
    pub(crate) color: Color,
    pub(crate) ordinal: Epoch,
}

/// What an opening leads to; nothing if it leads nowhere.
pub(crate) type Target = Option<Admits>;
pub(crate) type Targets = BTreeMap<ServiceName, Target>;

/// All proxies of an instance, and the file that outlives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxy {
    processes: BTreeMap<ProcessId, ProxyProcess>,
    leader: Option<ProcessId>,
    pub(crate) file: GateFile,
    /// By service and color: the cut-over that made live what is there.
    ordinals: BTreeMap<ServiceName, BTreeMap<Color, Epoch>>,
    /// Counts the starts of processes.
    starts: ProcessId,
    tickets: u64,
    mutant: GateMutant,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProxyProcess {
    gate: GateProcess,
    /// The command whose event is being handled.
    handles: Option<Ticket>,
    /// What comes in while it is busy.
    inbox: VecDeque<GateEvent<()>>,
    /// What is on its way to the disk. Until it is there, nothing else happens in the process.
    writing: Option<Write>,
    /// The deadlines that run.
    deadlines: BTreeSet<u64>,
    waits: BTreeMap<Ticket, Awaited>,
    commands: BTreeMap<Ticket, Asked>,
}

/// A command of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) action: GateAction,
    pub(crate) targets: Targets,
    /// Whether the gates have flipped for it.
    pub(crate) has_flipped: bool,
    /// Whether the agent that asked is gone, so that nobody reads the answer.
    pub(crate) is_forgotten: bool,
}

/// What is on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    ticket: Option<Ticket>,
    durability: Durability,
    state: RoutingState<()>,
}

/// An effect that was carried out, as far as the driver takes part in it.
#[derive(Clone, Debug)]
pub(crate) enum Did {
    ResetCounters(ServiceName),
    CountedExpiry(ServiceName),
    /// A gate does something else from now on.
    Routed {
        service: ServiceName,
        route: Route,
        /// The agent's command that has led to it, if one has.
        asked: Option<Asked>,
        /// What it has opened the gate to.
        opened: Option<Target>,
    },
    ServicesSet,
    /// A deadline runs, and passes after this long.
    Armed {
        generation: u64,
        after_ms: u64,
        asked: Option<Asked>,
    },
    /// A write has begun: say [`Proxy::writes`] when it has ended.
    Writes(Durability),
    /// A command waits: say [`Proxy::wait_is_over`].
    Waits {
        ticket: Ticket,
        what: Awaited,
    },
    /// A command of the agent was answered.
    Answered(Asked, Result<Answer, Refusal>),
    /// Any other was.
    AnsweredOther,
}

/// What a process that has ended leaves behind.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// The commands that nothing will be answered to.
    pub(crate) unanswered: Vec<Asked>,
    /// Whether a gate had flipped, and that was not yet in the file.
    pub(crate) was_flipping: bool,
}

impl Proxy {
    /// No process yet, and an empty file.
    pub(crate) fn new(mutant: GateMutant) -> Self {
        Self {
            mutant,
            ..Self::default()
        }
    }

    /// A process comes up with what the file has, and leads.
    pub(crate) fn start(&mut self) -> ProcessId {
        let kept = self.file.written.clone();
        let followers = BTreeSet::new();
        self.starts += 1;
        let id = self.starts;
        let gate = GateProcess::restarted(id, kept, self.mutant);
        self.leader = Some(id);
        self.processes.insert(id, ProxyProcess::with(gate));
        self.give(id, GateEvent::Started { followers });
        id
    }

    /// A process ends. What it was writing is in the file or not.
    pub(crate) fn end(&mut self, id: ProcessId, write_is_done: bool) -> Option<Ended> {
        let mut was_flipping = self.is_flipping(id);
        let process = self.processes.remove(&id)?;
        if let Some(write) = process.writing
            && write_is_done
        {
            self.file.write(write.state, write.durability);
            was_flipping = false;
        }
        if self.leader == Some(id) {
            self.leader = None;
        }
        Some(Ended {
            unanswered: process.commands.into_values().collect(),
            was_flipping,
        })
    }

    /// The process that leads, if one does.
    pub(crate) fn leader(&self) -> Option<ProcessId> {
        self.leader
    }

    pub(crate) fn process(&self, id: ProcessId) -> Option<&GateProcess> {
        self.processes.get(&id).map(|process| &process.gate)
    }

    /// What a gate of a process does with requests, if it has one.
    pub(crate) fn route(&self, id: ProcessId, service: &ServiceName) -> Option<Route> {
        self.process(id)?.routes.get(&service.0).copied()
    }

    pub(crate) fn mode(&self, id: ProcessId, service: &ServiceName) -> Option<Mode> {
        let services = self.process(id)?.control.services();
        services.get(&service.0).map(|service| service.mode)
    }

    /// What the color of a service leads to.
    pub(crate) fn admits(&self, service: &ServiceName, color: Color) -> Admits {
        let ordinals = self.ordinals.get(service);
        let ordinal = ordinals.and_then(|ordinals| ordinals.get(&color));
        Admits {
            color,
            ordinal: ordinal.copied().unwrap_or_default(),
        }
    }

    /// The newest cut-over that a service was opened to here.
    pub(crate) fn newest(&self, service: &ServiceName) -> Option<Epoch> {
        self.ordinals.get(service)?.values().copied().max()
    }

    /// Whether a gate has flipped, and that is being written.
    pub(crate) fn is_flipping(&self, id: ProcessId) -> bool {
        let process = self.processes.get(&id);
        process.is_some_and(|process| {
            let ticket = process.writing.as_ref().and_then(|write| write.ticket);
            let asked = ticket.and_then(|ticket| process.commands.get(&ticket));
            asked.is_some_and(|asked| asked.has_flipped)
        })
    }

    pub(crate) fn is_writing(&self, id: ProcessId) -> bool {
        let process = self.processes.get(&id);
        process.is_some_and(|process| process.writing.is_some())
    }

    /// The deadlines that run in a process.
    pub(crate) fn deadlines(&self, id: ProcessId) -> &BTreeSet<u64> {
        static NONE: BTreeSet<u64> = BTreeSet::new();
        let process = self.processes.get(&id);
        process.map_or(&NONE, |process| &process.deadlines)
    }

    /// The commands of the agent that a process has yet to answer.
    pub(crate) fn unanswered(&self, id: ProcessId) -> impl Iterator<Item = &Asked> {
        let process = self.processes.get(&id).into_iter();
        process.flat_map(|process| process.commands.values())
    }

    /// What commands of a process wait for.
    pub(crate) fn waits(&self, id: ProcessId) -> impl Iterator<Item = (Ticket, &Awaited)> {
        let process = self.processes.get(&id).into_iter();
        process.flat_map(|process| process.waits.iter().map(|(ticket, what)| (*ticket, what)))
    }

    // ---- What happens to a process; `next` carries out what follows. ----

    /// The agent asks the process that leads; whether there is one.
    pub(crate) fn ask(&mut self, asked: Asked) -> bool {
        let command = asked.action.request().into();
        let Some(leader) = self.leader else {
            return false;
        };
        let ticket = self.command(leader, command);
        let process = self.processes.get_mut(&leader);
        process.and_then(|process| process.commands.insert(ticket, asked));
        true
    }

    /// Makes a service known; whether a process leads.
    pub(crate) fn define(&mut self, service: &ServiceName) -> bool {
        let name = service.0.clone();
        let Some(leader) = self.leader else {
            return false;
        };
        self.command(leader, Command::Define { name, settings: () });
        true
    }

    fn command(&mut self, id: ProcessId, command: Command<()>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.give(id, GateEvent::Commanded { ticket, command });
        ticket
    }

    fn give(&mut self, id: ProcessId, event: GateEvent<()>) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.inbox.push_back(event);
        }
    }

    /// The agent is gone: nobody is there to be answered.
    pub(crate) fn forget_who_asked(&mut self) {
        for process in self.processes.values_mut() {
            for asked in process.commands.values_mut() {
                asked.is_forgotten = true;
            }
        }
    }

    /// A deadline that runs passes.
    pub(crate) fn deadline_passes(&mut self, id: ProcessId, generation: u64) {
        if let Some(process) = self.processes.get_mut(&id)
            && process.deadlines.remove(&generation)
        {
            self.give(id, GateEvent::DeadlinePassed { generation });
        }
    }

    /// What a command waits for is so, or it has waited long enough.
    pub(crate) fn wait_is_over(&mut self, id: ProcessId, ticket: Ticket, in_time: bool) {
        let process = self.processes.get_mut(&id);
        let event = match process.and_then(|process| process.waits.remove(&ticket)) {
            Some(Awaited::NoneAdmitting(_)) => GateEvent::NoneAdmitting { ticket },
            Some(Awaited::NoRequests { .. }) => GateEvent::NoRequests { ticket, in_time },
            Some(Awaited::Counts { .. }) => unreachable!("it has no followers"),
            None => return,
        };
        self.give(id, event);
    }

    /// What a process was writing is in the file, or could not be written.
    pub(crate) fn writes(&mut self, id: ProcessId, result: Result<(), String>) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        let Some(write) = process.writing.take() else {
            return;
        };
        if result.is_ok() {
            self.file.write(write.state, write.durability);
        }
        if let Some(ticket) = write.ticket {
            let written = GateEvent::Written { ticket, result };
            // Nothing else happens in the process before it.
            process.inbox.push_front(written);
        }
    }

    /// Carries out the next effect of any process; `counts` are those of a process's gates.
    pub(crate) fn next(
        &mut self,
        now_ns: u64,
        counts: impl Fn(ProcessId) -> CountsByService,
    ) -> Option<(ProcessId, Did)> {
        let mut processes = self.processes.iter_mut();
        let (id, done) = processes
            .find_map(|(id, process)| Some((*id, process.next(now_ns, &|| counts(*id))?)))?;
        Some((id, self.did(id, done)))
    }

    fn did(&mut self, id: ProcessId, done: Done) -> Did {
        let process = self.processes.get_mut(&id).expect("it has just done it");
        let asked = |process: &ProxyProcess| {
            let ticket = process.handles?;
            process.commands.get(&ticket).cloned()
        };
        match done {
            Done::ResetCounters(service) => Did::ResetCounters(ServiceName(service)),
            Done::CountExpiry(service) => Did::CountedExpiry(ServiceName(service)),
            Done::Routed { service, route } => {
                let service = ServiceName(service);
                let opened = process.flips(&service, route);
                let asked = asked(process);
                if let Some(to) = opened {
                    self.opens(&service, to);
                }
                Did::Routed {
                    service,
                    route,
                    asked,
                    opened,
                }
            }
            Done::ServicesSet => Did::ServicesSet,
            Done::Armed {
                generation,
                after_ms,
            } => {
                process.deadlines.insert(generation);
                Did::Armed {
                    generation,
                    after_ms,
                    asked: asked(process),
                }
            }
            Done::Persists {
                ticket,
                durability,
                state,
            } => {
                process.writing = Some(Write {
                    ticket,
                    durability,
                    state,
                });
                Did::Writes(durability)
            }
            Done::Waits { ticket, what } => {
                process.waits.insert(ticket, what.clone());
                Did::Waits { ticket, what }
            }
            Done::Replicates { .. } => unreachable!("it has no followers"),
            Done::Replied { ticket, answer } => {
                process.waits.remove(&ticket);
                let Some(asked) = process.commands.remove(&ticket) else {
                    return Did::AnsweredOther;
                };
                if answer.is_ok() && !asked.has_flipped {
                    // It was open to this already.
                    for (service, to) in &asked.targets {
                        self.opens(service, *to);
                    }
                }
                Did::Answered(asked, answer)
            }
        }
    }

    fn opens(&mut self, service: &ServiceName, to: Target) {
        if let Some(to) = to {
            let ordinals = self.ordinals.entry(service.clone()).or_default();
            ordinals.insert(to.color, to.ordinal);
        }
    }

    /// Forgets what no decision depends on, so that equal meaning is equal value: what was counted,
    /// numbers that only grow, what a restart would lose that nobody restarts, and, of what is
    /// `over`, the fences that no command can meet and which cut-over put there what no gate leads
    /// to, unless it is the newest. Nothing is being carried out.
    pub(crate) fn normalize(&mut self, over: Epoch) {
        forget_fences(&mut self.file.written, over);
        self.file.synced = RoutingState::default();
        for process in self.processes.values_mut() {
            process.normalize(over);
        }
        let most = self
            .processes
            .values()
            .map(|process| process.commands.len());
        self.tickets = most.max().unwrap_or(0) as u64;
        self.starts = self.processes.keys().next_back().copied().unwrap_or(0);
        let file = self.file.written.services.iter();
        let mut leads_to: BTreeSet<_> = file
            .filter_map(|(name, kept)| Some((name.clone(), kept.mode.served()?)))
            .collect();
        for process in self.processes.values() {
            let services = process.gate.control.services().iter();
            leads_to.extend(
                services.filter_map(|(name, service)| Some((name.clone(), service.mode.served()?))),
            );
        }
        for (service, ordinals) in &mut self.ordinals {
            let newest = ordinals.values().copied().max();
            ordinals.retain(|color, ordinal| {
                leads_to.contains(&(service.0.clone(), *color)) || Some(*ordinal) == newest
            });
        }
    }
}

impl ProxyProcess {
    fn with(gate: GateProcess) -> Self {
        Self {
            gate,
            handles: None,
            inbox: VecDeque::new(),
            writing: None,
            deadlines: BTreeSet::new(),
            waits: BTreeMap::new(),
            commands: BTreeMap::new(),
        }
    }

    fn next(&mut self, now_ns: u64, counts: &dyn Fn() -> CountsByService) -> Option<Done> {
        if self.writing.is_some() {
            return None;
        }
        loop {
            if self.gate.has_effects() {
                return self.gate.next(&counts());
            }
            self.handles = None;
            let event = self.inbox.pop_front()?;
            self.handles = ticket(&event);
            self.gate.take(event, now_ns, &counts());
        }
    }

    /// What the command being handled has opened the gate to, if it has.
    fn flips(&mut self, service: &ServiceName, route: Route) -> Option<Target> {
        let asked = self.commands.get_mut(&self.handles?)?;
        let to = *asked.targets.get(service)?;
        if route != to.map_or(Route::Closed, |to| Route::Open(to.color)) {
            return None;
        }
        asked.has_flipped = true;
        Some(to)
    }

    fn normalize(&mut self, over: Epoch) {
        let numbers: BTreeMap<_, _> = self
            .commands
            .keys()
            .copied()
            .zip((1..).map(Ticket))
            .collect();
        let commands = std::mem::take(&mut self.commands).into_iter();
        self.commands = commands
            .map(|(ticket, of)| (numbers[&ticket], of))
            .collect();
        let waits = std::mem::take(&mut self.waits).into_iter();
        self.waits = waits.map(|(ticket, of)| (numbers[&ticket], of)).collect();
        self.deadlines = self.gate.control.normalize(&self.deadlines, over.0);
    }
}

fn forget_fences(kept: &mut RoutingState<()>, over: Epoch) {
    for service in kept.services.values_mut() {
        service.evidence = None;
        service.cut_over = 0;
        service.mode = service.mode.normal_form();
        if service.mode.deadline().is_none() && service.epoch <= over.0 {
            service.epoch = 0;
            service.opened = 0;
        }
    }
}

/// The command that an event belongs to.
fn ticket(event: &GateEvent<()>) -> Option<Ticket> {
    match event {
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
    }
}
