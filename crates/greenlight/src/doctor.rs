//! `greenlight doctor`: what of the machines and the fleet would spoil a deployment, and what to
//! do about it.
//!
//! ```text
//!   greenlight.yml ──Expected──▶ server ──request──▶ agent: examines its machine ──▶ MachineReport
//!                                │                                                       │
//!                                └── who is away, clocks ──▶ fleet findings ◀────────────┘
//! ```
//!
//! Each file is one subject, with two halves: one that collects facts, and one that makes
//! findings of facts and is tested without a machine.
//!
//! Deliberately absent: changing anything. Every finding says what a person can do.

mod certificate;
mod clock;
mod disk_space;
mod docker;
mod examine;
mod expected;
mod fleet;
mod nginx;
mod ports;
mod procfs;
mod proxy;
mod reloads;
mod render;

pub use examine::MachinePaths;
pub use expected::expected_of;
pub use fleet::across;
pub use render::Diagnosis;
