//! A fleet with faults as a state space: what may happen in a state, and what must hold in all.

use super::dead::Facts;
use super::fair::Schedule;
use super::machine::{Gate, Machine, name};
use super::post::{Letter, Names};
use super::server::Server;
use super::step::Step;
use super::table::{
    Entry, LetterId, Net, Node, NodeId, Outcome, PostOffice, RENAMINGS, Renaming, Table, What,
};
use greenlight_protocol::agent::{Decision, Stage};
use greenlight_protocol::coordinator::{Begin, Order, Promotion, Verdict};
use greenlight_protocol::{
    AgentRecord, CoordinatorRecord, CoordinatorTimer, CutOver, DeploymentId, Direction, Epoch,
    Mutant, Phase, Plan, Policy, Release, Strategy,
};
use stateright::{Model, Property};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The most instances that a state has room for.
pub(crate) const ROOM: usize = 3;

/// Which faults there may be, and how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Instances of the fleet.
    pub(crate) instances: usize,
    /// Crashes of the coordinator.
    pub(crate) coordinator_crashes: u8,
    /// Whether a crashed coordinator comes back.
    pub(crate) coordinator_returns: bool,
    /// Crashes of agents, in total.
    pub(crate) agent_crashes: u8,
    /// Applications that die, in total.
    pub(crate) deaths: u8,
    /// Whether statuses and doubts reach the coordinator; if not, they are all lost.
    pub(crate) reminders: bool,
    /// Whether links come up anew, and both ends notice.
    pub(crate) reconnections: bool,
    /// Whether what is left warm is retired.
    pub(crate) retires: bool,
    /// Where it begins.
    pub(crate) from: From,
    /// Which rule is broken on purpose.
    pub(crate) mutant: Mutant,
}

/// Where the exploration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The order was given.
    Order,
    /// The order was given, and all are ready and have said so.
    Prepared,
}

/// One state of the fleet, all by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) server: NodeId,
    pub(crate) machines: [NodeId; ROOM],
    net: Net,
    coordinator_crashes: u8,
    agent_crashes: u8,
    deaths: u8,
    /// The newest cut-over that any gate was ever opened for.
    newest: Epoch,
    /// The rule that was broken on the way.
    breach: Option<&'static str>,
}

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Server,
    Machine(usize),
}

/// One thing that happens in a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    place: Place,
    what: What,
    /// Which of the step's outcomes: 0 is the complete one, the others end in a crash.
    outcome: usize,
}

/// The fleet and everything known of it.
pub(crate) struct Fleet {
    pub(crate) faults: Faults,
    pub(crate) servers: Table<Server>,
    pub(crate) machines: Table<Machine>,
    pub(crate) post: PostOffice,
    schedule: Schedule,
    starts: Vec<State>,
    check: Check,
}

/// What is checked in every state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// All guarantees, and that every state ends well once faults stop.
    Everything,
    /// G1 alone.
    OnlyG1,
}

impl Fleet {
    /// A fleet that serves `v1` and has just been told to deploy `v2`.
    pub(crate) fn new(faults: Faults, check: Check) -> Self {
        let mut fleet = Self {
            faults,
            servers: Table::new(),
            machines: Table::new(),
            post: PostOffice::new(),
            schedule: Schedule::default(),
            starts: Vec::new(),
            check,
        };
        fleet.starts = fleet.start();
        fleet
    }

    fn start(&self) -> Vec<State> {
        let mut machine = Machine::serving(past_of_agent(self.faults), self.faults.mutant);
        for step in [
            Step::Restarts,
            Step::SlotsAreListed,
            Step::CheckPasses(greenlight_protocol::Color::Blue),
            Step::OpenIsAnswered(0),
        ] {
            machine = machine.take(&step).remove(0).node;
        }
        let machine = self.machines.root(machine);
        let there = |index| {
            if index < self.faults.instances {
                machine
            } else {
                NodeId::MAX
            }
        };
        let machines = std::array::from_fn(there);
        let past = past_of_coordinator(self.faults);
        let server = Server::with(self.faults.instances, past, self.faults.mutant);
        let server = server.take(&Step::Restarts).remove(0).node;
        let order = order(self.faults, "d2", "v2");
        let begun = self.servers.roots(server.deploy(&order), &self.post);
        let quiet = State {
            server: NodeId::MAX,
            machines,
            net: Net::default(),
            coordinator_crashes: 0,
            agent_crashes: 0,
            deaths: 0,
            newest: Epoch(1),
            breach: None,
        };
        let starts = begun
            .iter()
            .map(|outcome| self.apply(quiet, Place::Server, outcome));
        let starts: Vec<_> = starts.filter(|state| self.within_faults(state)).collect();
        match self.faults.from {
            From::Order => starts,
            From::Prepared => vec![self.prepared(starts[0])],
        }
    }

