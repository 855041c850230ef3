//! What may happen at one node, and what comes of it.

use super::message::Names;
use super::table::Node;
use super::world::message::Message;
use greenlight_protocol::{AgentTimer, Color, CoordinatorTimer, Epoch, Term, Token};

/// One thing that may happen at a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A message arrives; it stays on its way, and may arrive again.
    Reads(Message),
    /// The link to the coordinator comes up; the agent notices.
    Connects,
    /// The link to this instance comes up; the coordinator notices.
    SeesConnection(usize),
    CoordinatorTimer(CoordinatorTimer),
    AgentTimer(AgentTimer),
    /// What the n-th of the proxy's waiting commands waits for is so: no request is on its way to
    /// what was served.
    NothingIsOnItsWay(usize),
    /// The gate's own deadline passes before a hold is complete.
    HoldIsRefused,
    /// The gate's own deadline passes in a complete hold.
    HoldExpires,
    /// The process that has the gate ends, and starts with what it has written.
    GateRestarts,
    /// A successor asks the proxy for everything, and is given it. While a hold is on it is
    /// refused, which changes nothing.
    ProxyIsReplaced,
    /// The successor leads; the predecessor follows.
    SuccessorLeads,
    /// The successor dies before it leads.
    SuccessorFails,
    /// What the leader does arrives at its follower.
    ReplicationArrives,
    /// The deadline of a follower passes, whose leader does not end the hold.
    FollowerExpires,
    /// The follower has no connections left.
    FollowerLeaves,
    /// The agent notices that another process leads.
    GateIsNoticed,
    GateAnswers(usize),
    CheckPasses(Color),
    /// The application runs, and its check fails.
    CheckFails(Color),
    StopEnds(Color),
    SlotDies(Color),
    SlotsAreListed,
    /// A person aborts the deployment.
    PersonAborts,
    /// A person deploys once more.
    PersonDeploys,
    Restarts,
    Crashes,
}

impl Step {
    /// The same step in a fleet whose instances are named otherwise.
    pub(crate) fn renamed(&self, names: &Names) -> Self {
        match self {
            Self::SeesConnection(from) => Self::SeesConnection(names[*from]),
            Self::Reads(message) => Self::Reads(message.renamed(names)),
            Self::Connects
            | Self::CoordinatorTimer(_)
            | Self::AgentTimer(_)
            | Self::NothingIsOnItsWay(_)
            | Self::ProxyIsReplaced
            | Self::SuccessorLeads
            | Self::SuccessorFails
            | Self::ReplicationArrives
            | Self::FollowerExpires
            | Self::FollowerLeaves
            | Self::HoldIsRefused
            | Self::GateRestarts
            | Self::GateIsNoticed
            | Self::HoldExpires
            | Self::GateAnswers(_)
            | Self::CheckPasses(_)
            | Self::CheckFails(_)
            | Self::StopEnds(_)
            | Self::SlotDies(_)
            | Self::SlotsAreListed
            | Self::PersonAborts
            | Self::PersonDeploys
            | Self::Restarts
            | Self::Crashes => self.clone(),
        }
    }

