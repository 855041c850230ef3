//! The coordinator's vocabulary: what people ask, what it learns, what its shell must do.

use super::ledger::{CoordinatorRecord, DeploymentRequest};
use super::phase::PhaseName;
use crate::id::{DeploymentId, Epoch, InstanceId, ServiceName};
use crate::message::{DirectiveEnvelope, ReportEnvelope};
use crate::policy::Policy;
use crate::strategy::{Plan, PlanError};
use std::time::Duration;

/// What the shell must do, in the order in which it is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorEffect {
    /// Make this durable before carrying out anything after it; if that fails, end the process.
    Persist(CoordinatorRecord),
    /// Send this to an agent. May be lost: the coordinator sends it again.
    Send {
        to: InstanceId,
        envelope: DirectiveEnvelope,
    },
    /// Wake the coordinator with `TimerFired` after this long.
    SetTimer {
        timer: CoordinatorTimer,
        /// How long from now.
        after: Duration,
    },
}

/// The coordinator's timers. One that fires after its phase is over is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CoordinatorTimer {
    /// When preparing has taken too long.
    PrepareDeadline(Epoch),
    /// When looking at each other has taken too long.
    PeersDeadline(Epoch),
    /// When arming has taken too long.
    ArmDeadline(Epoch),
    /// When holding has taken too long.
    HoldBudget(Epoch),
    /// When to stop waiting for an unreachable instance to confirm an abort.
    AbortDeadline(Epoch),
    /// When the command before the switch has taken too long.
    BeforeSwitchDeadline(Epoch),
    /// When to send the phase's directive again to the instances that have not answered.
    Resend(Epoch),
    /// When the watch is over.
    WatchOver(Epoch),
    /// When the old release has been kept warm for long enough.
    WarmOver(Epoch),
    /// When to try a rollback again.
    RetryRollback(Epoch),
}

/// What a person asks. May be refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Bring releases to the fleet.
    Deploy(Box<DeploymentRequest>),
    /// Cut a prepared deployment over.
    Promote,
    /// Stop the deployment: before the commit nothing changes, after it the fleet is rolled back.
    Abort {
        /// The person who requested it, as text.
        requested_by: String,
    },
    /// Cut over to what was live before.
    Rollback(Box<RollbackRequest>),
}

/// A rollback as a person asks for it. The coordinator knows what it restores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RollbackRequest {
    pub deployment: DeploymentId,
    /// The person who requested it, as text.
    pub requested_by: String,
    pub plan: Plan,
    /// Timers and choices; those of the latest deployment unless given.
    pub policy: Option<Policy>,
}

/// What a command led to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Accepted {
    /// A deployment has begun.
    Started(DeploymentId),
    /// The same releases are being deployed; this is that deployment.
    Attached(DeploymentId),
    /// It is done as asked.
    Done(DeploymentId),
}

/// Why a command was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One deployment at a time.
    #[error("`{version}` is being deployed by {requested_by} ({deployment}, {phase})")]
    Busy {
        /// The one under way.
        deployment: DeploymentId,
        version: String,
        /// The person who requested it.
        requested_by: String,
        /// The phase that it is in.
        phase: PhaseName,
    },
    /// An instance of the plan is not there.
    #[error("instance `{0}` is not connected")]
    NotConnected(InstanceId),
    /// An instance of the plan is unknown.
    #[error("instance `{0}` is not part of this fleet")]
    UnknownInstance(InstanceId),
    /// The plan cannot be run.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A deployment without a release.
    #[error("the deployment names no service")]
    NoServices,
    /// There is nothing to remove.
    #[error("service `{0}` is not live, so it cannot be removed")]
    NotLive(ServiceName),
    /// There is nothing to promote or abort.
    #[error("no deployment is under way")]
    NothingUnderWay,
    /// A promotion before all are ready.
    #[error("the deployment is not waiting for a promotion: it is {0}")]
    NotReady(PhaseName),
    /// There is nothing to roll back to.
    #[error("service `{0}` has no earlier release to roll back to")]
    NoRollbackTarget(ServiceName),
    /// The fleet has never served anything.
    #[error("nothing has been deployed yet, so there is nothing to roll back to")]
    NeverDeployed,
}

/// What the coordinator learns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorEvent {
    /// An agent's link is up.
    Connected(InstanceId),
    /// An agent's link is down.
    Disconnected(InstanceId),
    /// An agent reported.
    Reported {
        from: InstanceId,
        /// What, with its token.
        envelope: ReportEnvelope,
    },
    TimerFired(CoordinatorTimer),
    /// How long the last `Persist` took; a measured part of the predicted hold.
    Synced(Duration),
}
