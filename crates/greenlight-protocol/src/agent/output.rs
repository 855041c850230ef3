//! What the event at hand has led to so far, in its order.

use super::effect::{AgentEffect, AgentTimer, GateAction};
use super::ledger::{AgentRecord, Ledger};
use crate::id::{Epoch, Token};
use crate::message::{Report, ReportEnvelope};
use std::time::Duration;

/// The effects of the event at hand; empty between events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Output(Vec<AgentEffect>);

/// Whether a directive fits where this instance stands. If not, the answer is its status.
#[must_use = "a directive that does not fit is answered with the status"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fits {
    Yes,
    No,
}

impl Output {
    pub(super) fn push(&mut self, effect: AgentEffect) {
        self.0.push(effect);
    }

    /// Ends the event: what is to be carried out.
    pub(super) fn take(&mut self) -> Vec<AgentEffect> {
        std::mem::take(&mut self.0)
    }

    /// Changes the ledger and makes the change durable before anything that follows.
    pub(super) fn record(&mut self, ledger: &mut Ledger, record: AgentRecord) {
        ledger.apply(&record);
        self.push(AgentEffect::Persist(record));
    }

    pub(super) fn report(&mut self, ledger: &Ledger, epoch: Epoch, report: Report) {
        let term = ledger.term;
        self.push(AgentEffect::Report(ReportEnvelope {
            token: Token { term, epoch },
            report,
        }));
    }

    pub(super) fn tell_gate(&mut self, action: GateAction) {
        self.push(AgentEffect::Gate(action));
    }

    pub(super) fn set_timer(&mut self, timer: AgentTimer, after: Duration) {
        self.push(AgentEffect::SetTimer { timer, after });
    }
}
