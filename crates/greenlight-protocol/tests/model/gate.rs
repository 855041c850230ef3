//! The gate as the model sees it: the real control, its file, and the rules on what it is opened
//! to (G3, G4).
//!
//! Its effects are carried out in their order, and its process may end between any two: between a
//! flip and its record, or between a record and its answer. A hold is as slow as it can be: until
//! it is complete, requests on their way still get through.
//!
//! Deliberately absent: what only counts (totals, evidence). Nothing is decided by it, so the
//! control is kept without; `demands.rs` asks for it.

use super::gates::answers;
use super::gates::shell::{Done, GateProcess};
use super::machine::Machine;
use super::step::{Fault, Reaches, Taken};
use greenlight_gate::{
    Answer, Awaited, Color, Command, CountsByService, GateControl, GateEvent, GateMutant, Mode,
    OpenRequest, Route, RoutingState, Ticket,
};
use greenlight_protocol::{AgentEvent, Epoch, GateAction, HoldEvidence};
use std::collections::{BTreeMap, BTreeSet};

const SHOP: &str = "shop";
/// The command that is given now; the one that waits, if any does, has the number before.
const COMMAND: Ticket = Ticket(2);

/// What the gate admits to: a color, and the number of the cut-over that put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admits {
    pub(crate) color: Color,
    pub(crate) ordinal: Epoch,
}

/// The gate of the one service, and the process that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    process: GateProcess,
    /// The state file.
    written: RoutingState<()>,
    /// The deadlines that run.
    armed: BTreeSet<u64>,
    /// By color: the cut-over that put there what it leads to.
    ordinals: BTreeMap<Color, Epoch>,
    /// A hold that the gate has yet to acknowledge.
    asked: Option<Epoch>,
    /// Whether the agent that asked for it is gone.
    is_forgotten: bool,
    /// What requests on their way still reach until it does.
    on_their_way: Option<Admits>,
    /// Whether it has started anew, and the agent has not noticed.
    is_back: bool,
    mutant: GateMutant,
}

impl Gate {
    /// A gate that is open to this, or was never opened.
    pub(crate) fn open_to(admits: Option<Admits>, mutant: GateMutant) -> Self {
        let mut gate = Self {
            process: GateProcess::restarted(1, RoutingState::default(), mutant),
            written: RoutingState::default(),
            armed: BTreeSet::new(),
            ordinals: BTreeMap::new(),
            asked: None,
            is_forgotten: false,
            on_their_way: None,
            is_back: false,
            mutant,
        };
        let name = SHOP.to_owned();
        gate.give(Command::Define { name, settings: () });
        if let Some(admits) = admits {
            gate.ordinals.insert(admits.color, admits.ordinal);
            gate.give(open(admits.ordinal, Some(admits.color)));
        }
        gate.normalize(Epoch(0));
        gate
    }

    fn give(&mut self, command: Command<()>) {
        let counts = CountsByService::new();
        let process = &mut self.process;
        let ticket = COMMAND;
        process.take(GateEvent::Commanded { ticket, command }, 0, &counts);
        while let Some(done) = process.next(&counts) {
            if let Done::Persists { ticket, state, .. } = done {
                self.written = state;
                let result = Ok(());
                if let Some(ticket) = ticket {
                    process.take(GateEvent::Written { ticket, result }, 0, &counts);
                }
            }
        }
    }

    /// What a request that comes now may reach. While a hold is not complete, what is on its way
    /// gets through.
    pub(crate) fn admits(&self) -> Option<Admits> {
        match self.route() {
            Route::Open(color) => {
                let ordinal = self.ordinals[&color];
                Some(Admits { color, ordinal })
            }
            Route::Held(_) | Route::Shed(_) | Route::Closed => self.on_their_way,
        }
    }

    /// What it does with requests.
    pub(crate) fn route(&self) -> Route {
        self.process.routes[SHOP]
    }

    pub(crate) fn mode(&self) -> Mode {
        self.control().services()[SHOP].mode
    }

    pub(crate) fn control(&self) -> &GateControl<()> {
        &self.process.control
    }

