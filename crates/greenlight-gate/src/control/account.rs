//! What the gates saw of the last cut-overs: begun with a hold, completed by what is counted.
//!
//! The totals of a service's gate are those of its last cut-over, and begin anew with the next.
//! So the evidence of the last one is completed from them whenever it is asked for, and for good
//! before they begin anew.

use super::{GateControl, GateEffect, ReadCounts, Step};
use crate::counts::{Counts, CountsByCutOver};
use crate::evidence::ServiceEvidence;
use crate::mutant::broken;
use std::collections::BTreeMap;

/// Cut-overs whose evidence is kept.
const EVIDENCE_KEPT: usize = 32;

impl<S: Clone + PartialEq> GateControl<S> {
    /// What the gates of this process saw of a cut-over, and those of all followers, living and
    /// ended. `others` is what the living ones have counted; `None` if one did not say it.
    pub fn evidence(
        &self,
        epoch: u64,
        gates: &dyn ReadCounts,
        others: Option<&CountsByCutOver>,
    ) -> BTreeMap<String, ServiceEvidence> {
        let mut evidence = self.evidence.get(&epoch).cloned().unwrap_or_default();
        for (name, seen) in &mut evidence {
            if self.last_cut_over(name) == Some(epoch) {
                let counts = self.counts_of_all(name, gates, others);
                self.complete(name, epoch, &counts, seen);
            }
        }
        evidence
    }

    /// What the gates of one service have counted, in all processes.
    pub fn counts_of_all(
        &self,
        name: &str,
        gates: &dyn ReadCounts,
        others: Option<&CountsByCutOver>,
    ) -> Counts {
        let mut counts = self.counted_here(name, gates);
        if let Some(others) = others {
            counts.add(&others.of(name, self.counted_cut_over(name)));
        }
        counts
    }

    /// What the gates of this process have counted, as other processes are told it.
    pub fn own_counts(&self, gates: &dyn ReadCounts) -> CountsByCutOver {
        let mut counts = CountsByCutOver::default();
        for (name, service) in &self.services {
            counts.add(name, service.cut_over, &gates.counts(name));
        }
        counts
    }

    /// The evidence of a service's last cut-over, as it is written down for after a restart:
    /// without what followers have counted, who can be asked again.
    pub(super) fn evidence_to_keep(
        &self,
        name: &str,
        gates: &dyn ReadCounts,
    ) -> Option<ServiceEvidence> {
        let last = self.last_cut_over(name)?;
        let mut seen = self.evidence.get(&last)?.get(name)?.clone();
        self.complete(name, last, &self.counted_here(name, gates), &mut seen);
        Some(seen)
    }

    /// By this process and by followers that have ended.
    fn counted_here(&self, name: &str, gates: &dyn ReadCounts) -> Counts {
        let mut counts = gates.counts(name);
        counts.add(&self.final_counts.of(name, self.counted_cut_over(name)));
        counts
    }

    fn complete(&self, name: &str, epoch: u64, counts: &Counts, seen: &mut ServiceEvidence) {
        seen.take_totals(counts);
        if self.is_latest(name, epoch) && !broken!(self, LastAdmissionAsAtTheHold) {
            seen.take_last_admission(counts);
        }
    }

    /// Whether no later cut-over has opened the service. One that did so without a hold has no
    /// evidence of its own, and what is admitted since is not of this one.
    fn is_latest(&self, name: &str, epoch: u64) -> bool {
        let service = self.services.get(name);
        service.is_none_or(|service| service.opened <= epoch)
    }

    /// The last cut-over for which a service was held.
    fn last_cut_over(&self, name: &str) -> Option<u64> {
        Some(self.counted_cut_over(name)).filter(|cut_over| *cut_over > 0)
    }

    /// The cut-over whose totals the gates of a service count; 0 before the first.
    pub(super) fn counted_cut_over(&self, name: &str) -> u64 {
        self.services
            .get(name)
            .map_or(0, |service| service.cut_over)
    }
}

