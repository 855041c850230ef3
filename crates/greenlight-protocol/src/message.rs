//! What coordinator and agents say to each other.
//!
//! *Directives* are imperative, coordinator to agent; *reports* are past tense, agent to coordinator.
//! All may be lost, repeated or reordered: each is answered the same way however often it comes.

use crate::cut_over::CutOver;
use crate::evidence::{Alignment, DrainEvidence, HoldEvidence, SwitchEvidence};
use crate::id::{Epoch, InstanceId, ServiceName, Token};
use crate::release::Color;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A directive with its fencing token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectiveEnvelope {
    /// The sender's term, and the cut-over that the message is about.
    pub token: Token,
    /// What is to be done.
    pub directive: Directive,
}

/// What the coordinator orders an agent to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Directive {
    /// Start the idle slots and get them healthy.
    Prepare(Box<CutOver>),
    /// Look at these peers: is what they have prepared ready as seen from here?
    CheckPeers(BTreeSet<InstanceId>),
    /// Run the command that comes before the switch. Only one agent gets this.
    BeforeSwitch,
    /// Durably promise to obey this epoch's decision.
    Arm,
    /// Stop admitting requests.
    Hold,
    /// The epoch is committed: open to the new release.
    Switch,
    /// The epoch is aborted: open to the old release and remove the new one.
    Abort,
    /// Drain and stop what is no longer live since this epoch.
    Retire,
    /// Send a status. The directive also carries the coordinator's term.
    QueryStatus,
}

/// A report with the token of the directive that it answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReportEnvelope {
    /// The term and epoch spoken of.
    pub token: Token,
    pub report: Report,
}

/// What an agent reports to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The instance's status; sent on connecting and after changes.
    Status(InstanceStatus),
    /// Every slot of the cut-over is healthy, and that is durable.
    Prepared,
    /// A slot did not become healthy.
    PrepareFailed {
        /// What a person should read.
        reason: String,
    },
    /// The peers are ready as seen from here.
    PeersReady,
    /// Some peers are not ready as seen from here.
    PeersNotReady {
        /// By peer: what a person should read.
        unseen: BTreeMap<InstanceId, String>,
    },
    /// The command before the switch has succeeded.
    BeforeSwitchDone {
        /// What it wrote.
        output: String,
    },
    /// The command before the switch has failed.
    BeforeSwitchFailed {
        /// What a person should read.
        reason: String,
    },
    /// The promise is durable.
    Armed {
        /// How long making it durable took.
        sync: Duration,
    },
    /// Nothing more will reach the old release.
    Held(HoldEvidence),
    /// The gate stays open to the old release.
    HoldRefused {
        /// What a person should read.
        reason: String,
    },
    /// The gate is open to the new release, and that is durable.
    Switched(SwitchEvidence),
    /// The decision is durable, but the new release is not served: it is dead and requests wait,
    /// or the front would not change.
    SwitchFailed {
        /// What a person should read.
        reason: String,
    },
    /// The gate is open to the old release, and that is durable.
    Aborted,
    /// What was not live is stopped.
    Retired(DrainEvidence),
    /// A live slot died or fails its check.
    Unhealthy {
        service: ServiceName,
        /// What a person should read.
        reason: String,
    },
    /// Held, and waiting for the decision.
    InDoubt,
    /// The directive was older than what this agent has seen.
    Fenced,
}

/// The status of an instance, as it reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// By service: what is live there.
    pub live: BTreeMap<ServiceName, LiveReleaseView>,
    /// How far it takes part in a cut-over.
    pub participation: ParticipationView,
    /// The highest epoch whose decision it has made durable.
    pub decided: Epoch,
    /// What its cut-overs are worth.
    #[serde(default)]
    pub alignment: Alignment,
}

/// A live release in a status.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LiveReleaseView {
    /// The release's version.
    pub version: String,
    pub digest: String,
    /// Where it runs.
    pub color: Color,
    /// Whether its check passes.
    pub healthy: Healthy,
}

/// Whether an application passes its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Healthy {
    Yes,
    /// It does not, or is not known to.
    No,
}

/// How far an instance takes part in a cut-over, for reports and for people.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case", tag = "state", content = "epoch")]
pub enum ParticipationView {
    /// No cut-over is in progress.
    #[default]
    Idle,
    /// Slots are being started.
    Preparing(Epoch),
    /// Ready, and durable.
    Prepared(Epoch),
    /// Promised, and durable.
    Armed(Epoch),
}

/// What a peer answers to "do you know the decision of this epoch?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerAnswer {
    Committed,
    /// It was aborted, or can no longer be committed: the peer has durably aborted it.
    Aborted,
    /// The peer waits for the decision itself, or knows nothing of the epoch.
    Unknown,
}
