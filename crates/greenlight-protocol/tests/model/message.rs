//! What is on its way between the nodes, in a form in which equal meaning is equal text.

use super::world::coordinator::is_vote;
use super::world::message::Message;
use greenlight_protocol::{
    DirectiveEnvelope, Epoch, InstanceStatus, ParticipationView, PeerAnswer, Report,
    ReportEnvelope, Term,
};

/// New names of instances: the new index by the old one.
pub(crate) type Names = [usize; 3];

impl Message {
    /// The same message in a fleet whose instances are named otherwise.
    pub(crate) fn renamed(&self, names: &Names) -> Self {
        match self {
            Self::Directive(to, envelope) => Self::Directive(names[*to], envelope.clone()),
            Self::Report(from, envelope) => Self::Report(names[*from], envelope.clone()),
            Self::Ask { from, to, epoch } => Self::Ask {
                from: names[*from],
                to: names[*to],
                epoch: *epoch,
            },
            Self::Answer {
                from,
                to,
                epoch,
                answer,
            } => Self::Answer {
                from: names[*from],
                to: names[*to],
                epoch: *epoch,
                answer: *answer,
            },
        }
    }

    /// Whether the message only tells the coordinator that somebody waits for a decision.
    pub(crate) fn is_reminder(&self) -> bool {
        let Self::Report(_, envelope) = self else {
            return false;
        };
        matches!(envelope.report, Report::Status(_) | Report::InDoubt)
    }

    /// Whether no reader ever does anything on it. The tables check that against every node.
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Self::Report(_, ReportEnvelope { report, .. }) => match report {
                Report::Fenced => true,
                Report::Status(status) => status.participation == ParticipationView::Idle,
                Report::Prepared
                | Report::PrepareFailed { .. }
                | Report::PeersReady
                | Report::PeersNotReady { .. }
                | Report::BeforeSwitchDone { .. }
                | Report::BeforeSwitchFailed { .. }
                | Report::Armed { .. }
                | Report::Held(_)
                | Report::HoldRefused { .. }
                | Report::Switched(_)
                | Report::SwitchFailed { .. }
                | Report::Aborted
                | Report::Retired(_)
                | Report::Unhealthy { .. }
                | Report::InDoubt => false,
            },
            Self::Answer { answer, .. } => *answer == PeerAnswer::Unknown,
            Self::Directive(..) | Self::Ask { .. } => false,
        }
    }

    /// Short, for counterexamples.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Directive(to, DirectiveEnvelope { token, directive }) => {
                let directive = format!("{directive:?}");
                let verb = directive.split(['(', ' ']).next().unwrap_or_default();
                format!("{verb} t{} e{} to {to}", token.term, token.epoch)
            }
            Self::Report(from, ReportEnvelope { token, report }) => {
                format!("{report:?} t{} e{} from {from}", token.term, token.epoch)
            }
            Self::Ask { from, to, epoch } => format!("{from} asks {to} about e{epoch}"),
            Self::Answer {
                to, epoch, answer, ..
            } => format!("{answer:?} on e{epoch} to {to}"),
        }
    }
}

/// A message without what nothing is decided by: who has answered, and what a report only tells.
pub(crate) fn canonical(message: Message) -> Message {
    match message {
        Message::Report(from, envelope) => Message::Report(from, canonical_report(&envelope)),
        Message::Answer {
            to, epoch, answer, ..
        } => Message::Answer {
            from: to,
            to,
            epoch,
            answer,
        },
        Message::Directive(..) | Message::Ask { .. } => message,
    }
}

/// A report without what nothing is decided by: reasons, and in a status all but the
/// cut-over that is under way; the server checks that how far it is makes no difference.
fn canonical_report(envelope: &ReportEnvelope) -> ReportEnvelope {
    let ReportEnvelope { mut token, report } = envelope.clone();
    let reason = String::new();
    let report = match report {
        Report::Status(status) => {
            token.epoch = Epoch(0);
            let participation = match status.participation {
                ParticipationView::Idle => ParticipationView::Idle,
                ParticipationView::Preparing(epoch)
                | ParticipationView::Prepared(epoch)
                | ParticipationView::Armed(epoch) => ParticipationView::Armed(epoch),
            };
            Report::Status(InstanceStatus {
                participation,
                ..InstanceStatus::default()
            })
        }
        Report::PrepareFailed { .. } => Report::PrepareFailed { reason },
        Report::HoldRefused { .. } => Report::HoldRefused { reason },
        Report::SwitchFailed { .. } => Report::SwitchFailed { reason },
        Report::Unhealthy { service, .. } => Report::Unhealthy { service, reason },
        Report::Prepared
        | Report::PeersReady
        | Report::PeersNotReady { .. }
        | Report::BeforeSwitchDone { .. }
        | Report::BeforeSwitchFailed { .. }
        | Report::Armed { .. }
        | Report::Held(_)
        | Report::Switched(_)
        | Report::Aborted
        | Report::Retired(_)
        | Report::InDoubt
        | Report::Fenced => report,
    };
    if !is_vote(&report) {
        // A fact, whoever was told it; the server checks that its term is never looked at.
        token.term = Term(0);
    }
    ReportEnvelope { token, report }
}

/// A node's text without the reasons in it, which are for people and decide nothing: every
/// quoted text with a space, and the empty one, becomes the same.
pub(crate) fn without_reasons(text: &str) -> String {
    let mut parts = text.split('"');
    let mut kept = String::with_capacity(text.len());
    while let Some(outside) = parts.next() {
        kept.push_str(outside);
        if let Some(quoted) = parts.next() {
            let reason = quoted.is_empty() || quoted.contains(' ');
            kept.push_str(if reason { "\"…\"" } else { quoted });
        }
    }
    kept
}