    /// Whether the agent has yet to notice that the gate has started anew.
    pub(crate) fn is_back(&self) -> bool {
        self.is_back
    }

    /// The agent is gone: nobody is there to be answered.
    pub(crate) fn forget_who_asked(&mut self) {
        self.is_forgotten = self.asked.is_some();
    }

    pub(crate) fn is_noticed(&mut self) {
        self.is_back = false;
    }

    /// Whether a hold has yet to be acknowledged.
    pub(crate) fn is_closing(&self) -> bool {
        self.asked.is_some()
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
        let epoch = self.control().services()[SHOP].epoch;
        (ends && !self.armed.is_empty()).then_some(Epoch(epoch))
    }

    /// The newest cut-over that this gate itself was opened to.
    pub(crate) fn has_opened(&self) -> Option<Epoch> {
        self.ordinals.values().copied().max()
    }

    /// States that differ only in numbers of deadlines and orders, or in what only counts, are
    /// one; and a deadline of an earlier generation does nothing. No command comes that is older
    /// than what is `over`, so its fence is forgotten. So is which cut-over put there what the gate
    /// no longer leads to, unless it is the newest.
    pub(crate) fn normalize(&mut self, over: Epoch) {
        for service in self.written.services.values_mut() {
            service.evidence = None;
            service.mode = service.mode.normal_form();
            if service.mode.deadline().is_none() && service.epoch <= over.0 {
                service.epoch = 0;
                service.opened = 0;
            }
        }
        self.armed = self.process.control.normalize(&self.armed, over.0);
        let written = self.written.services.get(SHOP);
        let leads_to = [
            self.mode().served(),
            written.and_then(|service| service.mode.served()),
        ];
        let newest = self.has_opened();
        self.ordinals
            .retain(|color, ordinal| leads_to.contains(&Some(*color)) || Some(*ordinal) == newest);
    }

    /// The application of this color has ended, and with it what was on its way there.
    pub(crate) fn loses(&mut self, color: Color) {
        self.on_their_way = self.on_their_way.filter(|admits| admits.color != color);
    }
}

