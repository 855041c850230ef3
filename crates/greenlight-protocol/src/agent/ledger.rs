//! What an agent remembers across restarts, and the one function that changes it.
//!
//! Live execution and recovery both go through [`Ledger::apply`], so the journal and the running
//! agent cannot disagree.

use crate::cut_over::CutOver;
use crate::id::{Epoch, ServiceName, Term};
use crate::policy::Policy;
use crate::release::{Color, LiveRelease, Slot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Decisions kept for peers that ask; an agent in doubt asks about the latest epoch only.
const DECISIONS_KEPT: usize = 16;

/// What an agent makes durable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentRecord {
    /// A coordinator of this term has spoken; older ones are fenced from here on.
    TermSeen(Term),
    /// The slots of this cut-over are ready.
    Prepared(Box<CutOver>),
    /// The promise to obey the decision of this epoch.
    Armed(Epoch),
    /// The epoch was committed: its releases are live.
    Switched(Epoch),
    /// The epoch was aborted, or this agent will never agree to it.
    Aborted(Epoch),
    /// The warm releases are stopped.
    Retired(Epoch),
}

/// The durable decision of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// All switch.
    Committed,
    /// None switches.
    Aborted,
}

/// What the agent has promised for the cut-over in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// Nothing.
    #[default]
    None,
    /// Ready, but free to abort.
    Prepared(CutOver),
    /// Bound to the decision, whatever it is.
    Armed(CutOver),
}

/// An agent's durable state.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ledger {
    /// The highest term seen (G6).
    pub term: Term,
    /// By service: what is live by decision.
    pub live: BTreeMap<ServiceName, LiveRelease>,
    /// By service: what was live before and may still be running.
    pub warm: BTreeMap<ServiceName, LiveRelease>,
    /// Services that were removed: the color that each had last.
    pub removed: BTreeMap<ServiceName, Color>,
    /// The last cut-over that was switched to.
    pub switched: Epoch,
    /// What is promised for the cut-over in progress.
    pub promise: Promise,
    /// The policy of the latest cut-over: how what is no longer live is drained and stopped.
    pub policy: Policy,
    /// Decisions of the last epochs.
    pub decided: BTreeMap<Epoch, Decision>,
}

impl Ledger {
    /// Changes the state by one record. A record that does not fit the state changes nothing:
    /// it can only be a repetition, because live execution checks before it records.
    pub fn apply(&mut self, record: &AgentRecord) {
        match record {
            AgentRecord::TermSeen(term) => self.term = self.term.max(*term),
            AgentRecord::Prepared(cut_over) => {
                for (service, release) in cut_over.new_releases() {
                    if self
                        .warm
                        .get(service)
                        .is_some_and(|warm| warm.release != *release)
                    {
                        self.warm.remove(service);
                    }
                }
                self.policy = cut_over.policy.clone();
                self.promise = Promise::Prepared((**cut_over).clone());
            }
            AgentRecord::Armed(epoch) => {
                if let Some(cut_over) = self.take(*epoch) {
                    self.promise = Promise::Armed(cut_over);
                }
            }
            AgentRecord::Switched(epoch) => {
                if let Some(cut_over) = self.take(*epoch) {
                    self.make_live(&cut_over);
                    self.decide(*epoch, Decision::Committed);
                }
            }
            AgentRecord::Aborted(epoch) => {
                self.take(*epoch);
                self.decide(*epoch, Decision::Aborted);
            }
            AgentRecord::Retired(epoch) => {
                if *epoch >= self.switched {
                    self.warm.clear();
                }
            }
        }
    }

    /// The highest epoch whose decision is durable here.
    pub fn latest_decided(&self) -> Epoch {
        self.decided.keys().next_back().copied().unwrap_or_default()
    }

    /// The cut-over under way, if its epoch is the one named.
    pub fn under_way(&self, epoch: Epoch) -> Option<&CutOver> {
        match &self.promise {
            Promise::Prepared(c) | Promise::Armed(c) if c.epoch == epoch => Some(c),
            Promise::None | Promise::Prepared(_) | Promise::Armed(_) => None,
        }
    }

    /// The slot that a cut-over of this service fills: the one that is not live. A service that
    /// was removed comes back where it was, for it may still be running there.
    pub fn idle_slot(&self, service: &ServiceName) -> Slot {
        let color = match (self.live.get(service), self.removed.get(service)) {
            (Some(live), _) => live.color.other(),
            (None, Some(last)) => *last,
            (None, None) => Color::Blue,
        };
        Slot {
            service: service.clone(),
            color,
        }
    }

    /// The slot that holds what the service serves by decision.
    pub fn live_slot(&self, service: &ServiceName) -> Option<Slot> {
        self.live.get(service).map(|live| live.slot(service))
    }

    /// Whether the slot holds what the service serves by decision.
    pub fn is_live(&self, slot: &Slot) -> bool {
        self.live
            .get(&slot.service)
            .is_some_and(|live| live.color == slot.color)
    }

    fn take(&mut self, epoch: Epoch) -> Option<CutOver> {
        self.under_way(epoch)?;
        match std::mem::take(&mut self.promise) {
            Promise::Prepared(c) | Promise::Armed(c) => Some(c),
            Promise::None => None,
        }
    }

    fn make_live(&mut self, cut_over: &CutOver) {
        self.switched = cut_over.epoch;
        for (service, release) in &cut_over.releases {
            let color = self.idle_slot(service).color;
            self.warm.remove(service);
            let old = match release {
                Some(release) => {
                    self.removed.remove(service);
                    let (release, epoch) = (release.clone(), cut_over.epoch);
                    let live = LiveRelease {
                        color,
                        release,
                        epoch,
                    };
                    self.live.insert(service.clone(), live)
                }
                None => self.live.remove(service),
            };
            if let Some(old) = old {
                if release.is_none() {
                    self.removed.insert(service.clone(), old.color);
                }
                self.warm.insert(service.clone(), old);
            }
        }
    }

    fn decide(&mut self, epoch: Epoch, decision: Decision) {
        self.decided.entry(epoch).or_insert(decision);
        while self.decided.len() > DECISIONS_KEPT {
            self.decided.pop_first();
        }
    }
}