    /// What is counted of it, if anything is.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self {
            Self::SlotDies(_) | Self::CheckFails(_) => Some(Fault::Death),
            Self::HoldIsRefused | Self::GateRestarts => Some(Fault::Gate),
            Self::PersonAborts => Some(Fault::Abort),
            Self::PersonDeploys => Some(Fault::Deploy),
            Self::Reads(_)
            | Self::Connects
            | Self::SeesConnection(_)
            | Self::CoordinatorTimer(_)
            | Self::AgentTimer(_)
            | Self::NothingIsOnItsWay(_)
            | Self::ProxyIsReplaced
            | Self::SuccessorLeads
            | Self::SuccessorFails
            | Self::ReplicationArrives
            | Self::FollowerExpires
            | Self::FollowerLeaves
            | Self::HoldExpires
            | Self::GateIsNoticed
            | Self::GateAnswers(_)
            | Self::CheckPasses(_)
            | Self::StopEnds(_)
            | Self::SlotsAreListed
            | Self::Restarts
            | Self::Crashes => None,
        }
    }

    /// Whether a fleet without faults does this by itself, without waiting for anything.
    pub(crate) fn is_prompt(&self) -> bool {
        match self {
            Self::NothingIsOnItsWay(_)
            | Self::SuccessorLeads
            | Self::ReplicationArrives
            | Self::FollowerLeaves
            | Self::GateIsNoticed
            | Self::GateAnswers(_)
            | Self::CheckPasses(_)
            | Self::StopEnds(_)
            | Self::SlotsAreListed
            | Self::Restarts => true,
            Self::Reads(_)
            | Self::Connects
            | Self::SeesConnection(_)
            | Self::CoordinatorTimer(_)
            | Self::AgentTimer(_)
            | Self::HoldExpires
            | Self::HoldIsRefused
            | Self::FollowerExpires
            | Self::ProxyIsReplaced
            | Self::SuccessorFails
            | Self::GateRestarts
            | Self::CheckFails(_)
            | Self::SlotDies(_)
            | Self::PersonAborts
            | Self::PersonDeploys
            | Self::Crashes => false,
        }
    }
}

/// What is counted of a step: faults other than crashes, and a person's will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An application dies or fails its check.
    Death,
    /// A gate refuses or restarts.
    Gate,
    /// A proxy is replaced.
    Replacement,
    /// A person aborts.
    Abort,
    /// A person deploys.
    Deploy,
}

/// What came of a step.
#[derive(Clone, Debug)]
pub(crate) struct Taken<Node> {
    /// The node after it.
    pub(crate) node: Node,
    /// What it sent, in order.
    pub(crate) sent: Vec<Message>,
    /// Whether the process crashed in it.
    pub(crate) crashes: bool,
    /// The newest cut-over that a gate was opened for.
    pub(crate) opened: Option<Epoch>,
    /// The rule that was broken in it.
    pub(crate) breach: Option<&'static str>,
    /// What is counted of it besides.
    pub(crate) fault: Option<Fault>,
    /// How many effects the gate has carried out in it.
    pub(crate) gate_effects: usize,
    /// After how many more effects the gate's process ends.
    pub(crate) gate_ends_in: Option<usize>,
    /// Whether commands reach the gate.
    pub(crate) reaches_gate: Reaches,
}

/// Whether commands of an agent reach its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaches {
    Yes,
    /// Its process is away.
    No,
}

impl<Node> Taken<Node> {
    pub(crate) fn of(node: Node) -> Self {
        Self {
            node,
            sent: Vec::new(),
            crashes: false,
            opened: None,
            breach: None,
            fault: None,
            gate_effects: 0,
            gate_ends_in: None,
            reaches_gate: Reaches::Yes,
        }
    }
}

impl<N: Node> Taken<N> {
    /// A complete step, and the beginnings of it that a crash may leave.
    ///
    /// Of beginnings that leave the node the same, only the longest counts: it has sent the most
    /// messages, and a message that is sent may still never arrive. One that leaves it as a crash
    /// after the complete step does is left out, because that crash is a step of its own.
    pub(crate) fn with_crashes(
        complete: Self,
        beginnings: impl Iterator<Item = Self>,
    ) -> Vec<Self> {
        let mut longest: Vec<(String, Self)> = Vec::new();
        for beginning in beginnings {
            let key = beginning.node.key();
            longest.retain(|(known, _)| *known != key);
            longest.push((key, beginning));
        }
        // The last one is the complete step.
        longest.pop();
        let cut_short = longest.into_iter().map(|(_, beginning)| Self {
            crashes: true,
            ..beginning
        });
        [complete].into_iter().chain(cut_short).collect()
    }
}

/// Every token that may have been used so far, from the first on.
pub(crate) fn tokens_up_to(term: Term, epoch: Epoch) -> impl Iterator<Item = Token> {
    (1..=term.0).flat_map(move |term| {
        (1..=epoch.0).map(move |epoch| Token {
            term: Term(term),
            epoch: Epoch(epoch),
        })
    })
}
