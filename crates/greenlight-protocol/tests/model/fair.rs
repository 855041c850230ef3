//! What becomes of a state once faults stop: two fair schedules, each run to its end.
//!
//! Everything on its way is lost, whoever is down comes back, every link comes up anew; then
//! messages arrive, checks pass, and timers fire. In one schedule they do so in the order in which
//! they were sent, began and are due, in the other one in the reverse of it. The fleet must come
//! to rest, and at rest the deployment is over, every instance serves the release that its
//! outcome names, and nothing else runs.

use super::fleet::{Fleet, State};
use super::machine::Machine;
use super::step::Step;
use super::table::{MessageId, NodeId, Outcome};
use greenlight_gate::Route;
use greenlight_protocol::agent::Promise;
use greenlight_protocol::{
    AgentTimer, Color, CoordinatorTimer, Outcome as Ending, ParticipationView,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Steps after which a fleet that has not come to rest never will.
const MAX_STEPS: usize = 5_000;
/// Questions after which peers that know nothing never will.
const QUESTIONS: usize = 12;

/// How a schedule ends; if not well, why.
type End = Result<(), String>;

/// What is known of the ends of states; those with the same nodes end the same way.
#[derive(Default)]
pub(crate) struct Schedule {
    known: Mutex<BTreeMap<(NodeId, Vec<NodeId>), End>>,
}

impl Schedule {
    /// Runs a fleet with its coordinator.
    pub(crate) fn ends_well(&self, fleet: &Fleet, state: &State) -> End {
        self.remember(fleet, state, state.server, |mut run| {
            run.connect();
            run.run()?;
            run.at_rest()
        })
    }

    /// Runs the agents alone.
    pub(crate) fn peers_end_well(&self, fleet: &Fleet, state: &State) -> End {
        self.remember(fleet, state, NodeId::MAX, |mut run| {
            run.server = None;
            run.run()?;
            run.at_rest_without_coordinator()
        })
    }

    fn remember(
        &self,
        fleet: &Fleet,
        state: &State,
        server: NodeId,
        run: impl Fn(Run<'_>) -> End,
    ) -> End {
        let machines = state.machines[..fleet.faults.instances].to_vec();
        let key = (server, machines);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = known.get(&key) {
            return ended.clone();
        }
        drop(known);
        let ended = [Order::Straight, Order::Reverse]
            .into_iter()
            .try_for_each(|order| {
                let ended = run(Run::from(fleet, state, order));
                ended.map_err(|why| format!("{order:?}: {why}"))
            });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, ended.clone());
        ended
    }
}

/// In which order what may happen happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The coordinator first, then the first instance; the oldest message; the timer that is due.
    Straight,
    /// The last instance first, the coordinator last; the newest message; and of the timers that
    /// are set the longest, but none twice before each of them has fired.
    Reverse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Coordinator(CoordinatorTimer),
    Agent(usize, AgentTimer),
}

struct Run<'a> {
    fleet: &'a Fleet,
    order: Order,
    server: Option<NodeId>,
    machines: Vec<NodeId>,
    in_flight: VecDeque<MessageId>,
    due: BTreeMap<Timer, Duration>,
    /// In reverse: the timers that are yet to fire before any fires again.
    round: Vec<Timer>,
    now: Duration,
    asked: usize,
}

impl<'a> Run<'a> {
    fn from(fleet: &'a Fleet, state: &State, order: Order) -> Self {
        Self {
            fleet,
            order,
            server: Some(state.server),
            machines: state.machines[..fleet.faults.instances].to_vec(),
            in_flight: VecDeque::new(),
            due: BTreeMap::new(),
            round: Vec::new(),
            now: Duration::ZERO,
            asked: 0,
        }
    }

    /// Everyone is up, and every link comes up anew.
    fn connect(&mut self) {
        while self.prompt_step() {}
        self.in_flight.clear();
        for index in self.indices() {
            self.take_at_server(&Step::SeesConnection(index));
            self.take_at(index, &Step::Connects);
        }
    }

