//! The whole fleet in one queue: what happens next, to whom, and what that leads to.

use super::apps::{Condition, Drain, Flaw};
use super::coordinator::CoordinatorProcess;
use super::event::{Event, Place};
use super::faults::Faults;
use super::gate::Gate;
use super::machine::AgentProcess;
use super::oracle::{Breach, Checked, Oracle, breach};
use super::process::{Clock, Process};
use super::profile::{Broken, Profile};
use super::rng::Rng;
use super::stats::Stats;
use super::trace::{Telling, Trace};
use super::traffic::Request;
use crate::world::slots::Slots;
use greenlight_protocol::{Incarnation, InstanceId, ServiceName, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// After the faults are over, everything must be in order within this time, in microseconds.
const SETTLE_TIMEOUT: u64 = 400_000_000;

/// One instance: its agent, its proxy, and what runs there.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: InstanceId,
    pub(crate) agent: AgentProcess,
    pub(crate) gate: Gate,
    pub(crate) gate_clock: Clock,
    pub(crate) slots: Slots<Condition>,
    pub(crate) drains: Vec<Drain>,
    /// Starts that have not come as far as a process.
    pub(crate) starting: BTreeMap<Slot, Incarnation>,
    pub(crate) link_up: bool,
    /// Counts the connections to the coordinator.
    pub(crate) session: u64,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Faults happen.
    Chaos,
    /// Faults are over; what was under way has to come to its end.
    Healed,
    /// One more deployment has to succeed.
    LastDeployment,
    /// The last requests get their answers.
    Ending,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Simulation {
    pub(crate) profile: Profile,
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    pub(crate) act: Act,
    healed_at: u64,
    pub(crate) coordinator: CoordinatorProcess,
    pub(crate) machines: Vec<Machine>,
    pub(crate) names: BTreeMap<InstanceId, usize>,
    pub(crate) services: Vec<ServiceName>,
    pub(crate) blocked: BTreeSet<(Place, Place)>,
    pub(crate) requests: BTreeMap<u64, Request>,
    pub(crate) asked: u64,
    /// Until when requests come thick.
    pub(crate) tense_until: u64,
    /// By digest: what is wrong with a release.
    pub(crate) flaws: BTreeMap<String, Flaw>,
    pub(crate) versions: u64,
    /// Whether a deployment could neither go on nor back, and has said so.
    pub(crate) may_be_split: bool,
    pub(crate) faults: Faults,
    pub(crate) oracle: Oracle,
    pub(crate) stats: Stats,
}

/// What a run led to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) result: Checked,
    pub(crate) stats: Stats,
    pub(crate) hash: u64,
    pub(crate) lines: Vec<String>,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, mutant: Broken, telling: Telling) -> Run {
    let mut simulation = Simulation::new(seed, mutant, telling);
    let result = simulation.run();
    let Breach(text) = match &result {
        Ok(()) => Breach(String::new()),
        Err(breach) => breach.clone(),
    };
    let now = simulation.now;
    simulation.trace.note(now, &text);
    let mut stats = simulation.stats;
    stats.runs = 1;
    stats.steps = simulation.trace.steps;
    stats.admissions = simulation.oracle.admissions;
    stats.excused = simulation.oracle.excused;
    stats.answers = simulation.oracle.answers;
    let mut lines = vec![format!("{:?}", simulation.profile)];
    lines.extend(simulation.trace.lines().cloned());
    Run {
        result,
        stats,
        hash: simulation.trace.hash(),
        lines,
    }
}

impl Simulation {
    fn new(seed: u64, mutant: Broken, telling: Telling) -> Self {
        let mut rng = Rng::new(seed);
        let profile = Profile::of(&mut rng, mutant);
        let names: Vec<_> = (0..profile.instances)
            .map(|index| InstanceId(format!("i{index}")))
            .collect();
        let services = ["shop", "mail"].into_iter().take(profile.services);
        let mut machines = Vec::new();
        for name in &names {
            machines.push(Machine {
                name: name.clone(),
                agent: Process::new(Clock::new(&mut rng, profile.drift)),
                gate: Gate::new(profile.gate_mutant),
                gate_clock: Clock::new(&mut rng, profile.drift),
                slots: Slots::default(),
                drains: Vec::new(),
                starting: BTreeMap::new(),
                link_up: false,
                session: 0,
            });
        }
        Self {
            trace: Trace::new(telling),
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            act: Act::Chaos,
            healed_at: 0,
            coordinator: Process::new(Clock::new(&mut rng, profile.drift)),
            machines,
            names: names.into_iter().zip(0..).collect(),
            services: services.map(ServiceName::from).collect(),
            blocked: BTreeSet::new(),
            requests: BTreeMap::new(),
            asked: 0,
            tense_until: 0,
            flaws: BTreeMap::new(),
            versions: 0,
            may_be_split: false,
            faults: Faults::default(),
            oracle: Oracle::default(),
            stats: Stats::default(),
            profile,
            rng,
        }
    }