    /// The state in which all are ready and have said so, and nobody has read that yet.
    fn prepared(&self, mut state: State) -> State {
        let letters: Vec<_> = state.net.letters().collect();
        for letter in letters {
            let to = self.post.letter(letter).addressee();
            let place = Place::Machine(to.expect("the coordinator wrote it"));
            for what in [
                What::Reads(letter),
                What::Own(Step::CheckPasses(greenlight_protocol::Color::Green)),
            ] {
                let outcomes = self.outcomes(&state, place, &what);
                state = self.apply(state, place, &outcomes[0]);
            }
        }
        state
    }

    fn apply(&self, mut state: State, place: Place, outcome: &Outcome) -> State {
        match place {
            Place::Server => {
                state.server = outcome.node;
                state.coordinator_crashes += u8::from(outcome.crashes);
                for letter in &outcome.sent {
                    state.net.put(*letter);
                }
            }
            Place::Machine(index) => {
                state.machines[index] = outcome.node;
                state.agent_crashes += u8::from(outcome.crashes);
                for letter in &outcome.sent {
                    let letter = self.to_global(index, *letter);
                    if !self.is_reminder(letter) {
                        state.net.put(letter);
                    }
                }
            }
        }
        state.deaths += u8::from(outcome.trouble);
        state.newest = state.newest.max(outcome.opened.unwrap_or_default());
        state.breach = state.breach.or(outcome.breach);
        state
    }

    /// A letter as the instance with this index reads it: every machine calls itself
    /// [`super::machine::ME`], and its peers by what comes after it.
    pub(crate) fn to_local(&self, index: usize, letter: LetterId) -> LetterId {
        let back = self.faults.instances - index;
        self.post.renamed(letter, self.rotation(back))
    }

    /// A letter that the instance with this index wrote, as all others read it.
    pub(crate) fn to_global(&self, index: usize, letter: LetterId) -> LetterId {
        self.post.renamed(letter, self.rotation(index))
    }

    fn rotation(&self, by: usize) -> Renaming {
        let size = self.faults.instances;
        let turned = std::array::from_fn(|i| if i < size { (i + by) % size } else { i });
        let found = RENAMINGS.iter().position(|names| *names == turned);
        found.expect("a rotation is a renaming")
    }

    /// The state without the letters that no longer matter.
    fn without_dead_letters(&self, mut state: State) -> State {
        let server = self.servers.entry(state.server);
        let machines: Vec<_> = self.machines_of(&state).collect();
        let facts = Facts {
            server: &server.node.disk,
            machines: machines.iter().map(|machine| &machine.node.disk).collect(),
            reminders: self.faults.reminders,
            deaths: self.faults.deaths > 0,
            mutant: self.faults.mutant,
            net: &state.net,
            post: &self.post,
        };
        let mut kept = Net::default();
        for letter in state.net.letters() {
            if facts.is_dead(letter) {
                self.check_dead(&state, &facts, letter);
            } else {
                kept.put(letter);
            }
        }
        state.net = kept;
        state
    }

    fn check_dead(&self, state: &State, facts: &Facts<'_>, letter: LetterId) {
        let read = self.read(state, letter);
        let content = self.post.letter(letter);
        let to = content.addressee();
        let node = to.map_or(state.server, |index| state.machines[index]);
        let global = |sent: &LetterId| to.map_or(*sent, |index| self.to_global(index, *sent));
        let sends_nothing = read[0]
            .sent
            .iter()
            .map(global)
            .all(|sent| facts.is_dead(sent) || state.net.has(sent) || self.is_reminder(sent));
        let mut idle = read[0].node == node && sends_nothing;
        if let Letter::Directive(to, envelope) = &*content
            && let Some(same) = facts.same_as(*to, envelope)
        {
            let same = self.read(state, same);
            idle |= same[0].node == read[0].node && same[0].sent == read[0].sent;
        }
        assert!(idle, "{} is not dead", content.describe());
    }

