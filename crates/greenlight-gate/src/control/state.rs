//! What is kept of each service, in memory, in the state file and on the way to other processes.

use super::mode::Mode;
use crate::counts::CountsByCutOver;
use crate::evidence::{EvidenceByEpoch, ServiceEvidence};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The control of one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceControl<S> {
    /// How its requests are found and forwarded.
    pub settings: S,
    /// What its gate does.
    pub mode: Mode,
    /// The highest epoch that was obeyed: older ones are refused, also after a restart.
    pub epoch: u64,
    /// The highest epoch that was opened: a hold of it is late.
    pub opened: u64,
    /// The last cut-over for which it was held: its gates count the totals of this one. 0 before
    /// the first.
    pub cut_over: u64,
    /// Which hold, opening or expiry was the last. The deadline of an earlier one does nothing;
    /// after a restart none is armed.
    pub(super) generation: u64,
}

impl<S> ServiceControl<S> {
    pub(super) fn new(settings: S) -> Self {
        Self {
            settings,
            mode: Mode::Closed,
            epoch: 0,
            opened: 0,
            cut_over: 0,
            generation: 0,
        }
    }
}

/// The routing as it survives a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoutingState<S> {
    pub services: BTreeMap<String, ServiceState<S>>,
}

impl<S> Default for RoutingState<S> {
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
        }
    }
}

/// One service as it survives a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceState<S> {
    /// How its requests are found and forwarded.
    pub settings: S,
    /// What its gate does.
    pub mode: Mode,
    /// The highest epoch that was obeyed.
    pub epoch: u64,
    /// The highest epoch that was opened.
    pub opened: u64,
    /// The last cut-over for which it was held. A process whose totals are of another one begins
    /// them anew.
    pub cut_over: u64,
    /// What this process and those that have ended saw of that cut-over; only in the state file,
    /// because other processes count for themselves.
    pub evidence: Option<ServiceEvidence>,
}

impl<S> RoutingState<S> {
    /// The evidence that was kept: of each service that of its last cut-over.
    pub fn evidence(&self, now_ns: u64) -> EvidenceByEpoch {
        let mut evidence = EvidenceByEpoch::new();
        for (name, kept) in &self.services {
            if let Some(seen) = &kept.evidence {
                let of_epoch = evidence.entry(kept.cut_over).or_default();
                of_epoch.insert(name.clone(), seen.before(now_ns));
            }
        }
        evidence
    }

    pub(super) fn controls(self) -> BTreeMap<String, ServiceControl<S>> {
        let services = self.services.into_iter();
        services
            .map(|(name, kept)| {
                let control = ServiceControl {
                    settings: kept.settings,
                    mode: kept.mode,
                    epoch: kept.epoch,
                    opened: kept.opened,
                    cut_over: kept.cut_over,
                    generation: 0,
                };
                (name, control)
            })
            .collect()
    }
}

/// What a process knows that its successor must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverState<S> {
    pub routing: RoutingState<S>,
    /// The evidence of the last cut-overs.
    pub evidence: EvidenceByEpoch,
    /// The counts of followers that have ended.
    pub final_counts: CountsByCutOver,
}

impl<S> Default for HandoverState<S> {
    fn default() -> Self {
        Self {
            routing: RoutingState::default(),
            evidence: EvidenceByEpoch::new(),
            final_counts: CountsByCutOver::default(),
        }
    }
}