    fn run(&mut self) -> Checked {
        for at in 0..self.machines.len() {
            self.after(0, Event::GateStarts(at));
            self.after(1_000, Event::Starts(Place::Instance(at)));
        }
        self.after(500, Event::Starts(Place::Coordinator));
        self.after(10_000, Event::Traffic);
        self.after(500_000, Event::PersonActs);
        self.after(self.profile.between_faults, Event::Fault);
        self.after(self.profile.chaos, Event::Heals);
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.trace.step(at, &event, event.tells_something());
            self.take(event)?;
            if self.act == Act::Ending && self.requests.is_empty() {
                break;
            }
            if self.act != Act::Chaos && self.now > self.healed_at + SETTLE_TIMEOUT {
                let why = self.rest().err();
                let why = why.map_or_else(|| "it has no rest".to_owned(), |Breach(why)| why);
                return breach(format!("it never converges ({:?}): {why}", self.act));
            }
        }
        self.oracle.all_answered()
    }

    pub(crate) fn after(&mut self, micros: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + micros, self.queued), event);
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    fn take(&mut self, event: Event) -> Checked {
        match event {
            Event::Steps { at, life } => self.step(at, life)?,
            Event::CoordinatorTimer { life, timer, due } => {
                if ring(&mut self.coordinator, life, timer, due) {
                    self.wake(Place::Coordinator);
                }
            }
            Event::AgentTimer {
                at,
                life,
                timer,
                due,
            } => {
                if ring(&mut self.machines[at].agent, life, timer, due) {
                    self.wake(Place::Instance(at));
                }
            }
            Event::Starts(Place::Coordinator) => self.start_coordinator()?,
            Event::Starts(Place::Instance(at)) => self.start_agent(at)?,
            Event::GateStarts(at) => self.start_gate(at)?,
            Event::Arrives(message) => self.arrives(message),
            Event::Dials {
                at,
                agent,
                coordinator,
            } => self.dials(at, agent, coordinator),
            Event::LinkIsDown { at, session } => self.link_is_down(at, session),
            Event::ToAgent { at, life, event } => self.tell_agent(at, life, event),
            Event::LeaderCheck { at, life, leader } => self.leader_check(at, life, leader),
            Event::HoldArrives { at, asked, life } => self.hold_arrives(at, asked, life)?,
            Event::GateDeadline {
                at,
                process,
                generation,
            } => self.gate_deadline(at, process, generation)?,
            Event::GateBudget {
                at,
                process,
                ticket,
            } => self.gate_budget(at, process, ticket)?,
            Event::GateEnds { at, process } => self.gate_ends(at, process)?,
            Event::ReplacementBegins { at, refused } => self.replacement_begins(at, refused)?,
            Event::SuccessorLeads(at) => self.successor_leads(at)?,
            Event::SuccessorFails(at) => self.successor_fails(at)?,
            Event::ReplicationArrives { at, process } => self.replication_arrives(at, process)?,
            Event::ReplicationBudget {
                at,
                process,
                ticket,
            } => self.replication_budget(at, process, ticket)?,
            Event::FollowerLeaves { at, process } => self.follower_leaves(at, process)?,
            Event::GateWrites { at, process } => self.gate_writes(at, process)?,
            Event::Launch {
                at,
                life,
                slot,
                incarnation,
                release,
            } => self.launch(at, life, &slot, incarnation, release)?,
            Event::Listens {
                at,
                slot,
                incarnation,
            } => self.listens(at, &slot, incarnation),
            Event::Check {
                at,
                life,
                slot,
                incarnation,
            } => self.check(at, life, &slot, incarnation),
            Event::ReadyDeadline {
                at,
                life,
                slot,
                incarnation,
            } => self.ready_deadline(at, life, &slot, incarnation),
            Event::Dies {
                at,
                slot,
                incarnation,
            } => self.dies(at, &slot, incarnation)?,
            Event::Recovers {
                at,
                slot,
                incarnation,
            } => self.recovers(at, &slot, incarnation),
            Event::DrainOver { at, life, slot } => self.drain_over(at, life, &slot, false),
            Event::Kills {
                at,
                life,
                slot,
                drained,
            } => self.kills(at, life, &slot, drained)?,
            Event::Traffic => self.traffic()?,
            Event::Probe { at, service } => self.ask(at, service)?,
            Event::RequestMoves { request, step } => self.request_moves(request, step)?,
            Event::RequestIsOverdue(request) => self.overdue(request)?,
            Event::Fault => self.fault()?,
            Event::Strikes(kind) => self.strikes(kind)?,
            Event::PartitionHeals(from, to) => self.partition_heals(from, to),
            Event::DiskHasRoom(at) => self.disk_has_room(at),
            Event::PersonActs => self.person_acts(),
            Event::Heals => self.heal(),
            Event::Look => self.look()?,
        }
        Ok(())
    }

    fn step(&mut self, at: Place, life: u64) -> Checked {
        match at {
            Place::Coordinator if self.coordinator.life == life => {
                self.coordinator.busy = false;
                if self.coordinator.paused_until > self.now {
                    self.wake(at);
                    return Ok(());
                }
                self.step_coordinator()
            }
            Place::Instance(index) if self.machines[index].agent.life == life => {
                self.machines[index].agent.busy = false;
                if self.machines[index].agent.paused_until > self.now {
                    self.wake(at);
                    return Ok(());
                }
                self.step_agent(index)
            }
            Place::Coordinator | Place::Instance(_) => Ok(()),
        }
    }

    /// Plans the next step of a process that has something to do.
    pub(crate) fn wake(&mut self, at: Place) {
        let cost = self.rng.micros(2, 60);
        self.wake_after(at, cost);
    }

    pub(crate) fn wake_after(&mut self, at: Place, cost: u64) {
        let now = self.now;
        let planned = match at {
            Place::Coordinator => plan_step(&mut self.coordinator),
            Place::Instance(index) => plan_step(&mut self.machines[index].agent),
        };
        if let Some((life, paused_until)) = planned {
            let cost = cost.max(paused_until.saturating_sub(now));
            self.after(cost, Event::Steps { at, life });
        }
    }

    // ---- The end of the faults ----

    fn heal(&mut self) {
        self.act = Act::Healed;
        self.healed_at = self.now;
        let profile = &mut self.profile;
        profile.loss = 0.0;
        profile.duplicates = 0.0;
        profile.stragglers = 0.0;
        profile.delay = profile.delay.min(5_000);
        profile.crash_at_effect = 0.0;
        profile.sync_error = 0.0;
        self.blocked.clear();
        self.disk_has_room(Place::Coordinator);
        self.coordinator.paused_until = self.now;
        if !self.coordinator.is_up() {
            self.after(1_000, Event::Starts(Place::Coordinator));
        }
        self.wake_anew(Place::Coordinator);
        for at in 0..self.machines.len() {
            let here = Place::Instance(at);
            self.disk_has_room(here);
            self.machines[at].agent.paused_until = self.now;
            if !self.machines[at].agent.is_up() {
                self.after(2_000, Event::Starts(here));
            }
            if !self.machines[at].gate.is_up() {
                self.after(3_000, Event::GateStarts(at));
            }
            self.wake_anew(here);
            // A disk that has stalled goes on.
            for process in self.machines[at].gate.proxy.processes().collect::<Vec<_>>() {
                self.after(1_000, Event::GateWrites { at, process });
            }
            // So does a follower that was slow.
            for process in self.machines[at]
                .gate
                .proxy
                .replications()
                .collect::<Vec<_>>()
            {
                self.after(1_000, Event::ReplicationArrives { at, process });
            }
            // A message is lost with its connection: whatever was lost, there is a new one.
            self.link_breaks(at);
            self.dial(at, true);
            let sick = self.machines[at].slots.iter();
            let sick: Vec<_> = sick
                .filter(|(_, app)| !app.condition.healthy)
                .map(|(slot, app)| (slot.clone(), app.incarnation))
                .collect();
            for (slot, incarnation) in sick {
                self.recovers(at, &slot, incarnation);
            }
        }
        self.after(1_000_000, Event::Look);
    }

    /// A pause is over before its time.
    fn wake_anew(&mut self, at: Place) {
        match at {
            Place::Coordinator => self.coordinator.busy = false,
            Place::Instance(index) => self.machines[index].agent.busy = false,
        }
        self.wake(at);
    }
}

/// Marks a process as busy, if it has something to do and is not; says which start it is.
fn plan_step<M, I, E, R: Clone, T: Ord>(
    process: &mut Process<M, I, E, R, T>,
) -> Option<(u64, u64)> {
    if process.busy || !process.is_up() || !process.has_work() {
        return None;
    }
    process.busy = true;
    Some((process.life, process.paused_until))
}

/// A timer of a process is due, unless it was set anew or the process is another one.
fn ring<M, I, E, R: Clone, T: Ord>(
    process: &mut Process<M, I, E, R, T>,
    life: u64,
    timer: T,
    due: u64,
) -> bool {
    let rings = process.life == life && process.timers.get(&timer) == Some(&due);
    if rings {
        process.timers.remove(&timer);
        process.due.push_back(timer);
    }
    rings
}
