//! `greenlight setup`: installs server, agents and proxies on real machines, over the system's
//! `ssh`.
//!
//! ```text
//!   greenlight.yml ─┐
//!   look (a script) ┴─▶ Facts ─▶ DesiredState ─▶ changes ─▶ scripts, one machine after the other
//! ```
//!
//! Examining and changing are separate: desired state and facts are compared here, so a second
//! run finds nothing to change, and `--dry-run` is the same run without its second half. What
//! happens on a machine is a few lines of shell for the tools that every systemd machine has.
//!
//! Deliberately absent: an SSH library (the user's configuration, agent and known hosts apply),
//! firewalls, Docker and Nginx themselves, and any change to an application.

mod binary;
mod change;
mod desired;
mod facts;
mod install;
mod remove;
mod ssh;
mod units;

pub use binary::Binary;
pub use change::Change;
pub use desired::{DesiredState, MachinesError, Part, TargetMachine, machines};
pub use facts::Facts;
pub use install::{Aim, Done, Installation, MachineFailure};
pub use ssh::{Remote, RemoteError};
pub use units::{NotForUnit, Unit};

/// Where the program is.
pub(crate) const PROGRAM: &str = "/usr/local/bin/greenlight";
/// Where units are.
pub(crate) const UNITS: &str = "/etc/systemd/system";
/// What an instance keeps.
pub(crate) const INSTANCE_STATE: &str = "/var/lib/greenlight/instance";
/// What the server keeps.
pub(crate) const SERVER_STATE: &str = "/var/lib/greenlight/server";
/// Where Nginx reaches the gate.
pub(crate) const GATE: &str = "/run/greenlight/gate.sock";
/// The user of an instance's services, and of its applications that are commands.
pub(crate) const USER: &str = "greenlight";
/// The coordinator's user: no application may read the authority's key.
pub(crate) const SERVER_USER: &str = "greenlight-server";
/// Where an agent's peers ask it.
pub(crate) const PEER_PORT: u16 = 9701;
