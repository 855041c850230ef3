//! How far this instance takes part in a cut-over.
//!
//! One value, and each state holds what has a meaning in that state only. The durable half of it is
//! the [`Promise`] in the ledger; a restart makes the rest anew with [`Participation::resume`].

use super::attempt::Attempt;
use super::effect::BeforeSwitchFailed;
use super::ledger::{Decision, Promise};
use crate::cut_over::CutOver;
use crate::evidence::{DrainEvidence, HoldEvidence};
use crate::id::{Epoch, InstanceId, ServiceName};
use std::collections::BTreeMap;

/// How far this instance takes part in a cut-over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Participation {
    /// No cut-over is in progress here.
    Idle,
    /// Slots are being started. A restart forgets it, and the coordinator asks again.
    Preparing { cut_over: CutOver },
    /// The slots are ready, and that is durable. The agent may still abort.
    Prepared {
        cut_over: CutOver,
        /// By peer that is not ready as seen from here: why.
        peer_check: Attempt<BTreeMap<InstanceId, String>>,
        /// What the command wrote, or why it failed.
        before_switch: Attempt<Result<String, BeforeSwitchFailed>>,
    },
    /// Durably bound to the decision, whatever it is.
    Armed {
        cut_over: CutOver,
        hold: Hold,
        /// A decision that the gate has yet to carry out.
        decision: Option<Decision>,
    },
    /// What is not live since this epoch is being drained and stopped.
    Retiring {
        epoch: Epoch,
        /// What the stops have cut off so far.
        drained: DrainEvidence,
    },
}

/// How far the hold of the armed epoch has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Hold {
    /// The gate was not asked to hold, or has opened since.
    Open,
    /// The gate was asked and has not answered.
    Asked,
    /// The gate is held and the coordinator may know.
    Acknowledged(HoldEvidence),
    /// The agent restarted while armed: it cannot know whether it had acknowledged.
    Uncertain,
}

impl Hold {
    /// Whether this agent has acknowledged the hold, or may have.
    pub(super) fn may_be_acknowledged(&self) -> bool {
        match self {
            Self::Acknowledged(_) | Self::Uncertain => true,
            Self::Open | Self::Asked => false,
        }
    }
}

impl Participation {
    /// Where an agent is that restarts with this promise.
    pub(super) fn resume(promise: &Promise) -> Self {
        match promise.clone() {
            Promise::None => Self::Idle,
            Promise::Prepared(cut_over) => Self::prepared(cut_over),
            Promise::Armed(cut_over) => Self::Armed {
                cut_over,
                hold: Hold::Uncertain,
                decision: None,
            },
        }
    }

    /// Ready for the barrier.
    pub(super) fn prepared(cut_over: CutOver) -> Self {
        Self::Prepared {
            cut_over,
            peer_check: Attempt::NotBegun,
            before_switch: Attempt::NotBegun,
        }
    }

    /// The cut-over in progress.
    pub(super) fn cut_over(&self) -> Option<&CutOver> {
        match self {
            Self::Preparing { cut_over }
            | Self::Prepared { cut_over, .. }
            | Self::Armed { cut_over, .. } => Some(cut_over),
            Self::Idle | Self::Retiring { .. } => None,
        }
    }

    /// Whether a hold covers the service, so that only a decision may open its gate.
    pub(super) fn holds(&self, service: &ServiceName) -> bool {
        matches!(
            self,
            Self::Armed { cut_over, hold, .. }
                if *hold != Hold::Open && cut_over.releases.contains_key(service)
        )
    }

    /// Becomes idle if this epoch's cut-over is in progress; returns where it was.
    pub(super) fn leave(&mut self, epoch: Epoch) -> Option<Self> {
        self.cut_over().filter(|cut_over| cut_over.epoch == epoch)?;
        Some(std::mem::replace(self, Self::Idle))
    }
}