    fn read(&self, state: &State, letter: LetterId) -> Arc<[Outcome]> {
        let place = match self.post.letter(letter).addressee() {
            Some(index) => Place::Machine(index),
            None => Place::Server,
        };
        self.outcomes(state, place, &What::Reads(letter))
    }

    /// Whether this is a letter that only reminds the coordinator of an instance.
    fn is_reminder(&self, letter: LetterId) -> bool {
        !self.faults.reminders && self.post.letter(letter).is_reminder()
    }

    /// Of all states that differ only in the names of instances, the least.
    fn canonical(&self, state: &State) -> State {
        let size = self.faults.instances;
        let fits = |names: &Names| names[size..].iter().copied().eq(size..ROOM);
        let named = RENAMINGS
            .iter()
            .enumerate()
            .filter(|(_, names)| fits(names));
        let machines = |names: &Names| {
            let mut renamed = state.machines;
            for (old, new) in names.iter().enumerate() {
                renamed[*new] = state.machines[old];
            }
            renamed
        };
        let named: Vec<_> = named
            .map(|(renaming, names)| (machines(names), renaming))
            .collect();
        let least = named.iter().map(|(machines, _)| *machines).min();
        let ties = named
            .iter()
            .filter(|(machines, _)| Some(*machines) == least);
        let states = ties.map(|(machines, renaming)| self.renamed(state, *machines, *renaming));
        let states = states.min_by_key(|state| (state.server, state.net));
        states.expect("one of them leaves the state as it is")
    }

    fn renamed(&self, state: &State, machines: [NodeId; ROOM], renaming: Renaming) -> State {
        if renaming == 0 {
            return *state;
        }
        let mut net = Net::default();
        for letter in state.net.letters() {
            net.put(self.post.renamed(letter, renaming));
        }
        State {
            server: self.servers.renamed(state.server, renaming, &self.post),
            machines,
            net,
            ..*state
        }
    }

    fn within_faults(&self, state: &State) -> bool {
        state.coordinator_crashes <= self.faults.coordinator_crashes
            && state.agent_crashes <= self.faults.agent_crashes
            && state.deaths <= self.faults.deaths
    }

    fn outcomes(&self, state: &State, place: Place, what: &What) -> Arc<[Outcome]> {
        match place {
            Place::Server => {
                let entry = self.servers.entry(state.server);
                self.servers.outcomes(&entry, what, &self.post)
            }
            Place::Machine(index) => {
                let entry = self.machines.entry(state.machines[index]);
                match what {
                    What::Reads(letter) => {
                        let letter = self.to_local(index, *letter);
                        self.machines.read(&entry, letter, &self.post)
                    }
                    What::Own(step) => self.machines.take(&entry, step, &self.post),
                }
            }
        }
    }

    /// Offers every outcome that is within the faults and leads to another state.
    fn offer(&self, state: &State, place: Place, what: &What, actions: &mut Vec<Action>) {
        let outcomes = self.outcomes(state, place, what);
        for (number, outcome) in outcomes.iter().enumerate() {
            let next = self.apply(*state, place, outcome);
            if next != *state && self.within_faults(&next) {
                actions.push(Action {
                    place,
                    what: what.clone(),
                    outcome: number,
                });
            }
        }
    }

    /// A gate's deadline is later than the coordinator's budget, so it passes only if the
    /// coordinator is not there to decide. If it has decided to commit and the decision does not
    /// get through before the deadline, G1 is given up by choice (`on_uncertain: serve_old`):
    /// that case is left out here, and stated in the guarantees.
    fn may_expire(&self, state: &State, machine: &Machine) -> bool {
        let Gate::Held { epoch, .. } = machine.gate else {
            return false;
        };
        let server = &self.servers.entry(state.server).node;
        let committed = matches!(
            server.disk.decided.get(&epoch),
            Some(Verdict::Committed | Verdict::Settled)
        );
        let holding = server.process.as_ref().is_some_and(
            |process| matches!(process.phase(), Phase::Holding { epoch: e, .. } if *e == epoch),
        );
        !committed && !holding
    }

