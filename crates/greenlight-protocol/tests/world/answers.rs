//! The answer of a gate to what its agent asked, as the agent's event.

use greenlight_protocol::{AgentEvent, GateAction, HoldEvidence, SwitchEvidence};

/// What the agent learns when the gate has answered, or refused and why. That an opening or a
/// parking is refused is only logged.
pub(crate) fn event(action: &GateAction, answered: Result<(), String>) -> Option<AgentEvent> {
    match (action, answered) {
        (GateAction::Hold { epoch, .. }, Ok(())) => Some(AgentEvent::GateHeld {
            epoch: *epoch,
            evidence: HoldEvidence::default(),
        }),
        (GateAction::Hold { epoch, .. }, Err(reason)) => Some(AgentEvent::GateRefused {
            epoch: *epoch,
            reason,
        }),
        (GateAction::Open { epoch, colors }, Ok(())) => Some(AgentEvent::GateOpened {
            epoch: *epoch,
            colors: colors.clone(),
            evidence: SwitchEvidence::default(),
        }),
        (GateAction::Park { services, .. }, Ok(())) => Some(AgentEvent::GateParked {
            services: services.clone(),
        }),
        (GateAction::Open { .. } | GateAction::Park { .. }, Err(_)) => None,
    }
}
