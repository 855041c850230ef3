//! The gate of one machine of the story, and the front that stands in its place and will not change.

use super::{Gate, Machine, Story, Timer};
use crate::world::answers;
use crate::world::proxy::{Asked, Did, Proxy};
use crate::world::slots::Slots;
use greenlight_gate::{CountsByService, GateMutant, Mode, OnUncertain};
use greenlight_protocol::{
    AgentEvent, Color, GateAction, HoldEvidence, InstanceId, ServiceName, SwitchEvidence,
};
use std::collections::BTreeSet;
use std::time::Duration;

impl Machine {
    /// A machine on which nothing was ever started.
    pub(super) fn new() -> Self {
        let mut proxy = Proxy::new(GateMutant::None);
        proxy.start();
        Self {
            agent: None,
            disk: Vec::new(),
            proxy,
            slots: Slots::default(),
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
        let leader = self.proxy.leader();
        match leader.and_then(|leader| self.proxy.mode(leader, &service.into())) {
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
        let kept = &mut self.proxy.file.written.services;
        let state = kept.get_mut(service).expect("it is known");
        state.mode = Mode::Open { color };
        state.epoch = 0;
        state.opened = 0;
        let leader = self.proxy.leader().expect("it is there");
        self.proxy.end(leader, false);
        self.proxy.start();
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

impl Story {
    pub(super) fn gate(&mut self, at: &InstanceId, asked: Asked) {
        let machine = self.machine(at);
        let answer = if machine.gate_is_away {
            answers::event(&asked.action, Err("the test's gate is away".to_owned()))
        } else if machine.front_is_stubborn {
            Some(machine.stubbornly(asked.action))
        } else {
            machine.holds += usize::from(matches!(asked.action, GateAction::Hold { .. }));
            machine.proxy.ask(asked);
            None
        };
        if let Some(answer) = answer {
            self.learns(at, answer);
        }
        self.gate_goes_on(at);
    }

    /// The deadline of a hold passes at the gate.
    pub(super) fn gate_deadline(&mut self, at: &InstanceId, process: u64, generation: u64) {
        self.machine(at).proxy.deadline_passes(process, generation);
        self.gate_goes_on(at);
    }

    /// The proxy carries out what it has to. Nothing takes time, and no request is in flight.
    pub(super) fn gate_goes_on(&mut self, at: &InstanceId) {
        let now_ns = self.now.0 * 1_000;
        let counts = |_| CountsByService::new();
        while let Some((process, did)) = self.machine(at).proxy.next(now_ns, counts) {
            let proxy = &mut self.machine(at).proxy;
            match did {
                Did::Writes(_) => proxy.writes(process, Ok(())),
                Did::Waits { ticket, .. } => proxy.wait_is_over(process, ticket, true),
                Did::Armed {
                    generation,
                    after_ms,
                    ..
                } => {
                    let timer = Timer::Gate(at.clone(), process, generation);
                    self.set_timer(timer, Duration::from_millis(after_ms));
                }
                Did::Answered(asked, answer) => {
                    let answer = answer.map(drop).map_err(|refusal| refusal.to_string());
                    if let Some(event) = answers::event(&asked.action, answer) {
                        self.learns(at, event);
                    }
                }
                Did::Routed { .. }
                | Did::ResetCounters(_)
                | Did::CountedExpiry(_)
                | Did::Replicates { .. }
                | Did::HandsOver(_)
                | Did::ServicesSet
                | Did::AnsweredOther => {}
            }
        }
    }
}
