//! The state of a deployment: one enum, each variant with only its own data.

use crate::id::InstanceId;
use crate::message::Report;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Where the deployment under way stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No deployment is under way.
    #[default]
    Idle,
    /// New releases are starting.
    Preparing,
    /// All are ready for themselves, and look at each other.
    CheckingPeers {
        /// By instance: the instances that do not see it ready, and why.
        unseen: BTreeMap<InstanceId, BTreeMap<InstanceId, String>>,
    },
    /// All are ready, and a person is to promote.
    Ready,
    /// The command that comes before the switch runs, on one instance.
    BeforeSwitch,
    /// Agents make their promise durable.
    Arming {
        /// When arming began: the answers measure the round trip.
        since: Timestamp,
        /// The slowest round trip so far.
        round_trip: Duration,
    },
    /// Gates close.
    Holding {
        /// When the hold began.
        since: Timestamp,
    },
    /// The decision is durable; gates open to the new release.
    Switching,
    /// The new release is observed.
    Watching,
    /// The watch is over; every instance reports its status once more. An instance that was away
    /// may have seen what no other did.
    Confirming,
    /// Gates reopen to the old release and the new one is removed.
    Aborting,
    /// A rollback was aborted and is tried again after a moment.
    RetryingRollback,
    /// After a rollback: what the deployment started is being stopped.
    Retiring,
}

impl Phase {
    /// The phase without its data.
    pub fn name(&self) -> PhaseName {
        match self {
            Self::Idle => PhaseName::Idle,
            Self::Preparing => PhaseName::Preparing,
            Self::CheckingPeers { .. } => PhaseName::CheckingPeers,
            Self::Ready => PhaseName::Ready,
            Self::BeforeSwitch => PhaseName::BeforeSwitch,
            Self::Arming { .. } => PhaseName::Arming,
            Self::Holding { .. } => PhaseName::Holding,
            Self::Switching => PhaseName::Switching,
            Self::Watching => PhaseName::Watching,
            Self::Confirming => PhaseName::Confirming,
            Self::Aborting => PhaseName::Aborting,
            Self::RetryingRollback => PhaseName::RetryingRollback,
            Self::Retiring => PhaseName::Retiring,
        }
    }

    /// Whether the decision is still open.
    pub(super) fn is_before_decision(&self) -> bool {
        match self {
            Self::Preparing
            | Self::CheckingPeers { .. }
            | Self::Ready
            | Self::BeforeSwitch
            | Self::Arming { .. }
            | Self::Holding { .. } => true,
            Self::Idle
            | Self::Switching
            | Self::Watching
            | Self::Confirming
            | Self::Aborting
            | Self::RetryingRollback
            | Self::Retiring => false,
        }
    }

    /// Which votes count in which phase. All others are answers to an earlier directive of the same
    /// epoch, repeated by the network, and change nothing.
    pub(super) fn takes(&self, vote: &Report) -> bool {
        match self {
            Self::Preparing => {
                matches!(vote, Report::Prepared | Report::PrepareFailed { .. })
            }
            Self::CheckingPeers { .. } => matches!(
                vote,
                Report::PeersReady | Report::PeersNotReady { .. } | Report::PrepareFailed { .. }
            ),
            Self::Ready => matches!(vote, Report::PrepareFailed { .. }),
            Self::BeforeSwitch => matches!(
                vote,
                Report::BeforeSwitchDone { .. }
                    | Report::BeforeSwitchFailed { .. }
                    | Report::PrepareFailed { .. }
            ),
            Self::Arming { .. } => {
                matches!(vote, Report::Armed { .. } | Report::PrepareFailed { .. })
            }
            Self::Holding { .. } => matches!(vote, Report::Held(_) | Report::HoldRefused { .. }),
            Self::Idle
            | Self::Switching
            | Self::Watching
            | Self::Confirming
            | Self::Aborting
            | Self::RetryingRollback
            | Self::Retiring => false,
        }
    }
}

/// Which phase a deployment is in, without the phase's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// No deployment is under way.
    Idle,
    /// New releases are starting.
    Preparing,
    /// All instances are ready by their own checks, and check each other.
    CheckingPeers,
    /// All instances are ready, and a person is to promote.
    Ready,
    /// The command that comes before the switch runs, on one instance.
    BeforeSwitch,
    /// Agents make their promise durable.
    Arming,
    /// Gates stop admitting requests.
    Holding,
    /// The decision is durable; gates open to the new release.
    Switching,
    /// The new release is observed.
    Watching,
    /// The watch is over, and every instance confirms how it stands.
    Confirming,
    /// Gates reopen to the old release, and the new one is removed.
    Aborting,
    /// A rollback was aborted and is tried again after a moment.
    RetryingRollback,
    /// After a rollback, the releases it left are being stopped.
    Retiring,
}

impl PhaseName {
    /// The phase's name, as people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Preparing => "preparing",
            Self::CheckingPeers => "checking peers",
            Self::Ready => "ready",
            Self::BeforeSwitch => "before the switch",
            Self::Arming => "arming",
            Self::Holding => "holding",
            Self::Switching => "switching",
            Self::Watching => "watching",
            Self::Confirming => "confirming",
            Self::Aborting => "aborting",
            Self::RetryingRollback => "retrying the rollback",
            Self::Retiring => "retiring",
        }
    }
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