impl Taken<Machine> {
    /// A command of the agent reaches the gate.
    pub(crate) fn gate(&mut self, action: &GateAction) {
        let admits = |color: &Color| self.node.admits(*color);
        let to = match action {
            GateAction::Open { colors, .. } => {
                let color = colors[&SHOP.into()];
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
            if let Some(event) = answers::event(action, Err(String::new())) {
                self.answers(event, false);
            }
            return;
        }
        let over = self.node.over();
        let is_late = match action {
            GateAction::Hold { epoch, .. } => *epoch <= over,
            GateAction::Open { epoch, .. } | GateAction::Park { epoch, .. } => *epoch < over,
        };
        assert!(!is_late, "{action:?} after {over} was over");
        let (ticket, command) = (COMMAND, action.request().into());
        self.happens(GateEvent::Commanded { ticket, command }, Some((action, to)));
    }

    /// A hold that waits is complete.
    pub(crate) fn hold_completes(&mut self) {
        let ticket = Ticket(1);
        self.node.gate.on_their_way = None;
        self.happens(GateEvent::NoneAdmitting { ticket }, None);
    }

    /// The deadline of the hold that is on passes.
    pub(crate) fn deadline_passes(&mut self) {
        let generation = self.node.gate.armed.pop_first();
        let generation = generation.expect("the step was offered");
        self.happens(GateEvent::DeadlinePassed { generation }, None);
    }

    /// The process ends, and starts with what it has written.
    pub(crate) fn gate_restarts(&mut self) {
        let gate = &mut self.node.gate;
        let asked = gate.asked.take();
        let is_forgotten = std::mem::take(&mut gate.is_forgotten);
        let kept = gate.written.clone();
        gate.process = GateProcess::restarted(1, kept, gate.mutant);
        gate.armed.clear();
        gate.on_their_way = None;
        gate.is_back = true;
        self.fault = Some(Fault::Gate);
        if let Some(epoch) = asked {
            self.answers(refused(epoch), is_forgotten);
        }
        let followers = BTreeSet::new();
        self.happens(GateEvent::Started { followers }, None);
    }

    /// Something happens at the gate; its process may end after any of the effects.
    fn happens(&mut self, event: GateEvent<()>, command: Option<(&GateAction, Option<Admits>)>) {
        let counts = CountsByService::new();
        self.node.gate.process.take(event, 0, &counts);
        let before = self.node.gate.admits();
        let is_hold = matches!(command, Some((GateAction::Hold { .. }, _)));
        loop {
            if self.gate_ends_in == Some(0) {
                self.gate_ends_in = None;
                return self.gate_restarts();
            }
            let process = &mut self.node.gate.process;
            let Some(done) = process.next(&counts) else {
                break;
            };
            self.gate_effects += 1;
            self.gate_ends_in = self.gate_ends_in.map(|left| left - 1);
            match done {
                Done::Routed { route, .. } => {
                    self.node.gate.on_their_way = before.filter(|_| is_hold);
                    self.routed(route, command.and_then(|(_, to)| to));
                }
                Done::Armed { generation, .. } => {
                    self.node.gate.armed.insert(generation);
                }
                Done::Persists { ticket, state, .. } => {
                    self.node.gate.written = state;
                    let result = Ok(());
                    if let Some(ticket) = ticket {
                        process.take(GateEvent::Written { ticket, result }, 0, &counts);
                    }
                }
                Done::Waits { what, .. } => {
                    assert!(matches!(what, Awaited::NoneAdmitting(_)), "{what:?}");
                    if let Some((GateAction::Hold { epoch, .. }, _)) = command {
                        self.node.gate.asked = Some(*epoch);
                        self.node.gate.is_forgotten = false;
                    }
                }
                Done::Replied { ticket, answer } => {
                    let answered = answer.as_ref().ok();
                    self.replied(ticket, answered, command.map(|(action, _)| action));
                }
                Done::ResetCounters(_) | Done::CountExpiry(_) | Done::ServicesSet => {}
                Done::Replicates { .. } => unreachable!("it has no predecessors"),
            }
        }
        self.node.normalize_gate();
    }

    fn routed(&mut self, route: Route, to: Option<Admits>) {
        let Some(to) = to.filter(|to| route == Route::Open(to.color)) else {
            return;
        };
        self.node.gate.ordinals.insert(to.color, to.ordinal);
        self.opened = self.opened.max(Some(to.ordinal));
        let app = self.node.apps.get(&to.color);
        if !app.is_some_and(|app| app.passed) {
            self.breach = Some("G4: a gate opened to what has not passed its check");
        }
    }

    fn replied(&mut self, ticket: Ticket, answer: Option<&Answer>, action: Option<&GateAction>) {
        if ticket != COMMAND {
            // The hold that has waited.
            let Some(epoch) = self.node.gate.asked.take() else {
                return;
            };
            let is_forgotten = std::mem::take(&mut self.node.gate.is_forgotten);
            let evidence = HoldEvidence::default();
            let event = match answer {
                Some(_) => AgentEvent::GateHeld { epoch, evidence },
                None => refused(epoch),
            };
            return self.answers(event, is_forgotten);
        }
        let answered = answer.map(drop).ok_or_else(String::new);
        if let Some(event) = action.and_then(|action| answers::event(action, answered)) {
            self.answers(event, false);
        }
    }

    /// An answer is on its way to the agent, if there is one that has asked.
    fn answers(&mut self, event: AgentEvent, is_forgotten: bool) {
        if self.node.agent.is_some() && !is_forgotten {
            self.node.answers.insert(event);
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

fn refused(epoch: Epoch) -> AgentEvent {
    let reason = String::new();
    AgentEvent::GateRefused { epoch, reason }
}

fn open(epoch: Epoch, color: Option<Color>) -> Command<()> {
    Command::Open(OpenRequest {
        epoch: epoch.0,
        services: [(SHOP.to_owned(), color)].into(),
    })
}
