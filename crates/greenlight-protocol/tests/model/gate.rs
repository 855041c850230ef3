//! The gate as the model sees it: the real control, its file, and the rules on what it is opened
//! to (G3, G4).
//!
//! Its effects are carried out in their order, and its process may end between any two: between a
//! flip and its record, or between a record and its answer. A hold is as slow as it can be: until
//! it is complete, requests on their way still get through.
//!
//! Deliberately absent: what only counts (totals, evidence). Nothing is decided by it, so the
//! control is kept without; `demands.rs` asks for it.

use super::machine::{Machine, slot};
use super::step::{Fault, Reaches, Taken};
use super::world::answers;
use super::world::proxy::{Admits, Asked, Did, ProcessId, Proxy};
use greenlight_gate::{
    Color, CountsByService, GateControl, GateMutant, Mode, Refusal, Route, Ticket,
};
use greenlight_protocol::{Epoch, GateAction, ServiceName, Slot};
use std::collections::BTreeMap;

/// The gate of the one service, and the process that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    proxy: Proxy,
    /// By process: what requests on their way still reach until nothing is waited for there.
    on_their_way: BTreeMap<ProcessId, Admits>,
    /// Whether it has started anew, and the agent has not noticed.
    is_back: bool,
}

impl Gate {
    /// A gate that is open to this, or was never opened.
    pub(crate) fn open_to(admits: Option<Admits>, mutant: GateMutant) -> Self {
        let mut proxy = Proxy::new(mutant);
        proxy.start();
        proxy.define(&shop());
        if let Some(admits) = admits {
            let epoch = admits.ordinal;
            let colors = [(shop(), Some(admits.color))].into();
            proxy.ask(Asked {
                action: GateAction::Open { epoch, colors },
                targets: [(shop(), Some(admits))].into(),
                has_flipped: false,
                is_forgotten: true,
            });
        }
        while let Some((process, did)) = proxy.next(0, |_| CountsByService::new()) {
            if matches!(did, Did::Writes(_)) {
                proxy.writes(process, Ok(()));
            }
        }
        proxy.normalize(Epoch(0));
        Self {
            proxy,
            on_their_way: BTreeMap::new(),
            is_back: false,
        }
    }

    /// What a request that comes now may reach, in each process. While a hold is not complete, what
    /// is on its way gets through.
    pub(crate) fn admits(&self) -> impl Iterator<Item = Admits> {
        self.proxy
            .processes()
            .filter_map(|process| match self.proxy.route(process, &shop())? {
                Route::Open(color) => Some(self.proxy.admits(&shop(), color)),
                Route::Held(_) | Route::Shed(_) | Route::Closed => {
                    self.on_their_way.get(&process).copied()
                }
            })
    }

    fn leader(&self) -> ProcessId {
        self.proxy
            .leader()
            .expect("it starts anew as soon as it has ended")
    }

    /// What each process that is open admits to.
    fn open_processes(&self) -> impl Iterator<Item = (ProcessId, Admits)> {
        self.proxy.processes().filter_map(|process| {
            let Some(Route::Open(color)) = self.proxy.route(process, &shop()) else {
                return None;
            };
            Some((process, self.proxy.admits(&shop(), color)))
        })
    }

    /// What it does with requests.
    pub(crate) fn route(&self) -> Route {
        let route = self.proxy.route(self.leader(), &shop());
        route.expect("the service is known from the start")
    }

    pub(crate) fn mode(&self) -> Mode {
        self.control().services()[&shop().0].mode
    }

    pub(crate) fn control(&self) -> &GateControl<()> {
        let process = self.proxy.process(self.leader());
        &process.expect("the leader is there").control
    }

    /// Whether the agent has yet to notice that the gate has started anew.
    pub(crate) fn is_back(&self) -> bool {
        self.is_back
    }

    /// The agent is gone: nobody is there to be answered.
    pub(crate) fn forget_who_asked(&mut self) {
        self.proxy.forget_who_asked();
    }

    pub(crate) fn is_noticed(&mut self) {
        self.is_back = false;
    }

    /// The commands that wait for requests on their way, with the process of each.
    fn waits(&self) -> impl Iterator<Item = (ProcessId, Ticket)> {
        let processes = self.proxy.processes();
        processes.flat_map(|process| {
            let waits = self.proxy.waits(process);
            waits.map(move |(ticket, _)| (process, ticket))
        })
    }

    /// How many commands wait for requests on their way.
    pub(crate) fn waiting(&self) -> usize {
        self.waits().count()
    }

    /// Whether a hold has yet to be acknowledged.
    pub(crate) fn is_closing(&self) -> bool {
        let mut asked = self.proxy.unanswered(self.leader());
        asked.any(|asked| matches!(asked.action, GateAction::Hold { .. }))
    }

