//! Collects receipts from the records, directives and reports that pass through the server.

use crate::receipt_archive::{RECENT, Stored};
use greenlight_link::Telemetry;
use greenlight_link::api::DeploymentSummary;
use greenlight_link::receipt::{CutOverReceipt, InstanceReceipt, Receipt, not_seen};
use greenlight_protocol::{
    Alignment, CoordinatorRecord, DeploymentId, Directive, DirectiveEnvelope, Epoch, InstanceId,
    Report, ReportEnvelope, ServiceName,
};
use greenlight_shell::clock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The receipts of the latest deployments, newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceiptStore {
    /// The latest, whose evidence may still come in. Shared with their readers; one that changes
    /// meanwhile is copied.
    receipts: Vec<Arc<Receipt>>,
    /// Those before, oldest first. Their receipts are on disk.
    older: Arc<Vec<DeploymentSummary>>,
    /// How many there may be in all.
    keep: usize,
    /// The deployments whose receipts have changed since they were taken.
    changed: BTreeSet<String>,
    order: u64,
    /// By service: the version of what is live, as far as the records go.
    live: BTreeMap<ServiceName, String>,
    /// What each cut-over that is not yet decided deploys.
    releases_by_epoch: BTreeMap<Epoch, BTreeMap<ServiceName, Option<String>>>,
    /// Whether records are only being read again.
    replaying: bool,
}

impl ReceiptStore {
    /// A store that begins with receipts written earlier. What the records tell beyond them is
    /// filled in; the order of messages before a crash is lost, and the receipt says so.
    pub(super) fn resume(stored: Stored, records: &[CoordinatorRecord], keep: usize) -> Self {
        let receipts = stored.recent;
        let cut_overs = receipts.iter().flat_map(|receipt| &receipt.cut_overs);
        let orders = cut_overs.flat_map(|cut_over| {
            let instances = cut_over.instances.values();
            let of_instances = instances.flat_map(|i| [i.held_order, i.switch_order]);
            of_instances.chain([cut_over.commit_order])
        });
        let mut store = Self {
            order: orders.flatten().max().unwrap_or(0),
            receipts: receipts.iter().cloned().map(Arc::new).collect(),
            older: Arc::new(stored.older),
            keep,
            replaying: true,
            ..Self::default()
        };
        for record in records {
            store.recorded(record, Duration::ZERO);
        }
        store.replaying = false;
        store.receipts.sort_by_key(|receipt| receipt.started_ms);
        // The records go further back than the receipts that are kept. Those before the oldest
        // on disk were removed from there, and are not written again.
        let surplus = (store.older.len() + store.receipts.len()).saturating_sub(keep);
        let oldest = store.older.first().map(|oldest| oldest.started_ms);
        let first = store.receipts.iter().take(surplus);
        let removed = first.take_while(|its| oldest.is_none_or(|at| its.started_ms < at));
        let removed = removed.count();
        store.receipts.drain(..removed);
        let all = store.receipts.iter_mut().map(Arc::make_mut);
        for cut_over in all.flat_map(|receipt| &mut receipt.cut_overs) {
            cut_over.recovered |= cut_over.completed_ns.is_none() && cut_over.aborted.is_none();
        }
        let known: BTreeMap<_, _> = receipts.iter().map(|r| (&r.deployment, r)).collect();
        let told_more =
            |receipt: &&Arc<Receipt>| known.get(&receipt.deployment) != Some(&&***receipt);
        let changed = store.receipts.iter().filter(told_more);
        store.changed = changed.map(|receipt| receipt.deployment.clone()).collect();
        store
    }

    /// The latest receipts, oldest first.
    pub(super) fn recent(&self) -> &[Arc<Receipt>] {
        &self.receipts
    }

    /// The deployments before those, oldest first.
    pub(super) fn older(&self) -> &Arc<Vec<DeploymentSummary>> {
        &self.older
    }

