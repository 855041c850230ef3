//! Where a deployment stands: one enum, each variant with only its own data.

use crate::id::{Epoch, InstanceId};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Where the deployment under way stands. `waiting` is always who has yet to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No deployment is under way.
    #[default]
    Idle,
    /// New releases are starting.
    Preparing {
        epoch: Epoch,
        /// Who is not ready.
        waiting: BTreeSet<InstanceId>,
    },
    /// All are ready for themselves, and look at each other.
    CheckingPeers {
        epoch: Epoch,
        /// Who has not said how it sees its peers.
        waiting: BTreeSet<InstanceId>,
        /// By instance: who does not see it ready, and why.
        unseen: BTreeMap<InstanceId, BTreeMap<InstanceId, String>>,
    },
    /// All are ready, and a person is to promote.
    Ready { epoch: Epoch },
    /// The command that comes before the switch runs, on one instance.
    BeforeSwitch {
        epoch: Epoch,
        /// Who runs it.
        waiting: BTreeSet<InstanceId>,
    },
    /// Agents make their promise durable.
    Arming {
        epoch: Epoch,
        /// Who has not promised.
        waiting: BTreeSet<InstanceId>,
        /// When arming began: the answers measure the round trip.
        since: Timestamp,
        /// The slowest round trip so far.
        round_trip: Duration,
    },
    /// Gates close.
    Holding {
        epoch: Epoch,
        /// Whose gate is not closed.
        waiting: BTreeSet<InstanceId>,
        /// When the hold began.
        since: Timestamp,
    },
    /// The decision is durable; gates open to the new release.
    Switching {
        epoch: Epoch,
        /// Whose gate is not known to be open.
        waiting: BTreeSet<InstanceId>,
    },
    /// The new release is observed.
    Watching { epoch: Epoch },
    /// The watch is over; everyone says once more how it stands. An instance that was away may
    /// have seen what nobody else did.
    Confirming {
        epoch: Epoch,
        /// Who has not said that the new release is well there.
        waiting: BTreeSet<InstanceId>,
    },
    /// Gates reopen to the old release and the new one is removed.
    Aborting {
        epoch: Epoch,
        /// Who has not confirmed.
        waiting: BTreeSet<InstanceId>,
    },
    /// After a rollback: what the deployment started is being stopped.
    Retiring { epoch: Epoch },
}

impl Phase {
    /// The cut-over that the phase is about.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Idle => None,
            Self::Preparing { epoch, .. }
            | Self::CheckingPeers { epoch, .. }
            | Self::Ready { epoch }
            | Self::BeforeSwitch { epoch, .. }
            | Self::Arming { epoch, .. }
            | Self::Holding { epoch, .. }
            | Self::Switching { epoch, .. }
            | Self::Watching { epoch }
            | Self::Confirming { epoch, .. }
            | Self::Aborting { epoch, .. }
            | Self::Retiring { epoch } => Some(*epoch),
        }
    }

    /// Who has yet to answer this phase's directive.
    pub fn waiting_for(&self) -> BTreeSet<InstanceId> {
        self.waiting().cloned().unwrap_or_default()
    }

    /// Whether this instance has yet to answer this phase's directive.
    pub fn waits_for(&self, instance: &InstanceId) -> bool {
        self.waiting()
            .is_some_and(|waiting| waiting.contains(instance))
    }

    fn waiting(&self) -> Option<&BTreeSet<InstanceId>> {
        match self {
            Self::Preparing { waiting, .. }
            | Self::CheckingPeers { waiting, .. }
            | Self::BeforeSwitch { waiting, .. }
            | Self::Arming { waiting, .. }
            | Self::Holding { waiting, .. }
            | Self::Switching { waiting, .. }
            | Self::Confirming { waiting, .. }
            | Self::Aborting { waiting, .. } => Some(waiting),
            Self::Idle | Self::Ready { .. } | Self::Watching { .. } | Self::Retiring { .. } => None,
        }
    }

    /// The phase's name, as people read it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Preparing { .. } => "preparing",
            Self::CheckingPeers { .. } => "checking peers",
            Self::Ready { .. } => "ready",
            Self::BeforeSwitch { .. } => "before the switch",
            Self::Arming { .. } => "arming",
            Self::Holding { .. } => "holding",
            Self::Switching { .. } => "switching",
            Self::Watching { .. } => "watching",
            Self::Confirming { .. } => "confirming",
            Self::Aborting { .. } => "aborting",
            Self::Retiring { .. } => "retiring",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
