//! Both runtimes as one: each release is run by the driver that its artifact is for.
//!
//! Where Docker has never been used it is not asked, so an instance without Docker needs none.

use super::{
    ContainerHealth, DockerRuntime, Launch, ProcessRuntime, Running, Runtime, RuntimeError,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_protocol::Slot;
use greenlight_release::spec::Artifact;
use std::path::Path;
use std::time::Duration;

/// The runtimes of an instance.
#[derive(Clone)]
pub struct Runtimes {
    process: ProcessRuntime,
    docker: DockerRuntime,
}

impl Runtimes {
    /// The runtimes that keep their files in an agent's folder. `docker` is the daemon's socket;
    /// Docker's usual one if none.
    pub fn open(state: &Path, docker: Option<&str>) -> Result<Self, RuntimeError> {
        Ok(Self {
            process: ProcessRuntime::new(state.join("slots"))?,
            docker: DockerRuntime::new(state.join("docker"), docker)?,
        })
    }

    /// The one that knows images.
    pub fn docker(&self) -> DockerRuntime {
        self.docker.clone()
    }
}

impl Runtime for Runtimes {
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Running, RuntimeError>> {
        match launch.artifact {
            Artifact::Command { .. } => self.process.start(launch),
            Artifact::Image(_) => self.docker.start(launch),
        }
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Running>, RuntimeError>> {
        async move {
            let mut all = self.process.list().await?;
            if self.docker.was_used() {
                all.extend(self.docker.list().await?);
            }
            Ok(all)
        }
        .boxed()
    }

    fn exited(&self, running: Running) -> BoxFuture<'static, String> {
        match running.launch.artifact {
            Artifact::Command { .. } => self.process.exited(running),
            Artifact::Image(_) => self.docker.exited(running),
        }
    }

    fn stop(&self, slot: Slot, timeout: Duration) -> BoxFuture<'_, Result<(), RuntimeError>> {
        async move {
            self.process.stop(slot.clone(), timeout).await?;
            match self.docker.was_used() {
                true => self.docker.stop(slot, timeout).await,
                false => Ok(()),
            }
        }
        .boxed()
    }

    fn logs<'a>(&'a self, slot: &'a Slot, lines: usize) -> BoxFuture<'a, Vec<String>> {
        async move {
            if self.docker.was_used() {
                let of_container = self.docker.logs(slot, lines).await;
                if !of_container.is_empty() {
                    return of_container;
                }
            }
            self.process.logs(slot, lines).await
        }
        .boxed()
    }

    fn container_health<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, ContainerHealth> {
        match running.launch.artifact {
            Artifact::Command { .. } => self.process.container_health(running),
            Artifact::Image(_) => self.docker.container_health(running),
        }
    }
}