impl<S: Clone + PartialEq> Step<'_, S> {
    /// The cut-over begins for those of the services that are held for it for the first time:
    /// their totals start again. A hold that is asked for again, also after its deadline, is
    /// still the same cut-over's.
    pub(super) fn begin_evidence(&mut self, services: &[String], epoch: u64) {
        for name in services {
            let forgets = broken!(self.control, RepeatedHoldForgetsExpiry);
            let service = self.service(name);
            if service.cut_over == epoch && !forgets {
                continue;
            }
            service.cut_over = epoch;
            let first = ServiceEvidence {
                old: service.mode.served(),
                ..ServiceEvidence::default()
            };
            let seen = self.control.evidence.entry(epoch).or_default();
            seen.insert(name.clone(), first);
            self.effects.push(GateEffect::ResetCounters(name.clone()));
            self.control.final_counts.begin(name, epoch);
        }
        while self.control.evidence.len() > EVIDENCE_KEPT {
            self.control.evidence.pop_first();
        }
    }

    /// Before the totals of these services start again: those of their last cut-overs are
    /// written down for good.
    pub(super) fn freeze_evidence(&mut self, services: &[String], others: &CountsByCutOver) {
        for name in services {
            let counts = self.counts(name, others);
            let Some(last) = self.control.last_cut_over(name) else {
                continue;
            };
            if let Some(mut seen) = self.take_evidence(last, name) {
                self.control.complete(name, last, &counts, &mut seen);
                self.put_evidence(last, name, seen);
            }
        }
    }

    /// A hold is complete.
    pub(super) fn note_hold(&mut self, name: &str, epoch: u64, last_admission_ns: Option<u64>) {
        let held_at_ns = Some(self.now_ns);
        let seen = self.control.evidence.entry(epoch).or_default();
        let seen = seen.entry(name.to_owned()).or_default();
        seen.held_at_ns = held_at_ns;
        // A process that was started since has not seen any.
        seen.last_admission_old_ns = seen.last_admission_old_ns.max(last_admission_ns);
    }

    /// The deadline ended a service's hold: that is noted here, which outlives this process, and
    /// at the gate, which also counts where another process leads.
    pub(super) fn note_expiry(&mut self, name: &str) {
        self.effects.push(GateEffect::CountExpiry(name.to_owned()));
        let epoch = self.service(name).epoch;
        if let Some(last) = self.control.last_cut_over(name)
            && let Some(mut seen) = self.take_evidence(last, name)
        {
            seen.expired |= last == epoch;
            self.put_evidence(last, name, seen);
        }
    }

    /// A service is about to be opened.
    pub(super) fn note_opening(
        &mut self,
        name: &str,
        epoch: u64,
        color: Option<crate::color::Color>,
    ) {
        let Some(last) = self.control.last_cut_over(name) else {
            return;
        };
        let Some(mut seen) = self.take_evidence(last, name) else {
            return;
        };
        let counts = self.control.counted_here(name, self.gates);
        // The gate is about to forget it.
        seen.take_first_admission(&counts);
        if self.control.is_latest(name, last) {
            seen.take_last_admission(&counts);
        }
        if last == epoch {
            seen.new = color;
            seen.opened_at_ns.get_or_insert(self.now_ns);
        }
        self.put_evidence(last, name, seen);
    }

    /// What was counted here and, as `others`, in all other processes, living and ended.
    pub(super) fn counts(&self, name: &str, others: &CountsByCutOver) -> Counts {
        let mut counts = self.gates.counts(name);
        counts.add(&others.of(name, self.control.counted_cut_over(name)));
        counts
    }

    fn take_evidence(&mut self, epoch: u64, name: &str) -> Option<ServiceEvidence> {
        self.control.evidence.get_mut(&epoch)?.remove(name)
    }

    fn put_evidence(&mut self, epoch: u64, name: &str, seen: ServiceEvidence) {
        let of_epoch = self.control.evidence.entry(epoch).or_default();
        of_epoch.insert(name.to_owned(), seen);
    }
}
