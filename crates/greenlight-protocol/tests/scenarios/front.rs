//! The gate of one machine of the world, and the front that stands in its place and will not change.

use super::{Gate, Machine, Message, Timer, World};
use crate::gates::{answers, prompt::PromptGate};
use greenlight_gate::{Mode, OnUncertain};
use greenlight_protocol::{
    AgentEvent, Color, GateAction, HoldEvidence, InstanceId, ServiceName, SwitchEvidence,
};
use std::collections::BTreeSet;
use std::time::Duration;

impl Machine {
    /// A machine on which nothing was ever started.
    pub(super) fn new() -> Self {
        Self {
            agent: None,
            disk: Vec::new(),
            gate: PromptGate::new(),
            apps: std::collections::BTreeMap::new(),
            broken: BTreeSet::new(),
            gate_is_away: false,
            front_is_stubborn: false,
            is_unseen: false,
            looks: 0,
            starts: 0,
            commands: Vec::new(),
            holds: 0,
        }
    }

    /// What the gate of a service does with requests.
    pub(crate) fn gate(&self, service: &str) -> Gate {
        match self.gate.mode(service) {
            None | Some(Mode::Closed) => Gate::Closed,
            Some(
                Mode::Open { color }
                | Mode::Expired {
                    served: color,
                    then: OnUncertain::ServeOld,
                },
            ) => Gate::Open(color),
            Some(Mode::Held { .. } | Mode::Closing { .. } | Mode::Opening { .. }) => Gate::Held,
            Some(Mode::Parked { .. }) => Gate::Parked,
            Some(
                Mode::Shed { .. }
                | Mode::Expired {
                    then: OnUncertain::Shed,
                    ..
                },
            ) => Gate::Shed,
        }
    }

    /// The gate's process has lost what it had not synced, and is back.
    pub(crate) fn gate_comes_back_open_to(&mut self, service: &str, color: Color) {
        let mut kept = self.gate.written.clone();
        let state = kept.services.get_mut(service).expect("it is known");
        state.mode = Mode::Open { color };
        state.epoch = 0;
        state.opened = 0;
        self.gate.restart_with(kept, 0);
    }

    /// What a front answers that serves on what it serves.
    fn stubbornly(&self, action: GateAction) -> AgentEvent {
        match action {
            GateAction::Hold { epoch, .. } => AgentEvent::GateHeld {
                epoch,
                evidence: HoldEvidence::default(),
            },
            GateAction::Open { epoch, colors } => {
                let served = |(service, color): (&ServiceName, &Option<Color>)| {
                    color.is_some_and(|color| self.gate(&service.0) == Gate::Open(color))
                };
                match colors.iter().all(served) {
                    true => AgentEvent::GateOpened {
                        epoch,
                        colors,
                        evidence: SwitchEvidence::default(),
                    },
                    false => AgentEvent::GateFailed {
                        epoch,
                        colors,
                        reason: "it kept its configuration".to_owned(),
                    },
                }
            }
            GateAction::Park { services, .. } => AgentEvent::GateParked { services },
        }
    }
}

impl World {
    pub(super) fn gate(&mut self, at: &InstanceId, action: GateAction) {
        let now_ns = self.now.0 * 1_000;
        let machine = self.machine(at);
        let answer = if machine.gate_is_away {
            answers::event(&action, Err("the test's gate is away".to_owned()))
        } else if machine.front_is_stubborn {
            Some(machine.stubbornly(action))
        } else {
            machine.holds += usize::from(matches!(action, GateAction::Hold { .. }));
            let ticket = machine.gate.give(action.request().into(), now_ns);
            let answer = machine.gate.answer(ticket);
            let answer = answer.expect("no request is in flight");
            let answered = answer.map(drop).map_err(|refusal| refusal.to_string());
            answers::event(&action, answered)
        };
        if let Some(answer) = answer {
            self.in_flight.push_back(Message::Local(at.clone(), answer));
        }
        self.arm_gate(at);
    }

    /// The deadline of a hold passes at the gate.
    pub(super) fn gate_deadline(&mut self, at: &InstanceId, generation: u64) {
        let now_ns = self.now.0 * 1_000;
        self.machine(at).gate.deadline_passes(generation, now_ns);
        self.arm_gate(at);
    }

    fn arm_gate(&mut self, at: &InstanceId) {
        for (generation, after_ms) in std::mem::take(&mut self.machine(at).gate.armed) {
            let after = Duration::from_millis(after_ms);
            self.set_timer(Timer::Gate(at.clone(), generation), after);
        }
    }
}
