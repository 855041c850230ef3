//! Every decision of Greenlight's cut-over, as two pure state machines.
//!
//! ```text
//!   Command ──▶ ┌─────────────┐ ──▶ Persist(record)      durable before anything after it
//!   Report  ──▶ │ Coordinator │ ──▶ Send(directive)
//!   timer   ──▶ └─────────────┘ ──▶ SetTimer
//!                     │ ▲
//!          Directive  ▼ │ Report
//!               ┌─────────────┐ ──▶ Persist(record)
//!   slot    ──▶ │    Agent    │ ──▶ Gate(hold, open, park)
//!   gate    ──▶ └─────────────┘ ──▶ Start, Stop, AskPeer, SetTimer
//! ```
//!
//! Both machines take an event and the time, and return an *ordered* list of effects.
//! The shell carries them out one after the other; `Persist` is a barrier: what follows it may
//! not happen before the record is on disk, and if the disk fails the process must end.
//! A crash therefore fits between any two effects, and that is how the model checker and the
//! simulator drive exactly this code.
//!
//! Deliberately absent: sockets, files, clocks, threads, randomness, async, logging.
//! Time and incarnation numbers are passed in or derived; maps are ordered; recovery replays
//! records through the same `apply` that live execution uses.
//!
//! `docs/design/guarantees.md` has the guarantees G1 to G9, `docs/design/protocol.md` the states and
//! the failure table.

pub mod agent;
pub mod coordinator;
pub mod cut_over;
pub mod evidence;
pub mod id;
pub mod message;
pub mod mutant;
pub mod policy;
pub mod release;
pub mod strategy;
pub mod time;

pub use agent::{Agent, AgentEffect, AgentEvent, AgentRecord, AgentTimer, GateAction};
pub use coordinator::{
    Accepted, Command, Coordinator, CoordinatorEffect, CoordinatorEvent, CoordinatorRecord,
    CoordinatorTimer, Outcome, Phase, Refusal,
};
pub use cut_over::{CutOver, Direction};
pub use evidence::{
    AlignedEvidence, Alignment, DrainEvidence, GateEvidence, HoldEvidence, ServiceEvidence,
    SwitchEvidence,
};
pub use id::{DeploymentId, Epoch, Incarnation, InstanceId, ServiceName, Term, Token};
pub use message::{
    Directive, DirectiveEnvelope, InstanceStatus, ParticipationView, PeerAnswer, Report,
    ReportEnvelope,
};
pub use mutant::Mutant;
pub use policy::{OnUncertain, Policy};
pub use release::{Color, LiveRelease, Release, Slot};
pub use strategy::{Plan, PlanError, Share, Strategy, Wave};
pub use time::Timestamp;
