//! What is on its way between coordinator and agents, and what its reader makes of it.

use greenlight_protocol::{
    AgentEvent, CoordinatorEvent, DirectiveEnvelope, Epoch, InstanceId, PeerAnswer, ReportEnvelope,
};

/// A message; instances are named by index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    Directive(usize, DirectiveEnvelope),
    Report(usize, ReportEnvelope),
    Ask {
        from: usize,
        to: usize,
        epoch: Epoch,
    },
    Answer {
        from: usize,
        to: usize,
        epoch: Epoch,
        answer: PeerAnswer,
    },
}

/// A message as its reader takes it.
pub(crate) enum Read {
    Coordinator(CoordinatorEvent),
    Agent(usize, AgentEvent),
}

impl Message {
    /// The instance that sent it; none if the coordinator has.
    pub(crate) fn sender(&self) -> Option<usize> {
        match self {
            Self::Report(from, _) | Self::Ask { from, .. } | Self::Answer { from, .. } => {
                Some(*from)
            }
            Self::Directive(..) => None,
        }
    }

    /// The instance that it is for; none for the coordinator.
    pub(crate) fn addressee(&self) -> Option<usize> {
        match self {
            Self::Directive(to, _) | Self::Ask { to, .. } | Self::Answer { to, .. } => Some(*to),
            Self::Report(..) => None,
        }
    }

    /// It arrives.
    pub(crate) fn read(self) -> Read {
        match self {
            Self::Report(from, envelope) => Read::Coordinator(CoordinatorEvent::Reported {
                from: name(from),
                envelope,
            }),
            Self::Directive(to, envelope) => Read::Agent(to, AgentEvent::Directed(envelope)),
            Self::Ask { from, to, epoch } => {
                let peer = name(from);
                Read::Agent(to, AgentEvent::PeerAsked { peer, epoch })
            }
            Self::Answer {
                to, epoch, answer, ..
            } => Read::Agent(to, AgentEvent::PeerAnswered { epoch, answer }),
        }
    }
}

/// The name of the instance with this index.
pub(crate) fn name(index: usize) -> InstanceId {
    InstanceId(format!("i{index}"))
}

/// The index of the instance with this name.
pub(crate) fn index(name: &InstanceId) -> usize {
    name.0[1..].parse().expect("named by `name`")
}
