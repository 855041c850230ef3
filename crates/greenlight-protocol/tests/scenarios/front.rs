//! The gate of one machine of the world, and the front that stands in its place and will not change.

use super::{Gate, Machine, Message, World};
use greenlight_protocol::{
    AgentEvent, Color, GateAction, HoldEvidence, InstanceId, ServiceName, SwitchEvidence,
};

impl Machine {
    /// What a front answers that serves on what it serves.
    fn stubbornly(&self, action: GateAction) -> AgentEvent {
        match action {
            GateAction::Hold { epoch, .. } => AgentEvent::GateHeld {
                epoch,
                evidence: HoldEvidence::default(),
            },
            GateAction::Open { epoch, colors } => {
                let served = |(service, color): (&ServiceName, &Option<Color>)| {
                    self.gates.get(service) == color.map(Gate::Open).as_ref()
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
        let machine = self.machine(at);
        let (GateAction::Hold { epoch, .. }
        | GateAction::Open { epoch, .. }
        | GateAction::Park { epoch, .. }) = &action;
        let epoch = *epoch;
        let services: Vec<_> = match &action {
            GateAction::Hold { services, .. } | GateAction::Park { services, .. } => {
                services.iter().cloned().collect()
            }
            GateAction::Open { colors, .. } => colors.keys().cloned().collect(),
        };
        let mut fences = services.iter().filter_map(|s| machine.fences.get(s));
        if machine.gate_is_away || fences.any(|fence| epoch < *fence) {
            if matches!(action, GateAction::Hold { .. }) {
                let reason = "the test's gate refuses".to_owned();
                let refused = AgentEvent::GateRefused { epoch, reason };
                self.in_flight
                    .push_back(Message::Local(at.clone(), refused));
            }
            return;
        }
        let fences = services.into_iter().map(|service| (service, epoch));
        machine.fences.extend(fences);
        if machine.front_is_stubborn {
            let answer = machine.stubbornly(action);
            self.in_flight.push_back(Message::Local(at.clone(), answer));
            return;
        }
        let answer = match action {
            GateAction::Hold {
                epoch, services, ..
            } => {
                machine.holds += 1;
                let closed = services.into_iter().map(|service| (service, Gate::Held));
                machine.gates.extend(closed);
                let evidence = HoldEvidence::default();
                AgentEvent::GateHeld { epoch, evidence }
            }
            GateAction::Open { epoch, colors } => {
                for (service, color) in &colors {
                    match color {
                        Some(color) => machine.gates.insert(service.clone(), Gate::Open(*color)),
                        None => machine.gates.remove(service),
                    };
                }
                let evidence = SwitchEvidence::default();
                AgentEvent::GateOpened {
                    epoch,
                    colors,
                    evidence,
                }
            }
            GateAction::Park { services, .. } => {
                let parked = services.iter().cloned();
                let parked = parked.map(|service| (service, Gate::Parked));
                machine.gates.extend(parked);
                AgentEvent::GateParked { services }
            }
        };
        self.in_flight.push_back(Message::Local(at.clone(), answer));
    }
}