    /// Whether the agent waits for an answer: it does all but a hold in order, and nothing else
    /// meanwhile.
    pub(crate) fn keeps_agent_waiting(&self) -> bool {
        let mut asked = self.proxy.unanswered(self.leader());
        asked.any(|asked| {
            let is_hold = matches!(asked.action, GateAction::Hold { .. });
            !is_hold && !asked.is_forgotten
        })
    }

    /// The cut-over of a hold whose deadline may end it.
    pub(crate) fn held_for(&self) -> Option<Epoch> {
        self.held_in(self.leader())
    }

    /// The same of a hold that only a follower's own deadline can end: its leader holds no longer,
    /// or what the leader does has yet to arrive.
    pub(crate) fn left_held_for(&self) -> Option<Epoch> {
        let follower = self.proxy.followers().next()?;
        let leader_ends_it = self.held_for().is_some();
        let is_behind = self.proxy.replications().next().is_some();
        self.held_in(follower)
            .filter(|_| is_behind || !leader_ends_it)
    }

    fn held_in(&self, process: ProcessId) -> Option<Epoch> {
        let control = &self.proxy.process(process)?.control;
        let service = &control.services()[&shop().0];
        let ends = matches!(
            service.mode,
            Mode::Held { .. }
                | Mode::Opening {
                    deadline: Some(_),
                    ..
                }
        );
        let runs = !self.proxy.deadlines(process).is_empty();
        (ends && runs).then_some(Epoch(service.epoch))
    }

    /// Whether a replication is on its way to a follower.
    pub(crate) fn replicates(&self) -> bool {
        self.proxy.replications().next().is_some()
    }

    pub(crate) fn is_handing_over(&self) -> bool {
        self.proxy.is_handing_over()
    }

    pub(crate) fn has_follower(&self) -> bool {
        self.proxy.followers().next().is_some()
    }

    /// The newest cut-over that this gate itself was opened to.
    pub(crate) fn has_opened(&self) -> Option<Epoch> {
        self.proxy.newest(&shop())
    }

    /// States that differ only in what no decision depends on are one. No command comes that is
    /// older than what is `over`.
    pub(crate) fn normalize(&mut self, over: Epoch) {
        self.proxy.normalize(over);
    }

    /// The application of this color has ended, and with it what was on its way there.
    pub(crate) fn loses(&mut self, color: Color) {
        self.on_their_way.retain(|_, admits| admits.color != color);
    }
}

fn shop() -> ServiceName {
    "shop".into()
}

impl Taken<Machine> {
    /// A command of the agent reaches the gate.
    pub(crate) fn ask(&mut self, asked: Asked) {
        let action = &asked.action;
        if self.reaches_gate == Reaches::No {
            let answer = answers::event(action, Err(String::new()));
            return self.node.answers.extend(answer);
        }
        let over = self.node.over();
        let is_late = match action {
            GateAction::Hold { epoch, .. } => *epoch <= over,
            GateAction::Open { epoch, .. } | GateAction::Park { epoch, .. } => *epoch < over,
        };
        assert!(!is_late, "{action:?} after {over} was over");
        self.node.gate.proxy.ask(asked);
        self.gate_goes_on();
    }

    /// Nothing is on its way any more where the n-th of the commands waits for that.
    pub(crate) fn wait_is_over(&mut self, n: usize) {
        let gate = &mut self.node.gate;
        let (process, ticket) = gate.waits().nth(n).expect("the step was offered");
        gate.on_their_way.remove(&process);
        gate.proxy.wait_is_over(process, ticket, true);
        self.gate_goes_on();
    }

    /// The deadline of the hold that is on passes.
    pub(crate) fn deadline_passes(&mut self) {
        self.deadline_passes_in(self.node.gate.leader());
    }

    /// The deadline of a follower passes.
    pub(crate) fn follower_deadline_passes(&mut self) {
        let follower = self.node.gate.proxy.followers().next();
        self.deadline_passes_in(follower.expect("the step was offered"));
    }

    fn deadline_passes_in(&mut self, process: ProcessId) {
        let proxy = &mut self.node.gate.proxy;
        let generation = proxy.deadlines(process).first().copied();
        let generation = generation.expect("the step was offered");
        proxy.deadline_passes(process, generation);
        self.gate_goes_on();
    }

    /// The process that leads ends, and starts with what it has written.
    pub(crate) fn gate_restarts(&mut self) {
        let gate = &mut self.node.gate;
        let leader = gate.leader();
        let ended = gate.proxy.end(leader, false);
        gate.on_their_way.remove(&leader);
        gate.is_back = true;
        gate.proxy.start();
        self.fault = Some(Fault::Gate);
        for asked in ended.into_iter().flat_map(|ended| ended.unanswered) {
            self.answered(&asked, Err(String::new()));
        }
        self.gate_goes_on();
    }

    /// A successor asks for everything. One that is refused asks again.
    pub(crate) fn proxy_is_replaced(&mut self) {
        self.node.gate.proxy.replace();
        self.gate_goes_on();
    }

