//! The agent's vocabulary: what it learns, and what its shell must do.

use super::ledger::AgentRecord;
use crate::evidence::{DrainEvidence, HoldEvidence, SwitchEvidence};
use crate::id::{Epoch, Incarnation, InstanceId, ServiceName};
use crate::message::{DirectiveEnvelope, PeerAnswer, ReportEnvelope};
use crate::policy::{Exclusive, OnUncertain};
use crate::release::{Color, Release, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the shell must do, in the order in which it is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AgentEffect {
    /// Make this durable before carrying out anything after it; if that fails, end the process.
    Persist(AgentRecord),
    /// Send this to the coordinator.
    Report(ReportEnvelope),
    /// Tell the gate. The answer comes back as `GateHeld`, `GateRefused`, `GateOpened`,
    /// `GateFailed` or `GateParked`.
    Gate(GateAction),
    /// Start a release in an empty slot and check its health.
    Start {
        slot: Slot,
        /// Which start this is.
        incarnation: Incarnation,
        release: Release,
        /// After this long without having become ready, it has failed.
        ready_within: Duration,
    },
    /// Ask these peers whether what they have prepared for the cut-over is ready, and whether their
    /// fronts can be reached from here.
    CheckPeers {
        epoch: Epoch,
        peers: BTreeSet<InstanceId>,
        /// What it deploys.
        releases: BTreeMap<ServiceName, Release>,
    },
    /// Run the command that comes before the switch for these releases, one after the other. If it
    /// was begun before, by an earlier process of this agent, wait for its end instead.
    BeforeSwitch {
        /// The cut-over; two of them never share a run.
        epoch: Epoch,
        /// By slot: what runs there and has passed its check.
        releases: BTreeMap<Slot, Release>,
        /// How long it may take.
        within: Duration,
    },
    /// Drain the slot's requests, then stop what runs there.
    Stop {
        slot: Slot,
        /// How long its requests may take.
        drain: Duration,
        /// How long the application has after SIGTERM.
        stop: Duration,
    },
    /// Ask a peer whether it knows the decision.
    AskPeer { peer: InstanceId, epoch: Epoch },
    /// Answer a peer that asked.
    AnswerPeer {
        peer: InstanceId,
        epoch: Epoch,
        answer: PeerAnswer,
    },
    /// Wake the agent with `TimerFired` after this long.
    SetTimer {
        timer: AgentTimer,
        /// How long from now.
        after: Duration,
    },
}

/// A command to the gate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GateAction {
    /// Stop admitting, recall what is not sent, and acknowledge when nothing more reaches the
    /// old release.
    Hold {
        epoch: Epoch,
        /// The services that change.
        services: BTreeSet<ServiceName>,
        /// The gate's own deadline.
        max_hold: Duration,
        /// What the gate does then.
        on_uncertain: OnUncertain,
        /// Whether to wait for requests in flight as well.
        exclusive: Exclusive,
    },
    /// Admit to these colors, and let go what was held; refuse what goes nowhere.
    Open {
        epoch: Epoch,
        /// Where each service goes; nowhere, if it is removed.
        colors: BTreeMap<ServiceName, Option<Color>>,
    },
    /// Keep requests waiting because the live release is not there to take them.
    Park {
        /// The cut-over that made it live.
        epoch: Epoch,
        services: BTreeSet<ServiceName>,
    },
}

/// The command that comes before the switch has failed: why, and what it wrote last. The shell
/// knows the cases; here it is what a person should read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[error("{0}")]
pub struct BeforeSwitchFailed(pub String);

/// The agent's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentTimer {
    /// When to ask again for a decision that has not come.
    QueryDecision {
        /// The epoch in doubt.
        epoch: Epoch,
        /// How often it was asked; a measure of how long the agent has been in doubt.
        asked: u8,
    },
    /// When to start live applications again that died.
    Restart,
}

/// What the agent learns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentEvent {
    /// A directive came in.
    Directed(DirectiveEnvelope),
    /// The link to the coordinator is up.
    Connected,
    /// The gate answers again after it was not reachable; it has what it last persisted.
    GateConnected,
    /// A hold is complete.
    GateHeld {
        epoch: Epoch,
        /// What the gate saw.
        evidence: HoldEvidence,
    },
    /// A hold could not be completed, and the gate is open to the old release.
    GateRefused {
        epoch: Epoch,
        reason: String,
    },
    GateOpened {
        epoch: Epoch,
        /// Where each service goes.
        colors: BTreeMap<ServiceName, Option<Color>>,
        /// What the gate saw.
        evidence: SwitchEvidence,
    },
    /// A front without a gate would not change to these colors, and serves what it served.
    GateFailed {
        epoch: Epoch,
        /// Where each service should have gone.
        colors: BTreeMap<ServiceName, Option<Color>>,
        reason: String,
    },
    /// Requests wait until the gate is opened.
    GateParked {
        services: BTreeSet<ServiceName>,
    },
    /// After a restart of the agent: this runs. Its health is not yet known.
    SlotFound {
        slot: Slot,
        /// Which start it is.
        incarnation: Incarnation,
        digest: String,
    },
    /// After a restart of the agent: every `SlotFound` has come.
    SlotsListed,
    /// The application passes its check.
    SlotReady {
        slot: Slot,
        /// Which start it is.
        incarnation: Incarnation,
    },
    /// The application runs but fails its check.
    SlotUnhealthy {
        slot: Slot,
        /// Which start it is.
        incarnation: Incarnation,
        /// The last answers and the last lines it wrote.
        reason: String,
    },
    /// The application is dead, or could not be started.
    SlotExited {
        slot: Slot,
        /// Which start it is.
        incarnation: Incarnation,
        /// Why, with the last lines it wrote.
        reason: String,
    },
    /// The peers were checked.
    PeersChecked {
        epoch: Epoch,
        /// Those that are not ready as seen from here, and why.
        unseen: BTreeMap<InstanceId, String>,
    },
    /// The command that comes before the switch has ended.
    BeforeSwitchEnded {
        epoch: Epoch,
        /// What it wrote, or why it failed.
        result: Result<String, BeforeSwitchFailed>,
    },
    /// A stop is complete.
    SlotStopped {
        slot: Slot,
        /// What was cut off.
        drained: DrainEvidence,
    },
    TimerFired(AgentTimer),
    /// A peer asks for a decision.
    PeerAsked {
        peer: InstanceId,
        epoch: Epoch,
    },
    PeerAnswered {
        epoch: Epoch,
        answer: PeerAnswer,
    },
}
