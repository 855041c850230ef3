//! What a gate must do for the protocol, asked of the control in every state that it can reach.
//!
//! Each demand of `docs/design/testing.md` is a short story, told on a copy of the control.

use super::world::prompt::PromptGate;
use super::world::shell::GateProcess;
use greenlight_gate::{
    Answer, Color, Command, GateControl, HoldRequest, Mode, OnUncertain, OpenRequest, Refusal,
    Role, Route, ServiceEvidence, ServicesRequest,
};

const SHOP: &str = "shop";
const MAIL: &str = "mail";
const NEW: &str = "new";
const NOW_NS: u64 = 1;

/// The demand that the control would break, if any.
pub(crate) fn flaw(control: &GateControl<()>) -> Option<&'static str> {
    if control.role() != Role::Leader || !control.followers().is_empty() {
        // With others it does the same, but later.
        return None;
    }
    let demands = [
        parking_ends_by_opening_alone,
        other_deadlines_run_on,
        older_commands_change_nothing,
        what_was_never_opened_is_not_held,
        the_last_admission_is_told_as_it_is,
        an_expiry_does_not_cease_to_be_told,
        a_hold_is_not_handed_over,
    ];
    let copy = || Probe::of(control);
    demands.into_iter().find_map(|demand| demand(copy()).err())
}

type Demand = Result<(), &'static str>;

fn ask(is_met: bool, demand: &'static str) -> Demand {
    is_met.then_some(()).ok_or(demand)
}

fn parking_ends_by_opening_alone(mut probe: Probe) -> Demand {
    let demand = "a parked service is let go by a deadline";
    let epoch = probe.next_epoch();
    probe.open(epoch, &[SHOP, MAIL], Color::Blue);
    probe.park(epoch, &[SHOP]);
    probe.hold(epoch + 1, &[SHOP, MAIL]);
    probe.restart();
    probe.pass_deadlines();
    ask(
        probe.route(SHOP) == Some(Route::Held(Some(Color::Blue))),
        demand,
    )?;
    ask(probe.route(MAIL) == Some(Route::Open(Color::Blue)), demand)?;
    probe.open(epoch + 1, &[SHOP], Color::Green);
    ask(probe.route(SHOP) == Some(Route::Open(Color::Green)), demand)
}

fn other_deadlines_run_on(mut probe: Probe) -> Demand {
    let epoch = probe.next_epoch();
    probe.open(epoch, &[SHOP, MAIL], Color::Blue);
    probe.hold(epoch + 1, &[SHOP, MAIL]);
    probe.open(epoch + 1, &[MAIL], Color::Green);
    probe.pass_deadlines();
    let runs_on = probe.route(SHOP) == Some(Route::Open(Color::Blue));
    ask(runs_on, "an opening stops the deadlines of other services")
}

fn older_commands_change_nothing(mut probe: Probe) -> Demand {
    let demand = "G6: the gate obeys an older cut-over";
    let epoch = probe.next_epoch() + 1;
    probe.hold(epoch, &[MAIL]);
    let before = probe.gate.process.control.clone();
    probe.hold(epoch - 1, &[SHOP, MAIL]);
    probe.open(epoch - 1, &[SHOP, MAIL], Color::Green);
    probe.park(epoch - 1, &[SHOP, MAIL]);
    ask(probe.gate.process.control == before, demand)?;
    probe.open(epoch, &[MAIL], Color::Green);
    probe.hold(epoch, &[MAIL]);
    ask(probe.route(MAIL) == Some(Route::Open(Color::Green)), demand)
}

fn what_was_never_opened_is_not_held(mut probe: Probe) -> Demand {
    let epoch = probe.next_epoch();
    probe.hold(epoch, &[NEW]);
    let is_acknowledged = matches!(probe.answer, Some(Ok(Answer::Held(_))));
    let is_closed = probe.gate.mode(NEW) == Some(Mode::Closed);
    let demand = "a service that was never opened is held";
    ask(is_acknowledged && is_closed, demand)
}

