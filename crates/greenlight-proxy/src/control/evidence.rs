//! What the gates saw of a cut-over, for the receipts. Changes nothing.

use super::server::Admin;
use super::shell::Gates;
use crate::gate::Wait as _;
use greenlight_admin::{EvidenceAnswer, EvidenceRequest};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

impl Admin {
    pub(super) async fn evidence(self: &Rc<Self>, epoch: u64) -> EvidenceAnswer {
        let others = self.counts_in_time().await;
        let control = self.control.borrow();
        let services = control.evidence(epoch, &Gates(&self.table), others.as_ref());
        EvidenceAnswer { services }
    }

    /// The evidence of a cut-over as soon as every service that it opened to a release has
    /// admitted a request to it, or at the deadline.
    pub(super) async fn evidence_after_first_requests(
        self: &Rc<Self>,
        request: &EvidenceRequest,
    ) -> EvidenceAnswer {
        let table = self.table.load_full();
        let gates = Gates(&self.table);
        let opened = self.control.borrow().evidence(request.epoch, &gates, None);
        let first_requests = async {
            for (name, seen) in opened {
                if let (Some(service), Some(color)) = (table.named(&name), seen.new) {
                    service.gate.first_admission(color).await;
                }
            }
        };
        // At the deadline the answer is what was seen so far.
        let _ = timeout(Duration::from_millis(request.deadline_ms), first_requests).await;
        self.evidence(request.epoch).await
    }
}
