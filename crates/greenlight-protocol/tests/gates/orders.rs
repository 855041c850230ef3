//! What an agent asks of its gate as a command to the control, and the answer as the agent's event.

use greenlight_gate::{Command, HoldRequest, OpenRequest, ServicesRequest};
use greenlight_protocol::policy::Exclusive;
use greenlight_protocol::{AgentEvent, GateAction, HoldEvidence, SwitchEvidence};
use std::time::Duration;

/// The command that the action is.
pub(crate) fn command(action: &GateAction) -> Command<()> {
    match action {
        GateAction::Hold {
            epoch,
            services,
            max_hold,
            on_uncertain,
            exclusive,
        } => Command::Hold(HoldRequest {
            epoch: epoch.0,
            services: services.iter().map(|service| service.0.clone()).collect(),
            max_hold_ms: millis(*max_hold),
            on_uncertain: *on_uncertain,
            exclusive_ms: match exclusive {
                Exclusive::No => None,
                Exclusive::Yes => Some(millis(*max_hold)),
            },
        }),
        GateAction::Open { epoch, colors } => {
            let services = colors.iter();
            let services = services.map(|(service, color)| (service.0.clone(), *color));
            Command::Open(OpenRequest {
                epoch: epoch.0,
                services: services.collect(),
            })
        }
        GateAction::Park { epoch, services } => Command::Park(ServicesRequest {
            epoch: epoch.0,
            services: services.iter().map(|service| service.0.clone()).collect(),
        }),
    }
}

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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
