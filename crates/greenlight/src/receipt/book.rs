//! Collects receipts from the records, directives and reports that pass through the server.

use super::{CutOverReceipt, InstanceReceipt, Receipt};
use crate::clock;
use greenlight_protocol::{
    CoordinatorRecord, Direction, Directive, Envelope, Epoch, InstanceId, Report, Reported,
};
use std::time::Duration;

/// Receipts kept in memory; the journal has the rest.
const KEPT: usize = 100;

/// The receipts of the latest deployments, newest last.
#[derive(Clone, Debug, Default)]
pub struct ReceiptBook {
    receipts: Vec<Receipt>,
    order: u64,
}

impl ReceiptBook {
    /// A book that begins with receipts written earlier.
    pub fn resume(receipts: Vec<Receipt>) -> Self {
        Self { receipts, order: 0 }
    }

    /// All receipts, oldest first.
    pub fn all(&self) -> &[Receipt] {
        &self.receipts
    }

    /// The receipt of a deployment.
    pub fn find(&self, deployment: &str) -> Option<&Receipt> {
        self.receipts.iter().find(|r| r.deployment == deployment)
    }

    /// A record has become durable, which took `sync`.
    pub fn recorded(&mut self, record: &CoordinatorRecord, sync: Duration) {
        self.order += 1;
        match record {
            CoordinatorRecord::TermStarted(_) | CoordinatorRecord::Retired(_) => {}
            CoordinatorRecord::Accepted(order) => {
                let releases = order.releases.iter();
                self.receipts.push(Receipt {
                    deployment: order.deployment.0.clone(),
                    by: order.by.clone(),
                    releases: releases
                        .map(|(s, r)| (s.clone(), r.version.clone()))
                        .collect(),
                    previous: std::collections::BTreeMap::new(),
                    started_ms: clock::wall_ms(),
                    finished_ms: None,
                    outcome: None,
                    cut_overs: Vec::new(),
                });
                if self.receipts.len() > KEPT {
                    self.receipts.remove(0);
                }
            }
            CoordinatorRecord::Begun(begin) => self.begun(begin),
            CoordinatorRecord::Committed(epoch) => {
                let order = self.order;
                if let Some(cut_over) = self.cut_over(*epoch)
                    && cut_over.committed_ns.is_none()
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
            CoordinatorRecord::Settled(epoch) => {
                if let Some(cut_over) = self.cut_over(*epoch) {
                    cut_over.settled_ns.get_or_insert_with(clock::monotonic_ns);
                }
            }
            CoordinatorRecord::Finished {
                deployment,
                outcome,
            } => {
                let mut receipts = self.receipts.iter_mut();
                if let Some(receipt) = receipts.find(|r| r.deployment == deployment.0) {
                    receipt.finished_ms = Some(clock::wall_ms());
                    receipt.outcome = Some(outcome.clone());
                }
            }
        }
    }

    fn begun(&mut self, begin: &greenlight_protocol::coordinator::Begin) {
        let cut_over = &begin.cut_over;
        let participants = cut_over.participants.iter();
        let receipt = CutOverReceipt {
            epoch: cut_over.epoch,
            direction: cut_over.direction,
            reason: begin.reason.clone(),
            hold_sent_ns: None,
            committed_ns: None,
            commit_sync_us: None,
            settled_ns: None,
            aborted: None,
            commit_order: None,
            instances: participants
                .map(|name| (name.clone(), InstanceReceipt::default()))
                .collect(),
        };
        if let Some(last) = self.receipts.last_mut() {
            if cut_over.direction == Direction::Back {
                let releases = cut_over.releases.iter();
                last.previous = releases
                    .map(|(s, r)| (s.clone(), r.version.clone()))
                    .collect();
            }
            last.cut_overs.push(receipt);
        }
    }

    /// A directive goes out.
    pub fn sent(&mut self, to: &InstanceId, envelope: &Envelope) {
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
            | Directive::Arm
            | Directive::Abort
            | Directive::Retire
            | Directive::Greet => {}
        }
    }

    /// A report has come in.
    pub fn reported(&mut self, from: &InstanceId, reported: &Reported) {
        self.order += 1;
        let order = self.order;
        let Some(cut_over) = self.cut_over(reported.token.epoch) else {
            return;
        };
        let Some(instance) = cut_over.instances.get_mut(from) else {
            return;
        };
        match &reported.report {
            Report::Held(evidence) => {
                instance.held_order.get_or_insert(order);
                instance.held.get_or_insert_with(|| evidence.clone());
            }
            // Repeated reports carry no evidence of their own.
            Report::Switched(evidence) if evidence.opened_at_ns > 0 => {
                instance.switched.get_or_insert_with(|| evidence.clone());
            }
            Report::Observed(evidence) => instance.gate = Some(evidence.clone()),
            Report::Retired(drained) => instance.retired = Some(*drained),
            Report::PrepareFailed { reason }
            | Report::HoldRefused { reason }
            | Report::SwitchFailed { reason }
            | Report::Troubled { reason, .. } => {
                instance.trouble.get_or_insert_with(|| reason.clone());
            }
            Report::Status(_)
            | Report::Prepared
            | Report::Armed { .. }
            | Report::Switched(_)
            | Report::Aborted
            | Report::InDoubt
            | Report::Fenced => {}
        }
    }

    fn cut_over(&mut self, epoch: Epoch) -> Option<&mut CutOverReceipt> {
        self.receipts
            .iter_mut()
            .rev()
            .flat_map(|receipt| receipt.cut_overs.iter_mut())
            .find(|cut_over| cut_over.epoch == epoch)
    }
}