    /// It does with requests what its predecessor did.
    pub(crate) fn successor_leads(&mut self) {
        let gate = &mut self.node.gate;
        let before = gate.route();
        gate.proxy.successor_leads();
        gate.is_back = true;
        if gate.route() != before {
            self.breach = Some("a successor does something else than its predecessor");
        }
        self.gate_goes_on();
    }

    pub(crate) fn successor_fails(&mut self) {
        self.node.gate.proxy.successor_fails();
        self.gate_goes_on();
    }

    pub(crate) fn replication_arrives(&mut self) {
        let proxy = &mut self.node.gate.proxy;
        let to = proxy.replications().next().expect("the step was offered");
        proxy.replication_arrives(to);
        self.gate_goes_on();
    }

    /// A follower has no connections left, and ends.
    pub(crate) fn follower_leaves(&mut self) {
        let gate = &mut self.node.gate;
        let follower = gate.proxy.followers().next();
        let follower = follower.expect("the step was offered");
        gate.on_their_way.remove(&follower);
        gate.proxy
            .follower_leaves(follower, &CountsByService::new());
        self.gate_goes_on();
    }

    /// The proxy's processes carry out what they have to; the one that leads may end after any of
    /// the effects.
    fn gate_goes_on(&mut self) {
        loop {
            if self.gate_ends_in == Some(0) {
                self.gate_ends_in = None;
                return self.gate_restarts();
            }
            let gate = &mut self.node.gate;
            let before: BTreeMap<_, _> = gate.open_processes().collect();
            let Some((process, did)) = gate.proxy.next(0, |_| CountsByService::new()) else {
                break;
            };
            if gate.leader() == process {
                self.gate_effects += 1;
                self.gate_ends_in = self.gate_ends_in.map(|left| left - 1);
            }
            match did {
                Did::Routed {
                    route,
                    asked,
                    opened,
                    ..
                } => {
                    let waits = match asked.map(|asked| asked.action) {
                        Some(GateAction::Hold { .. }) => true,
                        Some(GateAction::Open { .. }) => matches!(route, Route::Held(_)),
                        Some(GateAction::Park { .. }) => false,
                        None => gate.leader() != process && !matches!(route, Route::Open(_)),
                    };
                    let on_their_way = before.get(&process).filter(|_| waits);
                    gate.on_their_way.remove(&process);
                    if let Some(admits) = on_their_way {
                        gate.on_their_way.insert(process, *admits);
                    }
                    self.opened(opened.flatten());
                }
                Did::Writes(_) => gate.proxy.writes(process, Ok(())),
                Did::Answered(asked, answer) => {
                    self.answered(&asked, answer.map(drop).map_err(drop_reason));
                }
                // A follower that has closed before has nothing on its way.
                Did::Waits { ticket, .. }
                    if gate.leader() != process && !gate.on_their_way.contains_key(&process) =>
                {
                    gate.proxy.wait_is_over(process, ticket, true);
                }
                Did::HandsOver(Ok(())) => self.fault = Some(Fault::Replacement),
                Did::HandsOver(Err(_))
                | Did::Armed { .. }
                | Did::Waits { .. }
                | Did::Replicates { .. }
                | Did::ResetCounters(_)
                | Did::CountedExpiry(_)
                | Did::ServicesSet
                | Did::AnsweredOther => {}
            }
        }
        self.node.normalize_gate();
    }

    fn opened(&mut self, to: Option<Admits>) {
        let Some(to) = to else { return };
        self.opened = self.opened.max(Some(to.ordinal));
        let app = self.node.slots.get(&slot(to.color));
        if !app.is_some_and(|app| app.passed) {
            self.breach = Some("G4: a gate opened to what has not passed its check");
        }
    }

    /// An answer is on its way to the agent, if there is one that has asked.
    fn answered(&mut self, asked: &Asked, answer: Result<(), String>) {
        if self.node.agent.is_some() && !asked.is_forgotten {
            self.node
                .answers
                .extend(answers::event(&asked.action, answer));
        }
    }

    pub(crate) fn stop(&mut self, slot: &Slot) {
        let mut admits = self.node.gate.admits();
        if admits.any(|admits| admits.color == slot.color) {
            self.breach = Some("G3: what serves was stopped");
        }
        self.node.slots.stop(slot);
    }

    pub(crate) fn check_serving(&mut self) {
        let mut admits = self.node.gate.admits();
        let apps = &self.node.slots;
        let is_unchecked = |admits: Admits| {
            let app = apps.get(&slot(admits.color));
            app.is_some_and(|app| !app.passed)
        };
        if admits.any(is_unchecked) {
            self.breach = Some("G4: a gate is open to what has not passed its check");
        }
    }
}

/// Reasons are for people, and decide nothing.
fn drop_reason(_: Refusal) -> String {
    String::new()
}
