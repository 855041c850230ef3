//! `greenlight doctor`: what of the machines and the fleet would spoil a deployment, and what to
//! do about it.
//!
//! ```text
//!   greenlight.yml ──Expected──▶ server ──request──▶ agent: examines its machine ──▶ MachineReport
//!                                │                                                       │
//!                                └── who is away, clocks ──▶ fleet findings ◀────────────┘
//! ```
//!
//! Here is what the file expects of each instance, what only the whole fleet shows, and how the
//! findings are printed. The examination of a machine is its agent's (`greenlight-agent`).
//!
//! Deliberately absent: changing anything. Every finding says what a person can do.

mod clock;
mod expected;
mod fleet;
mod render;

pub use expected::expected_of;
pub use fleet::across;
pub use render::Diagnosis;
