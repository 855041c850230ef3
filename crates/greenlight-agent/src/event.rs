//! What the agent's loop waits for.

use crate::runtime::Running;
use greenlight_link::peer::Readiness;
use greenlight_protocol::{AgentEvent, Epoch, InstanceId, PeerAnswer};
use tokio::sync::oneshot;

/// What the loop waits for.
pub(crate) enum ShellEvent {
    Protocol(AgentEvent),
    /// A peer asks, and waits for the answer.
    DecisionQueried(InstanceId, Epoch, oneshot::Sender<PeerAnswer>),
    /// A peer asks how what is prepared is, and waits for the answer.
    ReadinessQueried(Epoch, oneshot::Sender<Readiness>),
    /// What runs, asked after a restart.
    Found(Vec<Running>),
    /// The service manager's heartbeat asks whether the loop is responsive.
    Ping(oneshot::Sender<()>),
}
