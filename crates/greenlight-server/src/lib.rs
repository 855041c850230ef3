//! `greenlight server`: the coordinator's shell, its journal, the API and the agents' link.
//!
//! ```text
//!   operators ──HTTP──▶ api ──┐                       ┌──▶ journal (fsync)
//!                             ├─▶ inbox ─▶ shell ─────┼──▶ directive streams ──▶ agents
//!   agents ────reports─▶ link ┘           (one thread)├──▶ view, progress ───────▶ api
//!                                                     └──▶ receipts (a thread of their own)
//! ```
//!
//! One thread owns the coordinator. It takes one input, carries out its effects in order, and
//! only then takes the next: a record is durable before anything after it is done.
//!
//! Deliberately absent: sockets, signals and the service manager. `greenlight` starts the role.

mod api;
mod compaction;
mod doctor;
mod progress_log;
mod receipt_archive;
mod receipt_store;
mod shell;
mod view;

pub use api::{ApiParts, router};
pub use progress_log::ProgressLog;
pub use receipt_archive::{KEPT_RECEIPTS, ReceiptArchive};
pub use shell::{Input, RecoveredShell, SendDirectives, Shell};
pub use view::{FleetView, ViewReader};
