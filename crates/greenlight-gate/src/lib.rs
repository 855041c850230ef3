//! The gate: where the requests of a service are admitted, held or refused.
//!
//! ```text
//!  command, deadline, ...           ┌─────────────┐   ordered effects
//!  ──────────────────────────────▶│ GateControl │──────────────────▶ set the route, persist,
//!         (GateEvent)             └─────────────┘   (GateEffect)     replicate, wait, reply
//! ```
//!
//! [`Gate`] is what every request passes: one atomic word and some counts. [`GateControl`] is the
//! third machine beside the protocol's coordinator and agent. It decides what each service's gate
//! does, the state that a restarted process continues with, and in which order the route is changed,
//! written down, replicated and answered. The proxy's admin thread is its shell; the scenarios, the
//! model check and the simulation of the protocol run it as well.
//!
//! Deliberately absent: I/O, clocks, threads, async and waiting; connections and requests; fleets.
//! A time is passed in, in nanoseconds on the machine's monotonic clock.

mod atomic;
mod color;
mod control;
mod counts;
mod evidence;
mod gate;
mod mutant;
mod wire;

pub use color::{Color, Route};
pub use control::{
    Answer, Awaited, Command, Deadline, Durability, GateControl, GateEffect, GateEvent,
    HandoverState, Mode, ReadCounts, Refusal, ReplicateRequest, Role, RoutingState, ServiceControl,
    ServiceState, Ticket,
};
pub use counts::{ColorCounts, Counts, CountsByCutOver, CountsByService, InFlight};
pub use evidence::{EvidenceByEpoch, ServiceEvidence};
pub use gate::{Admission, Claim, Counters, Gate, Kind, NoClaim, Wake, Watching};
pub use mutant::GateMutant;
pub use wire::{
    DrainAnswer, DrainRequest, EvidenceAnswer, HeldService, HoldAnswer, HoldRequest, OnUncertain,
    OpenAnswer, OpenRequest, ServicesRequest,
};
