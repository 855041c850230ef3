//! What the gates saw of the last cut-overs, for the receipts.

use super::commands::served;
use super::server::Admin;
use crate::admin::{
    Color, EvidenceAnswer, EvidenceRequest, HeldService, HoldAnswer, ServiceEvidence,
};
use crate::clock::monotonic_ns;
use crate::counts::{Counts, CountsByService};
use crate::gate::Counters;
use crate::routing::Service;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Cut-overs whose evidence is kept.
const EVIDENCE_KEPT: usize = 32;
/// How long followers may take to say what they have counted, before it is left out.
const COUNTS_TIMEOUT: Duration = Duration::from_millis(500);

impl Admin {
    /// The cut-over begins for those of the services that are held for it for the first time:
    /// their totals start again. Returns their names. A hold that is asked for again, also after
    /// its deadline, is still the same cut-over's.
    pub(super) fn begin_evidence(&self, services: &[Arc<Service>], epoch: u64) -> Vec<String> {
        let mut begun = Vec::new();
        let mut evidence = self.evidence.borrow_mut();
        let seen = evidence.entry(epoch).or_default();
        for service in services {
            if seen.contains_key(&service.name) {
                continue;
            }
            let first = ServiceEvidence {
                old: served(service.gate.route()),
                ..ServiceEvidence::default()
            };
            seen.insert(service.name.clone(), first);
            service.gate.reset_counters();
            self.followers.change_final_counts(|final_counts| {
                let counts = final_counts.entry(service.name.clone()).or_default();
                counts.reset_counters();
            });
            begun.push(service.name.clone());
        }
        while evidence.len() > EVIDENCE_KEPT {
            evidence.pop_first();
        }
        begun
    }

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
            let seen = seen.entry(service.name.clone()).or_default();
            seen.held_at_ns = Some(held_at_ns);
            // A process that was started since has not seen any.
            seen.last_admission_old_ns = seen.last_admission_old_ns.max(last_admission_ns);
            let held = HeldService {
                color,
                last_admission_ns,
                in_flight: old.map_or(0, |old| old.in_flight.total()),
                recalled: counts.recalled,
            };
            answer.services.insert(service.name.clone(), held);
        }
        answer
    }

    /// Notes that the deadline ended a service's hold: here, which outlives this process, and at
    /// the gate, which also counts where a successor leads.
    pub(super) fn note_expiry(&self, service: &Service) {
        Counters::add(&service.gate.counters.expired);
        let epoch = self.control(&service.name).epoch;
        self.change_last_evidence(service, |last, seen| seen.expired |= last == epoch);
    }

    /// Notes the opening of a service, right before it happens.
    pub(super) fn note_opening(
        &self,
        service: &Service,
        epoch: u64,
        color: Option<Color>,
        now_ns: u64,
    ) {
        self.change_last_evidence(service, |last, seen| {
            let counts = self.counted_here(service);
            // The gate is about to forget it.
            counts.complete_first_admission(seen);
            if self.is_latest(&service.name, last) {
                counts.complete_last_admission(seen);
            }
            if last == epoch {
                seen.new = color;
                seen.opened_at_ns.get_or_insert(now_ns);
            }
        });
    }

    /// Before the totals of these services start again: those of their last cut-overs are written
    /// down for good.
    pub(super) async fn freeze_evidence(&self, services: &[Arc<Service>]) {
        let others = self.counts_in_time().await;
        for service in services {
            let counts = together(service, &others);
            self.change_last_evidence(service, |last, seen| {
                self.complete(&service.name, last, &counts, seen);
            });
        }
    }

    pub(super) async fn evidence(&self, epoch: u64) -> EvidenceAnswer {
        let others = self.counts_in_time().await;
        let mut services = self.evidence_of(epoch);
        let table = self.table.load();
        for (name, seen) in &mut services {
            if self.last_cut_over(name) == Some(epoch)
                && let Some(service) = table.named(name)
            {
                self.complete(name, epoch, &together(service, &others), seen);
            }
        }
        EvidenceAnswer { services }
    }

    /// The evidence of a cut-over as soon as every service that it opened to a release has
    /// admitted a request to it, or at the deadline.
    pub(super) async fn evidence_after_first_requests(
        &self,
        request: &EvidenceRequest,
    ) -> EvidenceAnswer {
        let table = self.table.load_full();
        let first_requests = async {
            for (name, seen) in self.evidence_of(request.epoch) {
                if let (Some(service), Some(color)) = (table.named(&name), seen.new) {
                    service.gate.first_admission(color).await;
                }
            }
        };
        // At the deadline the answer is what was seen so far.
        let _ = timeout(Duration::from_millis(request.deadline_ms), first_requests).await;
        self.evidence(request.epoch).await
    }

    /// The evidence of a service's last cut-over, as it is written down for after a restart:
    /// without what followers have counted, who can be asked again.
    pub(super) fn evidence_to_keep(&self, name: &str) -> Option<(u64, ServiceEvidence)> {
        let last = self.last_cut_over(name)?;
        let mut seen = self.evidence_of(last).remove(name)?;
        if let Some(service) = self.table.load().named(name) {
            self.complete(name, last, &self.counted_here(service), &mut seen);
        }
        Some((last, seen))
    }

    /// Writes what was counted into the evidence of a service's last cut-over.
    fn complete(&self, name: &str, epoch: u64, counts: &Counts, seen: &mut ServiceEvidence) {
        counts.complete(seen);
        if self.is_latest(name, epoch) {
            counts.complete_last_admission(seen);
        }
    }

    /// Whether no later cut-over has opened the service. One that did so without a hold has no
    /// evidence of its own, and what is admitted since is not of this one.
    fn is_latest(&self, name: &str, epoch: u64) -> bool {
        self.control(name).opened <= epoch
    }

    fn evidence_of(&self, epoch: u64) -> BTreeMap<String, ServiceEvidence> {
        let evidence = self.evidence.borrow();
        evidence.get(&epoch).cloned().unwrap_or_default()
    }

    /// Changes the evidence of the service's last cut-over, if there was one.
    fn change_last_evidence(
        &self,
        service: &Service,
        change: impl FnOnce(u64, &mut ServiceEvidence),
    ) {
        if let Some(last) = self.last_cut_over(&service.name)
            && let Some(seen) = self.evidence.borrow_mut().get_mut(&last)
            && let Some(seen) = seen.get_mut(&service.name)
        {
            change(last, seen);
        }
    }

    /// The last cut-over for which a service was held.
    fn last_cut_over(&self, name: &str) -> Option<u64> {
        let evidence = self.evidence.borrow();
        let mut last_first = evidence.iter().rev();
        last_first
            .find(|(_, seen)| seen.contains_key(name))
            .map(|(epoch, _)| *epoch)
    }

    fn counted_here(&self, service: &Service) -> Counts {
        together(service, &self.followers.final_counts())
    }

    /// What the followers have counted; of those that have ended only, if one of the others
    /// does not answer.
    pub(super) async fn counts_in_time(&self) -> CountsByService {
        match timeout(COUNTS_TIMEOUT, self.followers.counts()).await {
            Ok(counts) => counts,
            Err(_) => self.followers.final_counts(),
        }
    }

    pub(super) fn own_count_of_all(&self) -> CountsByService {
        let table = self.table.load();
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
