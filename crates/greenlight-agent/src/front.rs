//! What receives user traffic, as the agent's shell drives it.

mod builtin;
mod nginx_reload;
mod proxy_status;

pub use builtin::BuiltinFront;
pub use nginx_reload::NginxReloadFront;
pub(crate) use proxy_status::{ProxyStatus, ProxyStatusError, ask_proxy_status};

use futures_util::future::BoxFuture;
use greenlight_protocol::{
    DrainEvidence, Epoch, GateAction, GateEvidence, HoldEvidence, ServiceName, Slot, SwitchEvidence,
};
use greenlight_release::ports::PortPair;
use greenlight_release::spec::ServiceSpec;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a front did not carry out an action.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FrontError {
    /// It does not answer; it may be restarting.
    #[error("{0}")]
    Unreachable(String),
    /// It refused, with the reason.
    #[error("{0}")]
    Refused(String),
    /// It was to open and could not: it serves what it served.
    #[error("{0}")]
    NotSwitched(String),
}

/// The result of an action on the gate.
#[derive(Clone, Debug)]
pub enum Acted {
    /// The hold is complete.
    Held(HoldEvidence),
    /// The gate is open.
    Opened(SwitchEvidence),
    /// Requests wait.
    Parked,
}

/// Where the two slots of a service are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotAddresses {
    /// The blue slot.
    pub blue: SocketAddr,
    /// The green slot.
    pub green: SocketAddr,
    /// Their ports on this machine: a container is reached there as well, and keeps them when its
    /// address changes.
    pub ports: PortPair,
}

/// What receives user traffic. The agent's shell calls it; it decides nothing.
pub trait Front: Send + Sync {
    /// Defines where the two slots of a service are and which requests are routed to it.
    fn define<'a>(
        &'a self,
        service: &'a ServiceName,
        spec: &'a ServiceSpec,
        addresses: SlotAddresses,
    ) -> BoxFuture<'a, Result<(), FrontError>>;
    /// Holds, opens or parks.
    fn act(&self, action: GateAction) -> BoxFuture<'static, Result<Acted, FrontError>>;
    /// Waits until nothing is in flight to a slot, or until the deadline; returns what was left.
    fn drain(
        &self,
        slot: Slot,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<DrainEvidence, FrontError>>;
    /// What the gates saw of a cut-over.
    fn evidence(&self, epoch: Epoch) -> BoxFuture<'static, Result<GateEvidence, FrontError>>;
    /// The same, as soon as each gate has admitted a request to the new release, or at the
    /// deadline. A front without gates has nothing to wait for.
    fn evidence_after_first_requests(
        &self,
        epoch: Epoch,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<GateEvidence, FrontError>> {
        self.evidence(epoch)
    }
    /// Which incarnation of the front answers; changes when it was restarted.
    fn incarnation(&self) -> BoxFuture<'static, Result<u64, FrontError>>;
}