    /// The receipts that have changed since this was asked last, which the caller writes. The
    /// oldest of those that are over need not be at hand any longer.
    pub(super) fn take_changed(&mut self) -> Vec<Arc<Receipt>> {
        let changed = std::mem::take(&mut self.changed);
        let receipts = self.receipts.iter();
        let taken = receipts.filter(|receipt| changed.contains(&receipt.deployment));
        let taken = taken.cloned().collect();
        while self.receipts.len() > RECENT && self.receipts[0].outcome.is_some() {
            let receipt = self.receipts.remove(0);
            let older = Arc::make_mut(&mut self.older);
            older.push(DeploymentSummary::from(&*receipt));
            older.sort_by_key(|summary| summary.started_ms);
        }
        let surplus = (self.older.len() + self.receipts.len()).saturating_sub(self.keep);
        if surplus > 0 {
            let older = Arc::make_mut(&mut self.older);
            older.drain(..surplus.min(older.len()));
        }
        taken
    }

    /// The receipt of a deployment.
    pub(super) fn find(&self, deployment: &str) -> Option<&Receipt> {
        let mut receipts = self.receipts.iter().map(Arc::as_ref);
        receipts.find(|receipt| receipt.deployment == deployment)
    }

    /// A record has become durable, which took `sync`.
    pub(super) fn recorded(&mut self, record: &CoordinatorRecord, sync: Duration) {
        self.order += 1;
        match record {
            CoordinatorRecord::TermStarted(_) | CoordinatorRecord::Retired(_) => {}
            CoordinatorRecord::Snapshot(ledger) => {
                let live = ledger.live.iter();
                self.live = live.map(|(s, r)| (s.clone(), r.version.clone())).collect();
            }
            CoordinatorRecord::Accepted(request) => {
                let id = &request.deployment.0;
                let is_older = self.older.iter().any(|older| older.deployment == *id);
                if is_older || self.find(id).is_some() {
                    return;
                }
                self.changed.insert(id.clone());
                let services = request.releases.keys();
                let previous =
                    services.filter_map(|s| Some((s.clone(), self.live.get(s)?.clone())));
                self.receipts.push(Arc::new(Receipt {
                    previous: previous.collect(),
                    deployment: request.deployment.0.clone(),
                    requested_by: request.requested_by.clone(),
                    releases: request.versions(),
                    removed: request.removed(),
                    started_ms: started_ms(&request.deployment).unwrap_or_else(clock::wall_ms),
                    finished_ms: None,
                    outcome: None,
                    cut_overs: Vec::new(),
                }));
            }
            CoordinatorRecord::CutOverStarted(started) => self.cut_over_started(started),
            CoordinatorRecord::Committed(epoch) => {
                let (order, replaying) = (self.order, self.replaying);
                for (service, version) in self.releases_by_epoch.remove(epoch).unwrap_or_default() {
                    match version {
                        Some(version) => self.live.insert(service, version),
                        None => self.live.remove(&service),
                    };
                }
                if let Some(cut_over) = self.cut_over(*epoch)
                    && cut_over.committed_ns.is_none()
                    && !replaying
                {
                    cut_over.committed_ns = Some(clock::monotonic_ns());
                    cut_over.commit_sync_us = u64::try_from(sync.as_micros()).ok();
                    cut_over.commit_order = Some(order);
                }
            }
            CoordinatorRecord::Aborted { epoch, reason } => {
                if let Some(cut_over) = self.cut_over(*epoch) {
                    cut_over.aborted.get_or_insert_with(|| reason.clone());
                }
            }
            CoordinatorRecord::Completed(epoch) => {
                if !self.replaying
                    && let Some(cut_over) = self.cut_over(*epoch)
                {
                    cut_over
                        .completed_ns
                        .get_or_insert_with(clock::monotonic_ns);
                }
            }
            CoordinatorRecord::Finished {
                deployment,
                outcome,
            } => {
                let replaying = self.replaying;
                if let Some(receipt) = self.find_mut(deployment) {
                    if !replaying {
                        receipt.finished_ms = Some(clock::wall_ms());
                    }
                    receipt.outcome = Some(outcome.clone());
                }
            }
        }
    }

