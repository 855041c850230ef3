//! The gate as the model sees it: the real control, its file, and the rules on what it is opened
//! to (G3, G4).
//!
//! Its effects are carried out in their order, and its process may end between any two: between a
//! flip and its record, or between a record and its answer. A hold is as slow as it can be: until
//! it is complete, requests on their way still get through.
//!
//! Deliberately absent: what only counts (totals, evidence). Nothing is decided by it, so the
//! control is kept without; `demands.rs` asks for it.

use super::machine::Machine;
use super::step::{Fault, Reaches, Taken};
use super::world::answers;
use super::world::proxy::{Admits, Asked, Did, ProcessId, Proxy, Targets};
use greenlight_gate::{
    Color, CountsByService, GateControl, GateMutant, Mode, Refusal, Route, Ticket,
};
use greenlight_protocol::{Epoch, GateAction, ServiceName};

/// The gate of the one service, and the process that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    proxy: Proxy,
    /// What requests on their way still reach until a hold is complete.
    on_their_way: Option<Admits>,
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
            on_their_way: None,
            is_back: false,
        }
    }

    /// What a request that comes now may reach. While a hold is not complete, what is on its way
    /// gets through.
    pub(crate) fn admits(&self) -> Option<Admits> {
        match self.route() {
            Route::Open(color) => Some(self.proxy.admits(&shop(), color)),
            Route::Held(_) | Route::Shed(_) | Route::Closed => self.on_their_way,
        }
    }

    fn leader(&self) -> ProcessId {
        self.proxy
            .leader()
            .expect("it starts anew as soon as it has ended")
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

    /// The hold that has yet to be acknowledged.
    fn closing(&self) -> Option<Ticket> {
        self.proxy
            .waits(self.leader())
            .map(|(ticket, _)| ticket)
            .next()
    }

    /// Whether a hold has yet to be acknowledged.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing().is_some()
    }

    /// The cut-over of a hold whose deadline may end it.
    pub(crate) fn held_for(&self) -> Option<Epoch> {
        let ends = matches!(
            self.mode(),
            Mode::Held { .. }
                | Mode::Opening {
                    deadline: Some(_),
                    ..
                }
        );
        let epoch = self.control().services()[&shop().0].epoch;
        let runs = !self.proxy.deadlines(self.leader()).is_empty();
        (ends && runs).then_some(Epoch(epoch))
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
        self.on_their_way = self.on_their_way.filter(|admits| admits.color != color);
    }
}

fn shop() -> ServiceName {
    "shop".into()
}

impl Taken<Machine> {
    /// A command of the agent reaches the gate.
    pub(crate) fn gate(&mut self, action: &GateAction) {
        let admits = |color: &Color| self.node.admits(*color);
        let to = match action {
            GateAction::Open { colors, .. } => {
                let color = colors[&shop()];
                let to = color.as_ref().and_then(admits);
                if color.is_some() && to.is_none() {
                    self.breach = Some("a gate opened to a release that nothing was decided on");
                    return;
                }
                to
            }
            GateAction::Hold { .. } | GateAction::Park { .. } => None,
        };
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
        let targets = match action {
            GateAction::Open { .. } => [(shop(), to)].into(),
            GateAction::Hold { .. } | GateAction::Park { .. } => Targets::new(),
        };
        self.node.gate.proxy.ask(Asked {
            action: action.clone(),
            targets,
            has_flipped: false,
            is_forgotten: false,
        });
        self.gate_goes_on();
    }

    /// A hold that waits is complete.
    pub(crate) fn hold_completes(&mut self) {
        let gate = &mut self.node.gate;
        let ticket = gate.closing().expect("the step was offered");
        gate.on_their_way = None;
        gate.proxy.wait_is_over(gate.leader(), ticket, true);
        self.gate_goes_on();
    }

    /// The deadline of the hold that is on passes.
    pub(crate) fn deadline_passes(&mut self) {
        let gate = &mut self.node.gate;
        let leader = gate.leader();
        let generation = gate.proxy.deadlines(leader).first().copied();
        let generation = generation.expect("the step was offered");
        gate.proxy.deadline_passes(leader, generation);
        self.gate_goes_on();
    }

    /// The process ends, and starts with what it has written.
    pub(crate) fn gate_restarts(&mut self) {
        let gate = &mut self.node.gate;
        let ended = gate.proxy.end(gate.leader(), false);
        gate.on_their_way = None;
        gate.is_back = true;
        gate.proxy.start();
        self.fault = Some(Fault::Gate);
        for asked in ended.into_iter().flat_map(|ended| ended.unanswered) {
            self.answered(&asked, Err(String::new()));
        }
        self.gate_goes_on();
    }

    /// The gate's process carries out what it has to; it may end after any of the effects.
    fn gate_goes_on(&mut self) {
        let before = self.node.gate.admits();
        loop {
            if self.gate_ends_in == Some(0) {
                self.gate_ends_in = None;
                return self.gate_restarts();
            }
            let proxy = &mut self.node.gate.proxy;
            let Some((process, did)) = proxy.next(0, |_| CountsByService::new()) else {
                break;
            };
            self.gate_effects += 1;
            self.gate_ends_in = self.gate_ends_in.map(|left| left - 1);
            match did {
                Did::Routed { asked, opened, .. } => {
                    let is_hold = |asked: &Asked| matches!(asked.action, GateAction::Hold { .. });
                    let is_hold = asked.as_ref().is_some_and(is_hold);
                    self.node.gate.on_their_way = before.filter(|_| is_hold);
                    self.opened(opened.flatten());
                }
                Did::Writes(_) => proxy.writes(process, Ok(())),
                Did::Answered(asked, answer) => {
                    self.answered(&asked, answer.map(drop).map_err(drop_reason));
                }
                Did::Armed { .. }
                | Did::Waits { .. }
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
        let app = self.node.apps.get(&to.color);
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

    pub(crate) fn stop(&mut self, color: Color) {
        let admits = self.node.gate.admits();
        if admits.is_some_and(|admits| admits.color == color) {
            self.breach = Some("G3: what serves was stopped");
        }
        if let Some(app) = self.node.apps.get_mut(&color) {
            app.stopping = true;
        }
    }

    pub(crate) fn check_serving(&mut self) {
        if let Some(admits) = self.node.gate.admits()
            && let Some(app) = self.node.apps.get(&admits.color)
            && !app.passed
        {
            self.breach = Some("G4: a gate is open to what has not passed its check");
        }
    }
}

/// Reasons are for people, and decide nothing.
fn drop_reason(_: Refusal) -> String {
    String::new()
}
