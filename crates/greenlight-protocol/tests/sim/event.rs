//! Everything that can happen in a run, as it waits in the queue.

use super::gate::RequestId;
use super::profile::Kind;
use crate::world::message::Message;
use crate::world::proxy::{Asked, ProcessId};
use greenlight_protocol::{
    AgentEvent, AgentTimer, CoordinatorTimer, Incarnation, Release, ServiceName, Slot,
};

/// A process that can be reached over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    Coordinator,
    Instance(usize),
}

impl Place {
    /// An instance by its index, or the coordinator.
    pub(crate) fn of(instance: Option<usize>) -> Self {
        instance.map_or(Self::Coordinator, Self::Instance)
    }
}

/// One thing that happens. `life` names the start of a process that it was meant for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// A process does the next thing it has to do.
    Steps {
        at: Place,
        life: u64,
    },
    CoordinatorTimer {
        life: u64,
        timer: CoordinatorTimer,
        due: u64,
    },
    AgentTimer {
        at: usize,
        life: u64,
        timer: AgentTimer,
        due: u64,
    },
    Starts(Place),
    GateStarts(usize),
    Arrives(Message),
    /// The agent dials the coordinator.
    Dials {
        at: usize,
        agent: u64,
        coordinator: u64,
    },
    /// The coordinator notices that a link is down.
    LinkIsDown {
        at: usize,
        session: u64,
    },
    ToAgent {
        at: usize,
        life: u64,
        event: AgentEvent,
    },
    /// The agent asks which process of its proxy leads.
    LeaderCheck {
        at: usize,
        life: u64,
        leader: Option<ProcessId>,
    },
    /// An agent's command to hold arrives at its gate.
    HoldArrives {
        at: usize,
        asked: Asked,
        life: u64,
    },
    GateDeadline {
        at: usize,
        process: ProcessId,
        generation: u64,
    },
    /// The time for an exclusive hold is over.
    GateBudget {
        at: usize,
        process: ProcessId,
        ticket: u64,
    },
    /// A proxy's process ends.
    GateEnds {
        at: usize,
        process: ProcessId,
    },
    /// A successor of the proxy asks for everything; how often it has been refused.
    ReplacementBegins {
        at: usize,
        refused: u32,
    },
    /// The successor leads, or dies before it does.
    SuccessorLeads(usize),
    SuccessorFails(usize),
    /// What a proxy's leader does arrives at a follower.
    ReplicationArrives {
        at: usize,
        process: ProcessId,
    },
    /// A command has waited for followers for long enough.
    ReplicationBudget {
        at: usize,
        process: ProcessId,
        ticket: u64,
    },
    /// A follower ends if it has no connections left.
    FollowerLeaves {
        at: usize,
        process: ProcessId,
    },
    /// What a proxy was writing is written.
    GateWrites {
        at: usize,
        process: ProcessId,
    },
    Launch {
        at: usize,
        life: u64,
        slot: Slot,
        incarnation: Incarnation,
        release: Release,
    },
    Listens {
        at: usize,
        slot: Slot,
        incarnation: Incarnation,
    },
    Check {
        at: usize,
        life: u64,
        slot: Slot,
        incarnation: Incarnation,
    },
    ReadyDeadline {
        at: usize,
        life: u64,
        slot: Slot,
        incarnation: Incarnation,
    },
    Dies {
        at: usize,
        slot: Slot,
        incarnation: Incarnation,
    },
    Recovers {
        at: usize,
        slot: Slot,
        incarnation: Incarnation,
    },
    DrainOver {
        at: usize,
        life: u64,
        slot: Slot,
    },
    Kills {
        at: usize,
        life: u64,
        slot: Slot,
        /// When its drain was over.
        drained: bool,
    },
    Traffic,
    Probe {
        at: usize,
        service: ServiceName,
    },
    RequestMoves {
        request: RequestId,
        step: u32,
    },
    RequestIsOverdue(RequestId),
    Fault,
    Strikes(Kind),
    PartitionHeals(Place, Place),
    DiskHasRoom(Place),
    PersonActs,
    Heals,
    Look,
}

impl Event {
    /// Whether it is worth a line when a run is told.
    pub(crate) fn tells_something(&self) -> bool {
        !matches!(
            self,
            Self::Steps { .. }
                | Self::Traffic
                | Self::Probe { .. }
                | Self::RequestMoves { .. }
                | Self::RequestIsOverdue(_)
                | Self::Fault
                | Self::Look
        )
    }
}