fn the_last_admission_is_told_as_it_is(mut probe: Probe) -> Demand {
    let demand = "the last admission to the old color is not told as it is";
    let epoch = probe.next_epoch();
    probe.open(epoch, &[SHOP], Color::Blue);
    probe.hold(epoch + 1, &[SHOP]);
    probe.pass_deadlines();
    probe.admitted(SHOP, 7);
    let told = probe.evidence(epoch + 1, SHOP).last_admission_old_ns;
    ask(told == Some(7), demand)?;
    probe.open(epoch + 1, &[SHOP], Color::Blue);
    probe.admitted(SHOP, 9);
    let told = probe.evidence(epoch + 1, SHOP).last_admission_old_ns;
    ask(told == Some(7), demand)
}

fn an_expiry_does_not_cease_to_be_told(mut probe: Probe) -> Demand {
    let epoch = probe.next_epoch();
    probe.open(epoch, &[SHOP], Color::Blue);
    probe.hold(epoch + 1, &[SHOP]);
    probe.pass_deadlines();
    probe.hold(epoch + 1, &[SHOP]);
    let after_a_repetition = probe.evidence(epoch + 1, SHOP).expired;
    probe.restart();
    let after_a_restart = probe.evidence(epoch + 1, SHOP).expired;
    let demand = "that a hold has expired ceases to be told";
    ask(after_a_repetition && after_a_restart, demand)
}

fn a_hold_is_not_handed_over(mut probe: Probe) -> Demand {
    let epoch = probe.next_epoch();
    probe.open(epoch, &[SHOP], Color::Blue);
    probe.hold(epoch + 1, &[SHOP]);
    probe.give(Command::HandOver);
    let is_refused = matches!(probe.answer, Some(Err(Refusal::HoldIsOn)));
    ask(
        is_refused,
        "a hold is handed over, and its deadline begins anew",
    )
}

/// A copy of a control, with more services, whose commands are carried out at once.
struct Probe {
    gate: PromptGate,
    answer: Option<Result<Answer, Refusal>>,
}

impl Probe {
    fn of(control: &GateControl<()>) -> Self {
        let process = GateProcess::around(control.clone());
        let mut gate = PromptGate::of(process, control.mutant());
        for name in [SHOP, MAIL, NEW] {
            gate.define(name);
        }
        Self { gate, answer: None }
    }

    fn next_epoch(&self) -> u64 {
        self.gate.process.control.epoch() + 1
    }

    fn route(&self, service: &str) -> Option<Route> {
        self.gate.mode(service).map(Mode::route)
    }

    fn evidence(&self, epoch: u64, service: &str) -> ServiceEvidence {
        let control = &self.gate.process.control;
        let evidence = control.evidence(epoch, &self.gate.counts, None);
        evidence.get(service).cloned().unwrap_or_default()
    }

    fn admitted(&mut self, service: &str, at_ns: u64) {
        let counts = self.gate.counts.entry(service.to_owned()).or_default();
        counts.blue.last_admission_ns = Some(at_ns);
    }

    fn hold(&mut self, epoch: u64, services: &[&str]) {
        self.give(Command::Hold(HoldRequest {
            epoch,
            services: owned(services),
            max_hold_ms: 1,
            on_uncertain: OnUncertain::ServeOld,
            exclusive_ms: None,
        }));
    }

    fn open(&mut self, epoch: u64, services: &[&str], color: Color) {
        let services = owned(services).into_iter().map(|name| (name, Some(color)));
        self.give(Command::Open(OpenRequest {
            epoch,
            services: services.collect(),
        }));
    }

    fn park(&mut self, epoch: u64, services: &[&str]) {
        let services = owned(services);
        self.give(Command::Park(ServicesRequest { epoch, services }));
    }

    fn pass_deadlines(&mut self) {
        for generation in std::mem::take(&mut self.gate.armed).into_keys() {
            self.gate.deadline_passes(generation, NOW_NS);
        }
    }

    fn restart(&mut self) {
        let kept = self.gate.process.control.to_persist(&self.gate.counts);
        self.gate.restart_with(kept, NOW_NS);
    }

    fn give(&mut self, command: Command<()>) {
        let ticket = self.gate.give(command, NOW_NS);
        self.answer = self.gate.answer(ticket);
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
