//! The proxies of one instance: the real control of each process, the state file that they share,
//! and the commands that are under way.
//!
//! One process leads. When it is replaced, the predecessor follows until it has no connections
//! left. [`Proxy::next`] carries out one effect of one process, so that a process can end between
//! any two. What takes time is begun here, and the driver says when it is over: a write, a
//! deadline, requests that are waited for, the way of a replication to a follower, a successor
//! that starts.
//!
//! In one file, because the processes of an instance share its commands, its state file and their
//! replications: each of these is changed by an effect of any process.
//!
//! Deliberately absent: requests, and what counts them. Nothing here reads a clock. Followers
//! say at once what they have counted.

use super::file::GateFile;
use super::shell::{Done, GateProcess};
use greenlight_gate::{
    Answer, Awaited, Color, Command, CountsByCutOver, CountsByService, Durability, GateEvent,
    GateMutant, HandoverState, Mode, Refusal, ReplicateRequest, Route, RoutingState, Ticket,
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
    /// What a successor has been given that does not lead yet.
    offered: Option<HandoverState<()>>,
    /// On their way from a leader to its followers, in the order in which they were sent.
    replications: VecDeque<Replication>,
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
    /// The followers that a command waits for, and since which replication.
    replicating: BTreeMap<Ticket, (Sequence, BTreeSet<ProcessId>)>,
    /// What this process follows and has yet to answer.
    follows: BTreeMap<Ticket, Replication>,
    /// The command of a successor.
    hands_over: Option<Ticket>,
}

/// Names a replication.
type Sequence = (u64, u64);

/// The routing on its way to a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replication {
    from: ProcessId,
    to: ProcessId,
    /// The command of the leader that waits for it.
    ticket: Option<Ticket>,
    followed: ReplicateRequest<()>,
}