    fn cut_over_started(&mut self, started: &greenlight_protocol::coordinator::CutOverStarted) {
        let cut_over = &started.cut_over;
        let releases = cut_over.releases.iter();
        let releases_by_epoch =
            releases.map(|(s, r)| (s.clone(), r.as_ref().map(|r| r.version.clone())));
        self.releases_by_epoch
            .insert(cut_over.epoch, releases_by_epoch.collect());
        if self.cut_over(cut_over.epoch).is_some() {
            return;
        }
        let participants = cut_over.participants.iter();
        let receipt = CutOverReceipt {
            reason: started.reason.clone(),
            max_hold_us: u64::try_from(cut_over.policy.max_hold.as_micros()).ok(),
            recovered: self.replaying,
            instances: participants
                .map(|name| (name.clone(), InstanceReceipt::default()))
                .collect(),
            ..CutOverReceipt::new(cut_over.epoch, cut_over.direction)
        };
        if let Some(its) = self.find_mut(&cut_over.deployment) {
            its.cut_overs.push(receipt);
        }
    }

    /// A directive goes out.
    pub(super) fn sent(&mut self, to: &InstanceId, envelope: &DirectiveEnvelope) {
        self.order += 1;
        let order = self.order;
        let Some(cut_over) = self.cut_over(envelope.token.epoch) else {
            return;
        };
        match envelope.directive {
            Directive::Hold => {
                cut_over
                    .hold_sent_ns
                    .get_or_insert_with(clock::monotonic_ns);
            }
            Directive::Switch => {
                let instance = cut_over.instances.entry(to.clone()).or_default();
                instance.switch_order.get_or_insert(order);
            }
            Directive::Prepare(_)
            | Directive::CheckPeers(_)
            | Directive::BeforeSwitch
            | Directive::Arm
            | Directive::Abort
            | Directive::Retire
            | Directive::QueryStatus => {}
        }
    }

    /// A report has come in.
    pub(super) fn reported(&mut self, from: &InstanceId, envelope: &ReportEnvelope) {
        self.order += 1;
        let order = self.order;
        let Some(cut_over) = self.cut_over(envelope.token.epoch) else {
            return;
        };
        let Some(instance) = cut_over.instances.get_mut(from) else {
            return;
        };
        match &envelope.report {
            Report::Held(evidence) => {
                instance.held_order.get_or_insert(order);
                instance.held_ns.get_or_insert_with(clock::monotonic_ns);
                instance.held.get_or_insert_with(|| evidence.clone());
            }
            // Repeated reports carry no evidence of their own.
            Report::Switched(evidence) if evidence.opened_at_ns > 0 => {
                instance.switched.get_or_insert_with(|| evidence.clone());
                instance.switched_ns.get_or_insert_with(clock::monotonic_ns);
            }
            Report::Retired(drained) => instance.retired = Some(*drained),
            Report::PrepareFailed { reason }
            | Report::BeforeSwitchFailed { reason }
            | Report::HoldRefused { reason }
            | Report::SwitchFailed { reason }
            | Report::Unhealthy { reason, .. } => {
                instance.problem.get_or_insert_with(|| reason.clone());
            }
            Report::PeersNotReady { unseen } => {
                instance.problem.get_or_insert_with(|| not_seen(unseen));
            }
            Report::Status(_)
            | Report::Prepared
            | Report::PeersReady
            | Report::BeforeSwitchDone { .. }
            | Report::Armed { .. }
            | Report::Switched(_)
            | Report::Aborted
            | Report::InDoubt
            | Report::Fenced => {}
        }
        // It looks at every instance, so it is not done for each report of a fleet with gates.
        if is_aligned(&envelope.report) || cut_over.aligned.is_some() {
            cut_over.measure();
        }
    }

