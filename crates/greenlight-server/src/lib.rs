//! `greenlight server`: the coordinator's shell, its journal, the API and the agents' link.
//!
//! ```text
//!   operators ──HTTP──▶ api ──┐                       ┌──▶ journal (fsync)
//!                             ├─▶ inbox ─▶ shell ─────┼──▶ directive streams ──▶ agents
//!   agents ────reports─▶ link ┘           (one thread)└──▶ receipts, progress
//! ```
//!
//! One thread owns the coordinator. It takes one input, carries out its effects in order, and
//! only then takes the next: a record is durable before anything after it is done.
//!
//! Deliberately absent: sockets, signals and the service manager. `greenlight` starts the role.

mod api;
mod compaction;
mod doctor;
mod receipt_store;
mod shell;

pub use api::router;
pub use shell::{FleetView, Input, RecoveredShell, SendDirectives, Shell};
