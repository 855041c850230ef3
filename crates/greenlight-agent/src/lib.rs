//! `greenlight agent`: the shell around the instance's half of the protocol.
//!
//! ```text
//!   server ──directives──▶ ┌───────┐ ──▶ journal (fsync)
//!   peers  ──questions───▶ │ shell │ ──▶ runtime: start, stop   ──▶ health checks ─┐
//!   timers ──────────────▶ │  loop │ ──▶ front: hold, open, park                   │
//!                          └───────┘ ──▶ reports, answers                          │
//!                              ▲──────── slot ready, exited, gate held, opened ◀───┘
//! ```
//!
//! One loop owns the protocol's `Agent`. It takes one event, carries out the effects in order,
//! and only then takes the next. What takes long runs beside it and comes back as an event.
//!
//! The drivers that it uses are traits with several implementations: [`runtime`] runs releases,
//! [`front`] receives users. [`examine`] looks for what of the machine would spoil a deployment.
//!
//! Deliberately absent: the proxy, which is reached through its admin socket; and signals and the
//! service manager. `greenlight` starts the role.

pub mod addresses;
mod bounded_logs;
mod event;
pub mod examine;
pub mod front;
pub mod health;
pub mod nginx;
mod peers;
mod readings;
mod requests;
pub mod runtime;
pub mod secret_store;
mod shell;
mod slot_error;
mod slots;
mod telemetry;

pub use shell::{AgentOptions, AgentShell};
