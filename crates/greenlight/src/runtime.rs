//! What runs a release: the trait that the agent's shell drives, and what it speaks of.

mod process;

pub use process::ProcessRuntime;

use futures_util::future::BoxFuture;
use greenlight_protocol::{Incarnation, Slot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How an application is to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The slot it fills.
    pub slot: Slot,
    /// Which start this is.
    pub incarnation: Incarnation,
    /// The release's digest.
    pub digest: String,
    /// The release's label.
    pub version: String,
    /// The program and its arguments; `${PORT}` and `${VERSION}` are replaced.
    pub command: Vec<String>,
    /// The environment; `${PORT}` and `${VERSION}` are replaced in its values.
    pub env: BTreeMap<String, String>,
    /// Where the command runs; here if none.
    pub working_dir: Option<String>,
    /// The port it must listen on.
    pub port: u16,
}

/// An application that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// How it was started.
    pub launch: Launch,
    /// The process that leads it.
    pub pid: i32,
}

/// Why a runtime could not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The command names no program.
    #[error("the command of `{0}` is empty; name a program in `command`")]
    EmptyCommand(Slot),
    /// Someone else listens where the application should.
    #[error("port {port} for `{slot}` is taken by another program; stop it or configure `ports`")]
    PortTaken {
        /// The slot.
        slot: Slot,
        /// Its port.
        port: u16,
    },
    /// The program could not be started.
    #[error("`{program}` cannot be started: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The runtime's own files cannot be used.
    #[error("the runtime's files in `{path}` cannot be used: {source}")]
    Files {
        /// Where.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What runs releases. The agent's shell calls it; it decides nothing.
pub trait Runtime: Send + Sync {
    /// Starts an application in an empty slot.
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Running, RuntimeError>>;
    /// What runs and is ours; after a restart of the agent this is how it finds its applications.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Running>, RuntimeError>>;
    /// Resolves when the application is dead, and says how it ended.
    fn exited(&self, running: Running) -> BoxFuture<'static, String>;
    /// Asks the application to stop, and ends it after `patience`. Nothing of it is left.
    fn stop(&self, slot: Slot, patience: Duration) -> BoxFuture<'_, Result<(), RuntimeError>>;
    /// The last lines that the slot's application wrote.
    fn logs(&self, slot: &Slot, lines: usize) -> Vec<String>;
}
