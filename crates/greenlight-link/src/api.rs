//! The requests and responses of the server's HTTP API, without those of the agents' link.

mod event;

pub use event::{DeploymentEvent, InstanceProgress, NumberedEvent};
pub use greenlight_protocol::coordinator::PhaseName;

use crate::receipt::Receipt;
use greenlight_protocol::coordinator::Promotion;
use greenlight_protocol::{
    Color, DeploymentId, InstanceId, InstanceStatus, Outcome, Policy, Release, ServiceName,
    Strategy,
};
use greenlight_release::ports::RequestedAddresses;
use greenlight_release::secret::{RegistryLogin, Secrets};
use greenlight_release::spec::image::Pin;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `POST /v1/deployments`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeployRequest {
    /// The name of the person who asks, for people to read.
    pub requested_by: String,
    /// What each service is to run.
    #[serde(default)]
    pub releases: BTreeMap<ServiceName, Release>,
    /// Services that are to be live no more.
    #[serde(default)]
    pub remove: BTreeSet<ServiceName>,
    /// By service: what its release needs and must not carry. Never kept by the server.
    #[serde(default)]
    pub secrets: BTreeMap<ServiceName, Secrets>,
    /// By instance: where it is to be reached. One that is not listed stays where it is, and
    /// chooses ports for what is new.
    #[serde(default)]
    pub addresses: BTreeMap<InstanceId, RequestedAddresses>,
    pub strategy: Strategy,
    /// Timers and choices; those of the latest deployment if none.
    pub policy: Option<Policy>,
    /// Whether it continues automatically when all are ready.
    pub promotion: Promotion,
}

/// `POST /v1/images`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinRequest {
    /// The image's name.
    pub image: String,
    /// Credentials for its registry.
    pub login: Option<RegistryLogin>,
}

/// The digest to which an image's name resolves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinAnswer {
    pub pin: Pin,
}

/// `POST /v1/rollback`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// The name of the person who asks, for people to read.
    pub requested_by: String,
    /// Roll back only to this version; if none, to what was live before.
    pub version: Option<String>,
    /// Timers and choices; those of the latest deployment if none.
    pub policy: Option<Policy>,
}

/// `POST /v1/promote` and `POST /v1/abort`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActRequest {
    /// The name of the person who asks, for people to read.
    pub requested_by: String,
}

/// The answer to every command that is accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// The deployment it is about.
    pub deployment: DeploymentId,
    /// Whether it was under way already.
    pub attached: bool,
}

/// Why a command was refused, and what to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What is wrong.
    pub error: String,
    /// What to do next.
    pub help: String,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FleetStatus {
    /// The coordinator's incarnation.
    pub term: u64,
    /// The last cut-over's number.
    pub epoch: u64,
    /// By service: the version of what the fleet serves by decision.
    pub live: BTreeMap<ServiceName, String>,
    /// Every instance; `None` if it is not connected.
    pub instances: BTreeMap<InstanceId, Option<InstanceStatus>>,
    /// The deployment under way.
    pub deployment: Option<DeploymentStatus>,
    /// Whether an earlier release is being stopped somewhere.
    pub retiring: bool,
    /// Whether an earlier release still runs, so that a rollback needs no start.
    pub warm: bool,
}

/// The present state of a deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentStatus {
    pub deployment: DeploymentId,
    /// The person who requested it.
    pub requested_by: String,
    /// By service: the version of the release it brings.
    pub releases: BTreeMap<ServiceName, String>,
    /// The services it removes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<ServiceName>,
    /// Its phase.
    pub phase: PhaseName,
    /// The instances that have not answered in this phase.
    pub waiting_for: Vec<InstanceId>,
    /// When it was accepted, in milliseconds since 1970.
    pub since_ms: u64,
}

/// `GET /v1/logs`, by instance; `None` for one that did not answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogsAnswer {
    /// What was written there.
    pub instances: BTreeMap<InstanceId, Option<Vec<SlotLog>>>,
}

/// The last lines that the application of one slot wrote, or the one before it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotLog {
    pub service: ServiceName,
    /// The slot's color.
    pub color: Color,
    /// The lines, oldest first.
    pub lines: Vec<String>,
    /// Whether lines before them were left out that had been asked for, because an answer is
    /// bounded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
}

/// `GET /v1/deployments`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    /// The latest deployments, oldest first.
    pub deployments: Vec<DeploymentSummary>,
}

/// A deployment without its evidence: each has a receipt of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSummary {
    /// Its id.
    pub deployment: String,
    /// The person who requested it.
    pub requested_by: String,
    /// By service: the version of the release it brought.
    pub releases: BTreeMap<ServiceName, String>,
    /// The services it removed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<ServiceName>,
    /// By service: the version of what was live before.
    pub previous: BTreeMap<ServiceName, String>,
    /// When it was accepted, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, in milliseconds since 1970.
    pub finished_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

impl From<&Receipt> for DeploymentSummary {
    fn from(receipt: &Receipt) -> Self {
        Self {
            deployment: receipt.deployment.clone(),
            requested_by: receipt.requested_by.clone(),
            releases: receipt.releases.clone(),
            removed: receipt.removed.clone(),
            previous: receipt.previous.clone(),
            started_ms: receipt.started_ms,
            finished_ms: receipt.finished_ms,
            outcome: receipt.outcome.clone(),
        }
    }
}
