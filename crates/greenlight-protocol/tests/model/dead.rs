//! Messages that no longer matter, and may be forgotten to make states equal.
//!
//! A message is dead if whoever reads it from now on does nothing but send dead messages. Each rule
//! rests on something that never changes back: a durable decision, a higher term or epoch, the
//! end of the deployment. That a dead message is without effect is checked against the real
//! machines whenever one is forgotten.

use super::table::{MessageId, MessageTable, Net};
use super::world::message::Message;
use greenlight_protocol::coordinator::{Decision, Ledger};
use greenlight_protocol::{
    Directive, DirectiveEnvelope, Epoch, Mutant, ParticipationView, Report, ReportEnvelope, Term,
    agent,
};

/// The durable facts of a state that make messages dead.
pub(crate) struct Facts<'a> {
    pub(crate) server: &'a Ledger,
    pub(crate) machines: Vec<&'a agent::Ledger>,
    /// The coordinator's term, if it has started for the last time.
    pub(crate) last_term: Option<Term>,
    /// Whether statuses and queries reach the coordinator at all.
    pub(crate) reminders: bool,
    /// Whether applications may die.
    pub(crate) deaths: bool,
    pub(crate) mutant: Mutant,
    pub(crate) net: &'a Net,
    pub(crate) messages: &'a MessageTable,
}

impl Facts<'_> {
    pub(crate) fn is_dead(&self, message: MessageId) -> bool {
        match self.messages.message(message) {
            Message::Report(from, envelope) => self.is_dead_report(*from, envelope),
            Message::Directive(to, envelope) => self.is_dead_directive(*to, envelope),
            Message::Ask { from, to, epoch } => {
                self.has_decided(*from, *epoch) && self.has_decided(*to, *epoch)
            }
            Message::Answer { to, epoch, .. } => self.has_decided(*to, *epoch),
        }
    }

    fn has_decided(&self, index: usize, epoch: Epoch) -> bool {
        self.machines[index].decided.contains_key(&epoch)
    }

    /// Whether a decision sent once more brings an instance nothing, not even a newer term.
    fn needs_no_decision(&self, index: usize, epoch: Epoch) -> bool {
        let has_seen_term = self.last_term == Some(self.machines[index].term);
        has_seen_term && self.has_decided(index, epoch) && self.is_past(epoch)
    }

    /// Whether the coordinator will never again be at this cut-over.
    fn is_past(&self, epoch: Epoch) -> bool {
        epoch < self.server.epoch || self.server.active().is_none()
    }

    fn is_dead_report(&self, from: usize, envelope: &ReportEnvelope) -> bool {
        let epoch = envelope.token.epoch;
        let decision = self.server.decided.get(&epoch);
        match &envelope.report {
            Report::Prepared
            | Report::PrepareFailed { .. }
            | Report::PeersReady
            | Report::PeersNotReady { .. }
            | Report::BeforeSwitchDone { .. }
            | Report::BeforeSwitchFailed { .. }
            | Report::Armed { .. }
            | Report::Held(_)
            | Report::HoldRefused { .. } => {
                let counts_anyway = self.mutant == Mutant::ResumeUndecided;
                let fenced = envelope.token.term < self.server.term && !counts_anyway;
                fenced || decision != Some(&Decision::Open) || self.is_past(epoch)
            }
            Report::Switched(_) => {
                matches!(decision, Some(Decision::Completed | Decision::Aborted))
                    || self.is_past(epoch)
            }
            Report::SwitchFailed { .. } | Report::Unhealthy { .. } | Report::Aborted => {
                self.is_past(epoch)
            }
            Report::Retired(_) => {
                let warm = self.server.warm.as_ref();
                self.server.active().is_none() && warm.is_none()
            }
            Report::InDoubt => self.needs_no_decision(from, epoch),
            Report::Status(status) => match status.participation {
                ParticipationView::Preparing(epoch)
                | ParticipationView::Prepared(epoch)
                | ParticipationView::Armed(epoch) => self.needs_no_decision(from, epoch),
                ParticipationView::Idle => true,
            },
            Report::Fenced => true,
        }
    }

    fn is_dead_directive(&self, to: usize, envelope: &DirectiveEnvelope) -> bool {
        let (term, epoch) = (envelope.token.term, envelope.token.epoch);
        let machine = self.machines[to];
        if term != machine.term {
            return term < machine.term;
        }
        if !self.has_decided(to, epoch) {
            return false;
        }
        match &envelope.directive {
            // Answered with a status, and with it what is wrong with the live release.
            Directive::Hold => !self.deaths && !self.reminders,
            Directive::Switch | Directive::Abort => self.is_past(epoch),
            Directive::Prepare(_) | Directive::Arm => {
                self.is_past(epoch) || self.same_as(to, envelope).is_some()
            }
            Directive::CheckPeers(_)
            | Directive::BeforeSwitch
            | Directive::Retire
            | Directive::QueryStatus => false,
        }
    }

    /// A message on its way that does the same as a directive on a cut-over which the instance
    /// has decided: it is answered as the decision would be.
    pub(crate) fn same_as(&self, to: usize, envelope: &DirectiveEnvelope) -> Option<MessageId> {
        self.net.messages().find(|message| {
            let message = self.messages.message(*message);
            let Message::Directive(other, known) = message else {
                return false;
            };
            let decision = matches!(known.directive, Directive::Switch | Directive::Abort);
            *other == to && decision && known.token == envelope.token
        })
    }
}
