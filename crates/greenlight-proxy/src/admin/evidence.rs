//! What the gates saw of the last cut-overs, for the receipts.

use super::orders::served;
use super::server::Admin;
use super::{EvidenceAnswer, HeldService, HoldAnswer, ServiceEvidence};
use crate::counts::{Counts, CountsByService};
use crate::route_table::Service;
use crate::upstream::monotonic_ns;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Cut-overs whose evidence is kept.
const EVIDENCE_KEPT: usize = 32;
/// How long predecessors may take to say what they have counted, before it is left out.
const PATIENCE: Duration = Duration::from_millis(500);

impl Admin {
    pub(super) fn note_hold(
        &self,
        services: &[Arc<Service>],
        epoch: u64,
        others: &CountsByService,
    ) -> HoldAnswer {
        let held_at_ns = monotonic_ns();
        let mut answer = HoldAnswer {
            held_at_ns,
            services: BTreeMap::new(),
        };
        let mut evidence = self.evidence.borrow_mut();
        let seen = evidence.entry(epoch).or_default();
        for service in services {
            let counts = together(service, others);
            let color = served(service.gate.route());
            let old = color.map(|color| *counts.color(color));
            let last_admission_ns = old.and_then(|old| old.last_admission_ns);
            seen.insert(
                service.name.clone(),
                ServiceEvidence {
                    old: color,
                    held_at_ns: Some(held_at_ns),
                    last_admission_old_ns: last_admission_ns,
                    ..ServiceEvidence::default()
                },
            );
            let held = HeldService {
                color,
                last_admission_ns,
                in_flight: old.map_or(0, |old| old.in_flight.total()),
                recalled: counts.recalled,
            };
            answer.services.insert(service.name.clone(), held);
        }
        while evidence.len() > EVIDENCE_KEPT {
            evidence.pop_first();
        }
        answer
    }

    /// Before the totals start again: those of the last cut-over are written down for good.
    pub(super) async fn freeze_evidence(&self) {
        let last = self.evidence.borrow().keys().next_back().copied();
        if let Some(epoch) = last {
            let frozen = self.evidence(epoch).await.services;
            self.evidence.borrow_mut().insert(epoch, frozen);
        }
    }

    pub(super) async fn evidence(&self, epoch: u64) -> EvidenceAnswer {
        let others = self.counts_in_time().await;
        let evidence = self.evidence.borrow();
        let mut services = evidence.get(&epoch).cloned().unwrap_or_default();
        if evidence.keys().next_back() == Some(&epoch) && epoch == self.epoch.get() {
            let table = self.shared.table.load();
            for (name, seen) in &mut services {
                if let Some(service) = table.named(name) {
                    together(service, &others).complete(seen);
                }
            }
        }
        EvidenceAnswer { services }
    }

    /// What the predecessors have counted; of those that have ended only, if one of the others
    /// does not answer.
    pub(super) async fn counts_in_time(&self) -> CountsByService {
        match timeout(PATIENCE, self.predecessors.counts()).await {
            Ok(counts) => counts,
            Err(_) => self.predecessors.departed(),
        }
    }

    pub(super) fn own_count_of_all(&self) -> CountsByService {
        let table = self.shared.table.load();
        let services = table.services.iter();
        services
            .map(|service| (service.name.clone(), Counts::of(&service.gate)))
            .collect()
    }
}

/// One service, here and elsewhere.
pub(super) fn together(service: &Service, others: &CountsByService) -> Counts {
    let mut counts = Counts::of(&service.gate);
    if let Some(other) = others.get(&service.name) {
        counts.add(other);
    }
    counts
}