    fn run(&mut self) -> End {
        for _ in 0..MAX_STEPS {
            if self.prompt_step() {
                continue;
            }
            if let Some(message) = self.next_message() {
                self.deliver(message);
                continue;
            }
            let Some(timer) = self.next_timer() else {
                return Ok(());
            };
            let at = self.due.remove(&timer);
            self.now = self.now.max(at.expect("it is set"));
            match timer {
                Timer::Coordinator(timer) => self.take_at_server(&Step::CoordinatorTimer(timer)),
                Timer::Agent(index, timer) => {
                    if self.server.is_none() && matches!(timer, AgentTimer::QueryDecision { .. }) {
                        self.asked += 1;
                        if self.asked > QUESTIONS {
                            return Ok(());
                        }
                    }
                    self.take_at(index, &Step::AgentTimer(timer));
                }
            }
        }
        Err("it never comes to rest".to_owned())
    }

    fn indices(&self) -> Vec<usize> {
        let all = 0..self.machines.len();
        match self.order {
            Order::Straight => all.collect(),
            Order::Reverse => all.rev().collect(),
        }
    }

    fn next_message(&mut self) -> Option<MessageId> {
        match self.order {
            Order::Straight => self.in_flight.pop_front(),
            Order::Reverse => self.in_flight.pop_back(),
        }
    }

    fn next_timer(&mut self) -> Option<Timer> {
        let mut set: Vec<_> = self.due.iter().map(|(timer, at)| (*at, *timer)).collect();
        set.sort_unstable();
        let mut set = set.into_iter().map(|(_, timer)| timer);
        match self.order {
            Order::Straight => set.next(),
            Order::Reverse => {
                self.round.retain(|timer| self.due.contains_key(timer));
                if self.round.is_empty() {
                    self.round.extend(set);
                }
                self.round.pop()
            }
        }
    }

    /// Takes one step that waits for nothing, if there is one.
    fn prompt_step(&mut self) -> bool {
        let took_one = (self.order == Order::Straight && self.prompt_step_at_server())
            || self.prompt_step_at_machines()
            || self.prompt_step_at_server();
        if !took_one {
            self.refresh_timers();
        }
        took_one
    }

    fn prompt_step_at_server(&mut self) -> bool {
        let Some(server) = self.server else {
            return false;
        };
        let step = self.prompt_of(&self.fleet.servers.entry(server).steps);
        if let Some(step) = step {
            self.take_at_server(step);
        }
        step.is_some()
    }

    fn prompt_step_at_machines(&mut self) -> bool {
        for index in self.indices() {
            let entry = self.fleet.machines.entry(self.machines[index]);
            if let Some(step) = self.prompt_of(&entry.steps) {
                self.take_at(index, step);
                return true;
            }
        }
        false
    }