    pub(crate) fn machines_of<'a>(
        &'a self,
        state: &'a State,
    ) -> impl Iterator<Item = Arc<Entry<Machine>>> + 'a {
        let ids = &state.machines[..self.faults.instances];
        ids.iter().map(|id| self.machines.entry(*id))
    }

    /// G1: no gate admits to an older release once any gate was opened to a newer one.
    fn never_mixed(&self, state: &State) -> bool {
        self.machines_of(state).all(|machine| {
            let admits = machine.node.gate.admits();
            admits.is_none_or(|admits| admits.ordinal >= state.newest)
        })
    }

    /// G2: no two instances ever make different decisions durable for one cut-over.
    fn never_divided(&self, state: &State) -> bool {
        let mut committed = BTreeSet::new();
        let mut refused = BTreeSet::new();
        for machine in self.machines_of(state) {
            for (epoch, decision) in &machine.node.disk.decided {
                match decision {
                    Decision::Committed => committed.insert(*epoch),
                    Decision::Refused => refused.insert(*epoch),
                };
            }
        }
        committed.is_disjoint(&refused)
    }

    /// G5: what a gate was opened to was committed before, durably.
    fn never_early(&self, state: &State) -> bool {
        let server = &self.servers.entry(state.server).node;
        let committed = |epoch: &Epoch| {
            matches!(
                server.disk.decided.get(epoch),
                Some(Verdict::Committed | Verdict::Settled)
            )
        };
        committed(&state.newest)
            && self.machines_of(state).all(|machine| {
                let disk = &machine.node.disk;
                let mut switched = disk.decided.iter();
                switched.all(|(e, decision)| *decision == Decision::Refused || committed(e))
            })
    }

    fn ends_well(&self, state: &State) -> bool {
        let ended = if self.faults.coordinator_returns {
            self.schedule.ends_well(self, state)
        } else {
            self.schedule.peers_end_well(self, state)
        };
        ended.is_ok()
    }

    /// Why a state does not end well, for counterexamples.
    pub(crate) fn why_stuck(&self, state: &State) -> Option<String> {
        let ended = if self.faults.coordinator_returns {
            self.schedule.ends_well(self, state)
        } else {
            self.schedule.peers_end_well(self, state)
        };
        ended.err()
    }

    /// Whether an instance has promised to obey the decision of this epoch and has none.
    pub(crate) fn is_armed(machine: &Machine) -> Option<Epoch> {
        match &machine.disk.stage {
            Stage::Armed(cut_over) => Some(cut_over.epoch),
            Stage::Settled | Stage::Prepared(_) => None,
        }
    }

    /// An action in words.
    pub(crate) fn tell(&self, action: &Action) -> String {
        let place = match action.place {
            Place::Server => "coordinator".to_owned(),
            Place::Machine(index) => name(index).0,
        };
        let what = match &action.what {
            What::Reads(letter) => self.post.letter(*letter).describe(),
            What::Own(step) => format!("{step:?}"),
        };
        let end = match action.outcome {
            0 => String::new(),
            number => format!(", and crashes after beginning {number} of its effects"),
        };
        format!("{place}: {what}{end}")
    }

    /// The state, as far as a person needs it to follow a counterexample.
    pub(crate) fn show(&self, state: &State) -> String {
        let server = &self.servers.entry(state.server).node;
        let phase = server.process.as_ref().map(|p| format!("{:?}", p.phase()));
        let mut text = format!("    coordinator {}\n", phase.unwrap_or("down".into()));
        for machine in self.machines_of(state) {
            let machine = &machine.node;
            let stage = machine
                .agent
                .as_ref()
                .map(|a| format!("{:?}", a.status().stage));
            let apps: Vec<_> = machine.apps.keys().collect();
            text += &format!(
                "    {} {:?} runs {apps:?} decided {:?}\n",
                stage.unwrap_or("down".into()),
                machine.gate,
                machine.disk.decided
            );
        }
        text
    }
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.starts.clone()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let server = self.servers.entry(state.server);
        for step in &server.steps {
            let barred = match step {
                Step::Restarts => !self.faults.coordinator_returns,
                Step::Crashes => state.coordinator_crashes >= self.faults.coordinator_crashes,
                Step::CoordinatorTimer(CoordinatorTimer::WarmOver(_)) => !self.faults.retires,
                _ => false,
            };
            if barred {
                continue;
            }
            self.offer(state, Place::Server, &What::Own(step.clone()), actions);
        }
        for index in 0..self.faults.instances {
            let place = Place::Machine(index);
            let machine = self.machines.entry(state.machines[index]);
            for step in &machine.steps {
                let barred = match step {
                    Step::SlotDies(_) => state.deaths >= self.faults.deaths,
                    Step::Crashes => state.agent_crashes >= self.faults.agent_crashes,
                    Step::HoldExpires => !self.may_expire(state, &machine.node),
                    _ => false,
                };
                if !barred {
                    self.offer(state, place, &What::Own(step.clone()), actions);
                }
            }
            if self.faults.reconnections && machine.node.agent.is_some() {
                self.offer(state, place, &What::Own(Step::Connects), actions);
                let seen = What::Own(Step::SeesConnection(index));
                self.offer(state, Place::Server, &seen, actions);
            }
        }
        for letter in state.net.letters() {
            let place = match self.post.letter(letter).addressee() {
                Some(index) => Place::Machine(index),
                None => Place::Server,
            };
            self.offer(state, place, &What::Reads(letter), actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let outcomes = self.outcomes(state, action.place, &action.what);
        let next = self.apply(*state, action.place, &outcomes[action.outcome]);
        Some(self.canonical(&self.without_dead_letters(next)))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let g1 = Property::always("G1", |fleet: &Self, state: &State| fleet.never_mixed(state));
        if self.check == Check::OnlyG1 {
            return vec![g1];
        }
        vec![
            g1,
            Property::always("G2", |fleet: &Self, state: &State| {
                fleet.never_divided(state)
            }),
            Property::always("G5", |fleet: &Self, state: &State| fleet.never_early(state)),
            Property::always("G3, G4 and G6", |_: &Self, state: &State| {
                state.breach.is_none()
            }),
            Property::always("it ends well", |fleet: &Self, state: &State| {
                fleet.ends_well(state)
            }),
        ]
    }
}

