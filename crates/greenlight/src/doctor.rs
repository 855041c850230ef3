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

pub use examine::{MachinePaths, MachineReport};
pub use expected::{Expected, ExpectedNginx, ExpectedService};
pub use fleet::{DoctorRequest, FleetReport, InstanceReport, across};
pub use render::Diagnosis;

use greenlight_protocol::InstanceId;
use serde::{Deserialize, Serialize};

/// How bad a finding is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A deployment may fail, or users may be hurt.
    Problem,
    /// Worth knowing.
    Note,
    /// Nothing to do.
    Ok,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where; the whole fleet if none.
    pub instance: Option<InstanceId>,
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// The fact.
    pub found: String,
    /// What to do.
    pub todo: Option<String>,
}

impl Finding {
    fn ok(check: &str, found: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, found.into(), None)
    }

    fn note(check: &str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(check, Level::Note, found.into(), Some(todo.into()))
    }

    fn problem(check: &str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(check, Level::Problem, found.into(), Some(todo.into()))
    }

    fn new(check: &str, level: Level, found: String, todo: Option<String>) -> Self {
        Self {
            instance: None,
            check: check.to_owned(),
            level,
            found,
            todo,
        }
    }
}