    fn prompt_of<'b>(&self, steps: &'b [Step]) -> Option<&'b Step> {
        let mut prompt = steps.iter().filter(|step| step.is_prompt());
        match self.order {
            Order::Straight => prompt.next(),
            Order::Reverse => prompt.next_back(),
        }
    }

    fn deliver(&mut self, number: MessageId) {
        let message = self.fleet.messages.message(number);
        match message.addressee() {
            Some(index) => {
                let entry = self.fleet.machines.entry(self.machines[index]);
                let local = self.fleet.to_local(index, number);
                let outcomes = self.fleet.machines.read(entry, local, &self.fleet.messages);
                self.done_at(index, &outcomes[0]);
            }
            None => {
                if let Some(server) = self.server {
                    let entry = self.fleet.servers.entry(server);
                    let outcomes = self.fleet.servers.read(entry, number, &self.fleet.messages);
                    self.done_at_server(&outcomes[0]);
                }
            }
        }
        self.refresh_timers();
    }

    fn take_at_server(&mut self, step: &Step) {
        if let Some(server) = self.server {
            let entry = self.fleet.servers.entry(server);
            let outcomes = self.fleet.servers.take(entry, step, &self.fleet.messages);
            self.done_at_server(&outcomes[0]);
            self.refresh_timers();
        }
    }

    fn take_at(&mut self, index: usize, step: &Step) {
        let entry = self.fleet.machines.entry(self.machines[index]);
        let outcomes = self.fleet.machines.take(entry, step, &self.fleet.messages);
        self.done_at(index, &outcomes[0]);
        self.refresh_timers();
    }

    fn done_at_server(&mut self, outcome: &Outcome) {
        self.in_flight.extend(&outcome.sent);
        self.server = Some(outcome.node);
    }

    fn done_at(&mut self, index: usize, outcome: &Outcome) {
        let sent = outcome.sent.iter();
        let sent = sent.map(|message| self.fleet.to_global(index, *message));
        self.in_flight.extend(sent);
        self.machines[index] = outcome.node;
    }

    /// Timers that are newly set begin to run; those that are gone are forgotten.
    fn refresh_timers(&mut self) {
        let mut set = BTreeMap::new();
        if let Some(server) = self.server {
            let entry = self.fleet.servers.entry(server);
            let timers = entry.node.timers.iter();
            set.extend(timers.map(|(timer, after)| (Timer::Coordinator(*timer), *after)));
        }
        for (index, machine) in self.machines.iter().enumerate() {
            let entry = self.fleet.machines.entry(*machine);
            let timers = entry.node.timers.iter();
            set.extend(timers.map(|(timer, after)| (Timer::Agent(index, *timer), *after)));
        }
        self.due.retain(|timer, _| set.contains_key(timer));
        for (timer, after) in set {
            self.due.entry(timer).or_insert(self.now + after);
        }
    }

    fn at_rest(&self) -> End {
        let Some(server) = self.server else {
            return Err("the coordinator is gone".to_owned());
        };
        let server = self.fleet.servers.entry(server);
        let ledger = &server.node.disk;
        if ledger.active().is_some() {
            return Err("the deployment is not over".to_owned());
        }
        let deployment = ledger.deployment.as_ref();
        let ending = deployment.and_then(|d| d.outcome.as_ref());
        let serves = deployment.and_then(|d| match ending {
            Some(Ending::Promoted | Ending::Stuck { .. }) => {
                d.request.releases.get(&"shop".into())?.as_ref()
            }
            Some(Ending::Aborted { .. } | Ending::RolledBack { .. }) | None => {
                d.rollback_target.get(&"shop".into())
            }
        });
        let expected = serves.map(|release| release.digest.as_str());
        for (index, machine) in self.machines.iter().enumerate() {
            let machine = self.fleet.machines.entry(*machine);
            Self::serves_alone(&machine.node, expected)
                .map_err(|why| format!("after {ending:?}, instance {index} {why}"))?;
        }
        Ok(())
    }

    fn serves_alone(machine: &Machine, expected: Option<&str>) -> End {
        let color = match (machine.gate.route(), expected) {
            (Route::Open(color), Some(_)) => Some(color),
            // What was parked and never served keeps nobody waiting.
            (Route::Closed | Route::Held(None), None) => None,
            (route, _) => return Err(format!("has its gate {route:?}")),
        };
        let participation = machine
            .agent
            .as_ref()
            .map(|agent| agent.status().participation);
        if participation != Some(ParticipationView::Idle) {
            return Err(format!("is at {participation:?}"));
        }
        let runs: Vec<_> = machine
            .slots
            .iter()
            .map(|(slot, app)| (slot.color, app.digest.as_str(), app.passed))
            .collect();
        let wanted: Vec<(Color, &str, bool)> = color
            .zip(expected)
            .map(|(color, digest)| (color, digest, true))
            .into_iter()
            .collect();
        if runs != wanted {
            return Err(format!("serves {color:?} and runs {runs:?}"));
        }
        Ok(())
    }

    /// Without a coordinator, peers that are held may wait for it only if nobody among them
    /// knows the decision, and nobody could still abort it: one that could would have, when asked.
    fn at_rest_without_coordinator(&self) -> End {
        let machines: Vec<_> = self
            .machines
            .iter()
            .map(|machine| self.fleet.machines.entry(*machine))
            .collect();
        for machine in &machines {
            let Promise::Armed(cut_over) = &machine.node.disk.promise else {
                continue;
            };
            if machine.node.gate.held_for().is_none() {
                continue;
            }
            let promise = &machine.node.disk.promise;
            let all_wait = machines
                .iter()
                .all(|peer| peer.node.disk.promise == *promise);
            if !all_wait {
                return Err(format!("one waits for e{} for nothing", cut_over.epoch));
            }
        }
        Ok(())
    }
}
