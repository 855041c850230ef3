//! What the control learns, what its shell must do, and why a command is refused.

use super::state::RoutingState;
use crate::color::{Color, Route};
use crate::counts::{Counts, CountsByCutOver, CountsByService};
use crate::wire::{HoldAnswer, HoldRequest, OpenAnswer, OpenRequest, ServicesRequest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Names a command from the moment that it comes until it is answered. The shell chooses it; two
/// commands never have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Reads what the gates of this process have counted.
pub trait ReadCounts {
    /// The counts of one service's gate.
    fn counts(&self, service: &str) -> Counts;
}

impl ReadCounts for CountsByService {
    fn counts(&self, service: &str) -> Counts {
        self.get(service).cloned().unwrap_or_default()
    }
}

/// A command to a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command<S> {
    /// Stop admitting.
    Hold(HoldRequest),
    /// Flip and release.
    Open(OpenRequest),
    /// Let requests wait without a deadline. A service that is not known goes nowhere already.
    Park(ServicesRequest),
    /// Refuse requests.
    Shed(ServicesRequest),
    /// Route a service like this; its gate does not change. The settings are valid.
    Define { name: String, settings: S },
    /// Forget a service.
    Remove { name: String },
    /// From the process that leads: route like this.
    Follow(ReplicateRequest<S>),
    /// From a follower: it has nothing left, and ends.
    FollowerEnded {
        follower: String,
        /// Its last counts.
        counts: CountsByCutOver,
    },
    /// From a successor: hand everything over.
    HandOver,
}

/// The routing as the process that leads wants it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplicateRequest<S> {
    /// The leader's id and a sequence number; an older one changes nothing.
    pub sequence: (u64, u64),
    pub state: RoutingState<S>,
}

/// What the control learns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GateEvent<S> {
    /// The process leads from now on: after a start, or after it has been handed everything.
    Started {
        /// Predecessors that still have connections.
        followers: BTreeSet<String>,
    },
    /// A command came in.
    Commanded { ticket: Ticket, command: Command<S> },
    /// What was to be persisted for a command is written, or could not be.
    Written {
        ticket: Ticket,
        /// The problem.
        result: Result<(), String>,
    },
    /// All followers route like this process, or some did not say so in time.
    Replicated {
        ticket: Ticket,
        /// Whether all did.
        in_time: bool,
    },
    /// Nothing more reaches the colors that the command waits for, in this process.
    NoneAdmitting { ticket: Ticket },
    /// No request is in flight to the colors that the command waits for, in any process.
    NoRequests {
        ticket: Ticket,
        /// Whether that was so within the time for it.
        in_time: bool,
    },
    /// What the followers have counted.
    Counted {
        ticket: Ticket,
        /// Without those that have ended; `None` if one did not say it in time.
        others: Option<CountsByCutOver>,
    },
    /// A deadline that was armed has passed.
    DeadlinePassed {
        /// As it was armed.
        generation: u64,
    },
    /// A follower is gone, and its connections with it.
    FollowerGone { follower: String },
    /// The successor has everything, and leads.
    HandedOver,
    /// The successor did not take over.
    HandoverFailed,
}

/// How much of a failure what was written must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The end of the process. A machine that loses power has lost its applications too, and a
    /// sync would lengthen every hold.
    Process,
    /// The end of the machine.
    Disk,
}

/// What a command waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Awaited {
    /// Until no request is being admitted to these colors in this process; then `NoneAdmitting`.
    NoneAdmitting(Vec<(String, Color)>),
    /// Until no request is in flight to these colors in any process; then `NoRequests`.
    NoRequests {
        of: Vec<(String, Color)>,
        /// For at most this long, in milliseconds.
        within_ms: u64,
    },
    /// What the followers have counted; then `Counted`.
    Counts {
        /// For at most this long, in milliseconds.
        within_ms: u64,
    },
}

/// What the shell must do, in the order in which it is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GateEffect<S> {
    /// The totals of a service's gate begin anew.
    ResetCounters(String),
    /// A service's gate counts a hold that expired.
    CountExpiry(String),
    /// The gate does this with requests, for every thread at once. Never given for what the gate
    /// does already.
    SetRoute {
        service: String,
        /// What it does.
        route: Route,
    },
    /// Find requests by the services as they are now. A known service keeps its gate, a new one
    /// gets one that does what the control orders.
    SetServices,
    /// Say `DeadlinePassed` after this long.
    ArmDeadline {
        /// Which deadline.
        generation: u64,
        /// In milliseconds.
        after_ms: u64,
    },
    /// Write [`super::GateControl::to_persist`] down. With a ticket, say `Written` before anything
    /// else happens; without one, no one waits for it.
    Persist {
        /// The command that waits.
        ticket: Option<Ticket>,
        /// What it must survive.
        durability: Durability,
    },
    /// Have all followers route like this. With a ticket, say `Replicated`.
    Replicate {
        /// What they get.
        followed: ReplicateRequest<S>,
        /// The command that waits, and for how long at most, in milliseconds.
        waits: Option<(Ticket, u64)>,
    },
    /// A command waits.
    Await {
        ticket: Ticket,
        /// What for.
        what: Awaited,
    },
    /// Answer a command.
    Reply {
        ticket: Ticket,
        answer: Result<Answer, Refusal>,
    },
}

/// What a command that was carried out is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// To a hold.
    Held(HoldAnswer),
    Opened(OpenAnswer),
    /// To `Follow`.
    Counts(CountsByCutOver),
    /// To every other.
    Done,
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A successor is taking over, or has.
    HandingOver,
    /// There is no such service.
    Unknown { service: String },
    /// The command is of an older cut-over than the last one obeyed.
    Older {
        service: String,
        /// The command's.
        epoch: u64,
        /// The last one obeyed.
        last: u64,
    },
    /// The hold is of a cut-over that was opened.
    AlreadyOpened { service: String, epoch: u64 },
    /// The deadline, or another command, came before the hold was complete.
    Superseded,
    /// Requests were still in flight when the time of an exclusive hold was over.
    StillInFlight { requests: Vec<(String, u64)> },
    /// The routing could not be written down.
    NotWritten { reason: String },
    /// A follower does not say that it obeys.
    FollowerSilent,
    /// A hold is on, and nothing is handed over.
    HoldIsOn,
    /// A command is being carried out, and nothing is handed over.
    CommandIsRunning,
    /// This process has no successor that it could follow.
    NotFollowing,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HandingOver => f.write_str("this proxy is being taken over by its successor"),
            Self::Unknown { service } => write!(f, "there is no service `{service}`"),
            Self::Older {
                service,
                epoch,
                last,
            } => write!(f, "cut-over {epoch} of `{service}` is older than {last}"),
            Self::AlreadyOpened { service, epoch } => {
                write!(f, "cut-over {epoch} of `{service}` was opened already")
            }
            Self::Superseded => f.write_str(
                "the deadline passed, or another command came, before the hold was complete",
            ),
            Self::StillInFlight { requests } => {
                let left = requests
                    .iter()
                    .map(|(name, count)| format!("`{name}` has {count}"));
                let left = left.collect::<Vec<_>>().join(", ");
                write!(f, "requests were still in flight ({left})")
            }
            Self::NotWritten { reason } => f.write_str(reason),
            Self::FollowerSilent => {
                f.write_str("a predecessor of this proxy that still has connections does not obey")
            }
            Self::HoldIsOn => f.write_str("a hold is on"),
            Self::CommandIsRunning => f.write_str("a command is being carried out"),
            Self::NotFollowing => f.write_str("this proxy has no successor"),
        }
    }
}

impl std::error::Error for Refusal {}
