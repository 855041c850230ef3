//! What is on its way between the nodes, in a form in which equal meaning is equal text.

use super::machine::{index, name};
use greenlight_protocol::coordinator::CoordinatorEvent;
use greenlight_protocol::{
    AgentEvent, DirectiveEnvelope, Epoch, InstanceStatus, ParticipationView, PeerAnswer, Report,
    ReportEnvelope, Term,
};

/// New names of instances: the new index by the old one.
pub(crate) type Names = [usize; 3];

/// A message; instances are named by index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Message {
    Directive(usize, DirectiveEnvelope),
    Report(usize, ReportEnvelope),
    Ask {
        from: usize,
        to: usize,
        epoch: Epoch,
    },
    Answer {
        to: usize,
        epoch: Epoch,
        answer: PeerAnswer,
    },
}

impl Message {
    /// The instance that it is for; none for the coordinator.
    pub(crate) fn addressee(&self) -> Option<usize> {
        match self {
            Self::Directive(to, _) | Self::Ask { to, .. } | Self::Answer { to, .. } => Some(*to),
            Self::Report(..) => None,
        }
    }

    pub(crate) fn to_agent(&self) -> AgentEvent {
        match self {
            Self::Directive(_, envelope) => AgentEvent::Directed(envelope.clone()),
            Self::Ask { from, epoch, .. } => AgentEvent::PeerAsked {
                peer: name(*from),
                epoch: *epoch,
            },
            Self::Answer { epoch, answer, .. } => AgentEvent::PeerAnswered {
                epoch: *epoch,
                answer: *answer,
            },
            Self::Report(..) => unreachable!("reports are for the coordinator"),
        }
    }

    pub(crate) fn to_coordinator(&self) -> CoordinatorEvent {
        match self {
            Self::Report(from, envelope) => CoordinatorEvent::Reported {
                from: name(*from),
                envelope: envelope.clone(),
            },
            Self::Directive(..) | Self::Ask { .. } | Self::Answer { .. } => {
                unreachable!("these are for agents")
            }
        }
    }

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
            Self::Answer { to, epoch, answer } => Self::Answer {
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
            Self::Answer { to, epoch, answer } => format!("{answer:?} on e{epoch} to {to}"),
        }
    }
}

/// Whether a report answers a directive, and counts only in the term of that.
pub(crate) fn is_vote(report: &Report) -> bool {
    match report {
        Report::Prepared
        | Report::PrepareFailed { .. }
        | Report::PeersReady
        | Report::PeersNotReady { .. }
        | Report::BeforeSwitchDone { .. }
        | Report::BeforeSwitchFailed { .. }
        | Report::Armed { .. }
        | Report::Held(_)
        | Report::HoldRefused { .. } => true,
        Report::Status(_)
        | Report::Switched(_)
        | Report::SwitchFailed { .. }
        | Report::Aborted
        | Report::Retired(_)
        | Report::Unhealthy { .. }
        | Report::InDoubt
        | Report::Fenced => false,
    }
}

/// A report without what nothing is decided by: reasons, and in a status all but the
/// cut-over that is under way; the server checks that how far it is makes no difference.
pub(crate) fn canonical_report(envelope: &ReportEnvelope) -> ReportEnvelope {
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

/// The index of the instance that a coordinator's message goes to.
pub(crate) fn directive(
    to: &greenlight_protocol::InstanceId,
    envelope: DirectiveEnvelope,
) -> Message {
    Message::Directive(index(to), envelope)
}