fn past_of_agent(faults: Faults) -> Vec<AgentRecord> {
    let epoch = Epoch(1);
    vec![
        AgentRecord::Prepared(Box::new(first(faults))),
        AgentRecord::Armed(epoch),
        AgentRecord::Switched(epoch),
        AgentRecord::Retired(epoch),
    ]
}

fn past_of_coordinator(faults: Faults) -> Vec<CoordinatorRecord> {
    let order = order(faults, "d1", "v1");
    let deployment = order.deployment.clone();
    let begin = Begin {
        position: greenlight_protocol::plan::Position::default(),
        cut_over: first(faults),
        reason: None,
    };
    vec![
        CoordinatorRecord::Accepted(Box::new(order)),
        CoordinatorRecord::Begun(Box::new(begin)),
        CoordinatorRecord::Committed(Epoch(1)),
        CoordinatorRecord::Settled(Epoch(1)),
        CoordinatorRecord::Finished {
            deployment,
            outcome: greenlight_protocol::Outcome::Promoted,
        },
        CoordinatorRecord::Retired(Epoch(1)),
    ]
}

fn first(faults: Faults) -> CutOver {
    let order = order(faults, "d1", "v1");
    CutOver {
        epoch: Epoch(1),
        deployment: order.deployment,
        direction: Direction::Forward,
        participants: (0..faults.instances).map(name).collect(),
        releases: order.releases,
        policy: order.policy,
    }
}

fn order(faults: Faults, deployment: &str, version: &str) -> Order {
    let instances = (0..faults.instances).map(name).collect();
    let release = Release {
        version: version.to_owned(),
        digest: version.to_owned(),
        spec: "-".to_owned(),
    };
    Order {
        deployment: DeploymentId(deployment.to_owned()),
        by: "the-model".to_owned(),
        releases: [("shop".into(), release)].into(),
        plan: Plan::compile(Strategy::BlueGreen, &instances).expect("there are instances"),
        policy: Policy {
            // Bounds the number of cut-overs.
            rollback_attempts: 1,
            ..Policy::default()
        },
        promotion: Promotion::Automatic,
    }
}