/// A command of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// The routing is on its way: say [`Proxy::replication_arrives`] for each of these; and, if a
    /// command waits for only so many milliseconds, [`Proxy::replication_is_overdue`].
    Replicates {
        to: BTreeSet<ProcessId>,
        limit: Option<(Ticket, u64)>,
    },
    /// A successor was given everything, or was refused: say [`Proxy::successor_leads`] or
    /// [`Proxy::successor_fails`].
    HandsOver(Result<(), Refusal>),
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
        let id = self.starts + 1;
        self.leads(GateProcess::restarted(id, kept, self.mutant))
    }

    /// A process leads from now on; those that are there follow it.
    fn leads(&mut self, gate: GateProcess) -> ProcessId {
        let followers = self.processes.keys().map(|id| name(*id)).collect();
        self.starts += 1;
        let id = self.starts;
        self.leader = Some(id);
        self.processes.insert(id, ProxyProcess::with(gate));
        self.give(id, GateEvent::Started { followers });
        id
    }

    /// A successor asks the leader for everything.
    pub(crate) fn replace(&mut self) {
        let process = self.leader.and_then(|leader| self.processes.get(&leader));
        let is_asked = process.is_none_or(|process| process.hands_over.is_some());
        let Some(leader) = self.leader.filter(|_| !is_asked && self.offered.is_none()) else {
            return;
        };
        let ticket = self.command(leader, Command::HandOver);
        if let Some(process) = self.processes.get_mut(&leader) {
            process.hands_over = Some(ticket);
        }
    }

    /// The successor has what it was offered, and leads; the predecessor follows.
    pub(crate) fn successor_leads(&mut self) -> Option<ProcessId> {
        let state = self.offered.take()?;
        self.give(self.leader?, GateEvent::HandedOver);
        let gate = GateProcess::with(self.starts + 1, state, self.mutant);
        Some(self.leads(gate))
    }

    /// The successor dies before it leads.
    pub(crate) fn successor_fails(&mut self) {
        if let (Some(_), Some(leader)) = (self.offered.take(), self.leader) {
            self.give(leader, GateEvent::HandoverFailed);
        }
    }

    /// Whether a successor was offered everything and does not lead yet.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.offered.is_some()
    }

    /// A follower has no connections left, tells the leader what it counted, and ends.
    pub(crate) fn follower_leaves(&mut self, id: ProcessId, counts: &CountsByService) {
        if let (Some(leader), Some(process)) = (self.leader, self.process(id)) {
            let (follower, counts) = (name(id), process.control.own_counts(counts));
            self.command(leader, Command::FollowerEnded { follower, counts });
        }
        self.forget(id);
    }

    /// A process ends. What it was writing is in the file or not.
    pub(crate) fn end(&mut self, id: ProcessId, write_is_done: bool) -> Option<Ended> {
        let mut was_flipping = self.is_flipping(id);
        if self.leader == Some(id) {
            self.leader = None;
            self.offered = None;
        } else if let Some(leader) = self.leader
            && self.processes.contains_key(&id)
        {
            let follower = name(id);
            self.give(leader, GateEvent::FollowerGone { follower });
        }
        let process = self.forget(id)?;
        if let Some(write) = process.writing
            && write_is_done
        {
            self.file.write(write.state, write.durability);
            was_flipping = false;
        }
        Some(Ended {
            unanswered: process.commands.into_values().collect(),
            was_flipping,
        })
    }

    /// A process is gone, and nobody waits for it.
    fn forget(&mut self, id: ProcessId) -> Option<ProxyProcess> {
        let process = self.processes.remove(&id);
        self.replications.retain(|replication| replication.to != id);
        let follows = self.processes.values_mut();
        let follows = follows.flat_map(|process| process.follows.values_mut());
        for replication in follows.chain(&mut self.replications) {
            if replication.from == id {
                replication.ticket = None;
            }
        }
        self.has_obeyed(id, None);
        process
    }

    /// A follower has obeyed, or is gone: commands of the leader that wait for no one else go on.
    fn has_obeyed(&mut self, follower: ProcessId, replication: Option<(Ticket, Sequence)>) {
        let Some(leader) = self
            .leader
            .and_then(|leader| self.processes.get_mut(&leader))
        else {
            return;
        };
        leader.replicating.retain(|ticket, (sequence, to)| {
            if replication.is_none_or(|of| of == (*ticket, *sequence)) {
                to.remove(&follower);
            }
            if to.is_empty() {
                let (ticket, in_time) = (*ticket, true);
                leader
                    .inbox
                    .push_back(GateEvent::Replicated { ticket, in_time });
            }
            !to.is_empty()
        });
    }

    /// The processes that follow.
    pub(crate) fn followers(&self) -> impl Iterator<Item = ProcessId> {
        let processes = self.processes.keys().copied();
        processes.filter(|id| self.leader != Some(*id))
    }

    /// All processes, the oldest first.
    pub(crate) fn processes(&self) -> impl Iterator<Item = ProcessId> {
        self.processes.keys().copied()
    }

    /// The followers that a replication is on its way to, the one that was sent first first.
    pub(crate) fn replications(&self) -> impl Iterator<Item = ProcessId> {
        self.replications.iter().map(|replication| replication.to)
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
            Some(Awaited::Counts { .. }) | None => return,
        };
        self.give(id, event);
    }

    /// The first replication that is on its way to a follower arrives.
    pub(crate) fn replication_arrives(&mut self, to: ProcessId) {
        let first = self.replications.iter().position(|known| known.to == to);
        if let Some(replication) = first.and_then(|first| self.replications.remove(first)) {
            let ticket = self.command(to, Command::Follow(replication.followed.clone()));
            if let Some(process) = self.processes.get_mut(&to) {
                process.follows.insert(ticket, replication);
            }
        }
    }

    /// A command has waited long enough for its followers.
    pub(crate) fn replication_is_overdue(&mut self, id: ProcessId, ticket: Ticket) {
        if let Some(process) = self.processes.get_mut(&id)
            && process.replicating.remove(&ticket).is_some()
        {
            let in_time = false;
            self.give(id, GateEvent::Replicated { ticket, in_time });
        }
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
        Some((id, self.did(id, done, counts)))
    }

    fn did(
        &mut self,
        id: ProcessId,
        done: Done,
        counts: impl Fn(ProcessId) -> CountsByService,
    ) -> Did {
        let others: BTreeSet<_> = self
            .processes
            .keys()
            .copied()
            .filter(|of| *of != id)
            .collect();
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
            Done::Waits {
                ticket,
                what: what @ Awaited::Counts { .. },
            } => {
                let mut total = CountsByCutOver::default();
                for other in others {
                    if let Some(other_process) = self.process(other) {
                        total.add_all(&other_process.control.own_counts(&counts(other)));
                    }
                }
                let others = Some(total);
                self.give(id, GateEvent::Counted { ticket, others });
                Did::Waits { ticket, what }
            }
            Done::Waits { ticket, what } => {
                process.waits.insert(ticket, what.clone());
                Did::Waits { ticket, what }
            }
            Done::Replicates { followed, waits } => {
                if let Some((ticket, _)) = waits {
                    let waited_for = (followed.sequence, others.clone());
                    process.replicating.insert(ticket, waited_for);
                }
                for to in &others {
                    self.replications.push_back(Replication {
                        from: id,
                        to: *to,
                        ticket: waits.map(|(ticket, _)| ticket),
                        followed: followed.clone(),
                    });
                }
                Did::Replicates {
                    to: others,
                    limit: waits,
                }
            }
            Done::Replied { ticket, answer } => self.replied(id, ticket, answer),
        }
    }

    fn replied(&mut self, id: ProcessId, ticket: Ticket, answer: Result<Answer, Refusal>) -> Did {
        let process = self.processes.get_mut(&id).expect("it has just replied");
        process.waits.remove(&ticket);
        process.replicating.remove(&ticket);
        if process.hands_over == Some(ticket) {
            process.hands_over = None;
            if answer.is_ok() {
                self.offered = Some(process.gate.control.to_hand_over());
            }
            return Did::HandsOver(answer.map(drop));
        }
        if let Some(replication) = process.follows.remove(&ticket) {
            if let Some(waits) = replication
                .ticket
                .filter(|_| self.leader == Some(replication.from))
            {
                self.has_obeyed(id, Some((waits, replication.followed.sequence)));
            }
            return Did::AnsweredOther;
        }
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
        if let Some(offered) = &mut self.offered {
            forget_fences(&mut offered.routing, over);
            offered.evidence.clear();
            offered.final_counts = CountsByCutOver::default();
        }
        self.name_alone_as_first();
        let mut renumbered = BTreeMap::new();
        for (id, process) in &mut self.processes {
            for (ticket, number) in process.normalize(over) {
                renumbered.insert((*id, ticket), number);
            }
        }
        for process in self.processes.values_mut() {
            for followed in process.follows.values_mut() {
                followed.normalize(over, &renumbered);
            }
        }
        for replication in &mut self.replications {
            replication.normalize(over, &renumbered);
        }
        let most = self
            .processes
            .values()
            .map(|process| process.tickets().len());
        self.tickets = most.max().unwrap_or(0) as u64;
        self.starts = self.processes.keys().next_back().copied().unwrap_or(0);
        let file = self.file.written.services.iter();
        let offered = self.offered.iter();
        let offered = offered.flat_map(|offered| &offered.routing.services);
        let under_way = self.replications.iter();
        let under_way = under_way.flat_map(|sent| &sent.followed.state.services);
        let mut leads_to: BTreeSet<_> = file
            .chain(offered)
            .chain(under_way)
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

impl Proxy {
    /// A process that has no followers, and is the only one, has the name of the first: nobody
    /// knows its number.
    fn name_alone_as_first(&mut self) {
        if self.processes.len() == 1
            && self.leader.is_some()
            && let Some((_, process)) = self.processes.pop_first()
        {
            self.processes.insert(1, process);
            self.leader = Some(1);
        }
    }
}

impl Replication {
    fn normalize(&mut self, over: Epoch, renumbered: &BTreeMap<(ProcessId, Ticket), Ticket>) {
        forget_fences(&mut self.followed.state, over);
        // The leader's later ones come after it all the same.
        self.followed.sequence = FIRST;
        let ticket = self.ticket;
        self.ticket = ticket.and_then(|ticket| renumbered.get(&(self.from, ticket)).copied());
        if self.ticket.is_none() {
            self.from = 0;
        }
    }
}

/// The sequence of every replication whose number does not matter.
const FIRST: Sequence = (0, 1);

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
            replicating: BTreeMap::new(),
            follows: BTreeMap::new(),
            hands_over: None,
        }
    }

    /// Its commands that were not answered.
    fn tickets(&self) -> BTreeSet<Ticket> {
        let agents = self.commands.keys();
        agents.chain(self.follows.keys()).copied().collect()
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

    /// Returns the new numbers of its commands.
    fn normalize(&mut self, over: Epoch) -> BTreeMap<Ticket, Ticket> {
        let tickets = self.tickets().into_iter();
        let numbers: BTreeMap<_, _> = tickets.zip((1..).map(Ticket)).collect();
        renumber(&mut self.commands, &numbers);
        renumber(&mut self.waits, &numbers);
        renumber(&mut self.follows, &numbers);
        renumber(&mut self.replicating, &numbers);
        for (sequence, _) in self.replicating.values_mut() {
            *sequence = FIRST;
        }
        self.deadlines = self.gate.control.normalize(&self.deadlines, over.0);
        numbers
    }
}

fn renumber<T>(of: &mut BTreeMap<Ticket, T>, numbers: &BTreeMap<Ticket, Ticket>) {
    let old = std::mem::take(of).into_iter();
    *of = old.map(|(ticket, of)| (numbers[&ticket], of)).collect();
}

/// How the control calls a process.
fn name(id: ProcessId) -> String {
    format!("process {id}")
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