    /// Telemetry has come in. It has no place in the order of messages: what it says is of the
    /// gates' own clocks.
    pub(super) fn observed(&mut self, from: &InstanceId, telemetry: Telemetry) {
        let Some(cut_over) = self.cut_over(telemetry.epoch) else {
            return;
        };
        if let Some(instance) = cut_over.instances.get_mut(from) {
            instance.gate = Some(telemetry.evidence);
            // An agent that was restarted has read the decision again; the first reading counts.
            if instance
                .readings
                .is_none_or(|read| read.commit_ns.is_none())
            {
                instance.readings = Some(telemetry.readings);
            }
        }
    }

    fn find_mut(&mut self, deployment: &DeploymentId) -> Option<&mut Receipt> {
        let mut receipts = self.receipts.iter_mut();
        let found = receipts.find(|receipt| receipt.deployment == deployment.0)?;
        self.changed.insert(deployment.0.clone());
        Some(Arc::make_mut(found))
    }

    fn cut_over(&mut self, epoch: Epoch) -> Option<&mut CutOverReceipt> {
        let of_it = |receipt: &Arc<Receipt>| receipt.cut_overs.iter().any(|c| c.epoch == epoch);
        let receipt = self.receipts.iter_mut().rev().find(|its| of_it(its))?;
        self.changed.insert(receipt.deployment.clone());
        let mut cut_overs = Arc::make_mut(receipt).cut_overs.iter_mut();
        cut_overs.find(|cut_over| cut_over.epoch == epoch)
    }
}

/// Whether a report is of a front without a gate.
fn is_aligned(report: &Report) -> bool {
    if let Report::Held(evidence) = report {
        return evidence.alignment == Alignment::Aligned;
    }
    matches!(report, Report::Switched(evidence) if evidence.aligned.is_some())
}

/// When a deployment was accepted: its id begins with that time.
fn started_ms(deployment: &DeploymentId) -> Option<u64> {
    let id = uuid::Uuid::parse_str(&deployment.0).ok()?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(seconds * 1000 + u64::from(nanos) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_protocol::coordinator::{DeploymentRequest, Promotion};
    use greenlight_protocol::{Outcome, Plan, Policy, Strategy};

    const KEEP: usize = RECENT + 4;

    #[test]
    fn receipts_that_were_removed_from_disk_are_not_made_again_after_a_restart() {
        let records: Vec<_> = (1..=KEEP + 5).flat_map(deployment).collect();
        let mut all = ReceiptStore::resume(Stored::default(), &records, 2 * KEEP);
        let receipts = all.receipts.iter().map(|its| Receipt::clone(its));
        let mut recent = receipts.collect::<Vec<_>>().split_off(5);
        all.take_changed();
        let older = recent.drain(..4).map(|its| DeploymentSummary::from(&its));
        let older = older.collect();
        let stored = Stored { older, recent };

        let mut resumed = ReceiptStore::resume(stored, &records, KEEP);

        assert_eq!(resumed.take_changed(), []);
        assert_eq!(resumed.receipts.len(), RECENT);
    }

    #[test]
    fn receipts_that_were_lost_are_made_again_up_to_the_limit() {
        let records: Vec<_> = (1..=KEEP + 5).flat_map(deployment).collect();
        let mut resumed = ReceiptStore::resume(Stored::default(), &records, KEEP);
        assert_eq!(resumed.take_changed().len(), KEEP);
    }

    fn deployment(number: usize) -> [CoordinatorRecord; 2] {
        // Ids begin with the time.
        let id = format!("00000000-{number:04x}-7000-8000-000000000000");
        let deployment = DeploymentId(id);
        let request = DeploymentRequest {
            deployment: deployment.clone(),
            requested_by: "a test".to_owned(),
            releases: BTreeMap::new(),
            plan: Plan::compile(Strategy::BlueGreen, &["a".into()].into())
                .expect("the fleet is not empty"),
            policy: Policy::default(),
            promotion: Promotion::Automatic,
        };
        let outcome = Outcome::Promoted;
        [
            CoordinatorRecord::Accepted(Box::new(request)),
            CoordinatorRecord::Finished {
                deployment,
                outcome,
            },
        ]
    }
}
