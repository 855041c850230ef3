//! What runs a release: the trait that the agent's shell drives, and its types.
//!
//! | Release | Driver |
//! |---|---|
//! | a command | [`ProcessRuntime`]: a process group of this machine |
//! | an image | [`DockerRuntime`]: a container, through the Docker API |
//!
//! [`Runtimes`] has both, and asks the one that the release is for.

mod docker;
mod docker_or_process;
mod process;

pub use docker::{DockerRuntime, OwnImage};
pub use docker_or_process::Runtimes;
pub use process::ProcessRuntime;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_protocol::{Incarnation, Slot};
use greenlight_release::secret::{RegistryLogin, Secrets};
use greenlight_release::spec::Artifact;
use greenlight_release::spec::image::Pin;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How an application is to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The slot it fills.
    pub slot: Slot,
    /// Which start this is.
    pub incarnation: Incarnation,
    pub digest: String,
    /// The release's version.
    pub version: String,
    pub artifact: Artifact,
    /// The environment; `${PORT}` and `${VERSION}` are replaced in its values.
    pub env: BTreeMap<String, String>,
    /// Secrets, which must not be written anywhere: a driver that stores launches omits them.
    #[serde(skip)]
    pub secrets: Secrets,
    /// The slot's port on this machine.
    pub port: u16,
}

/// An application that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// How it was started.
    pub launch: Launch,
    /// The process that leads it.
    pub pid: i32,
    /// Where it is reached.
    pub address: SocketAddr,
    /// The container it is in, if it is in one.
    pub container: Option<Container>,
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Docker's id of it.
    pub id: String,
    /// When Docker started it; another time is another run.
    pub started_at: String,
}

/// Why a runtime could not carry out an operation.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The command names no program.
    #[error("the command of `{0}` is empty; name a program in `command`")]
    EmptyCommand(Slot),
    /// Another process listens where the application should.
    #[error("port {port} for `{slot}` is taken by another program; stop it or configure `ports`")]
    PortTaken { slot: Slot, port: u16 },
    /// The program could not be started.
    #[error("`{program}` cannot be started: {source}")]
    Spawn {
        program: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Docker does not answer.
    #[error(
        "docker at `{host}` does not answer: {reason}; start it, or name its socket in `DOCKER_HOST`"
    )]
    DockerAway {
        host: String,
        /// The problem.
        reason: String,
    },
    /// An image cannot be had.
    #[error("the image `{image}` cannot be had: {reason}")]
    Image {
        image: String,
        /// Why, and what to do.
        reason: String,
    },
    /// There is no room left.
    #[error(
        "the disk of docker is full while it was {doing}; make room, for example with `docker system df`"
    )]
    DiskFull { doing: String },
    /// A container's name is in use.
    #[error("a container `{0}` that is not greenlight's is in the way; rename or remove it")]
    NameTaken(String),
    /// Docker refused.
    #[error("docker failed {doing}: {reason}")]
    Docker {
        doing: String,
        /// What it said.
        reason: String,
    },
    /// The start was called off.
    #[error("the start of `{0}` was called off")]
    CalledOff(Slot),
    /// This runtime cannot run that.
    #[error("`{0}` is not for this runtime")]
    Unsuited(Slot),
    /// The runtime's own files cannot be used.
    #[error("the runtime's files in `{path}` cannot be used: {source}")]
    Files {
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// What the runtime itself knows of an application's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerHealth {
    /// It has nothing against it, or knows nothing.
    NoObjection,
    /// It objects; what a person should read.
    Unhealthy(String),
}

/// What runs releases. The agent's shell calls it; it decides nothing.
pub trait Runtime: Send + Sync {
    /// Starts an application in an empty slot.
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Running, RuntimeError>>;
    /// The running applications of this agent; it finds them by this after a restart.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Running>, RuntimeError>>;
    /// Resolves when the application is dead, with how it ended.
    fn exited(&self, running: Running) -> BoxFuture<'static, String>;
    /// Asks the application to stop, and ends it after `timeout`. Nothing of it is left.
    fn stop(&self, slot: Slot, timeout: Duration) -> BoxFuture<'_, Result<(), RuntimeError>>;
    /// The last lines that the slot's application wrote, or the one before it there.
    fn logs<'a>(&'a self, slot: &'a Slot, lines: usize) -> BoxFuture<'a, Vec<String>>;
    /// The application's health as the runtime itself knows it; a driver without such knowledge
    /// has nothing against it.
    fn container_health<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, ContainerHealth> {
        let _ = running;
        async { ContainerHealth::NoObjection }.boxed()
    }
}

/// What a runtime with images can do beyond running releases.
pub trait Images: Send + Sync {
    /// Resolves an image's name to its present digest.
    fn pin<'a>(
        &'a self,
        image: &'a str,
        login: Option<&'a RegistryLogin>,
    ) -> BoxFuture<'a, Result<Pin, RuntimeError>>;
    /// Runs the release's `before_switch` command in a container of its own, once: if one of that
    /// `name` has been started before, its end is waited for instead. Gives its output.
    fn run_job<'a>(
        &'a self,
        launch: Launch,
        name: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>>;
}
