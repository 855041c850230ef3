//! The gate as the model sees it, and the rules on what it is opened to (G3, G4).

use super::machine::Machine;
use super::step::Taken;
use greenlight_protocol::{AgentEvent, Color, Epoch, GateAction, SwitchEvidence};

/// What the gate admits to: a color, and the number of the cut-over that put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admits {
    pub(crate) color: Color,
    pub(crate) ordinal: Epoch,
}

/// The gate of the one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open(Admits),
    /// Asked to hold; requests on their way still get through.
    Closing(Admits),
    Held {
        epoch: Epoch,
        before: Option<Admits>,
    },
    Parked,
    /// The service was removed: requests are refused.
    Closed,
}

impl Gate {
    /// What a request that comes now may reach.
    pub(crate) fn admits(self) -> Option<Admits> {
        match self {
            Self::Open(admits) | Self::Closing(admits) => Some(admits),
            Self::Held { .. } | Self::Parked | Self::Closed => None,
        }
    }
}

impl Taken<Machine> {
    pub(crate) fn gate(&mut self, action: &GateAction) {
        let machine = &mut self.node;
        match action {
            GateAction::Hold { epoch, .. } => {
                machine.asked = Some(*epoch);
                machine.gate = match machine.gate {
                    Gate::Open(admits) | Gate::Closing(admits) => Gate::Closing(admits),
                    Gate::Held { before, .. } => Gate::Held {
                        epoch: *epoch,
                        before,
                    },
                    Gate::Parked | Gate::Closed => Gate::Held {
                        epoch: *epoch,
                        before: None,
                    },
                };
            }
            GateAction::Open { epoch, colors } => {
                machine.asked = None;
                machine.opened.insert(AgentEvent::GateOpened {
                    epoch: *epoch,
                    colors: colors.clone(),
                    evidence: SwitchEvidence::default(),
                });
                let Some(color) = colors[&"shop".into()] else {
                    machine.gate = Gate::Closed;
                    return;
                };
                let Some(admits) = machine.admits(color) else {
                    self.breach = Some("a gate opened to a release that nothing was decided on");
                    return;
                };
                machine.gate = Gate::Open(admits);
                self.opened = self.opened.max(Some(admits.ordinal));
                if !machine.apps.get(&color).is_some_and(|app| app.passed) {
                    self.breach = Some("G4: a gate opened to what has not passed its check");
                }
            }
            GateAction::Park { services, .. } => {
                machine.asked = None;
                machine.gate = Gate::Parked;
                let services = services.clone();
                machine.opened.insert(AgentEvent::GateParked { services });
            }
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
