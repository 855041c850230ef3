//! The docker runtime: a release in a container, through the Docker API.
//!
//! ```text
//!   start ─▶ image (here, or pulled by digest) ─▶ create ─▶ networks ─▶ start ─▶ inspect ─▶ address
//!   stop  ─▶ SIGTERM, timeout, SIGKILL ─▶ keep the last lines ─▶ remove ─▶ prune what we recorded
//! ```
//!
//! A label with this agent's mark identifies its containers; it touches no others, and
//! everything that a restarted agent must know is in the container's labels. Works with Docker
//! 20.10 and newer, and with Podman's compatible socket.
//!
//! Deliberately absent: a restart of dead applications (the agent does that, behind the gate), and
//! any use of the `docker` command.

mod container;
mod daemon;
mod daemon_error;
mod image;
mod inspected;
mod job;
mod own_image;
mod retention;
mod tail;

pub use own_image::OwnImage;

use self::container::{ContainerPlan, Mark};
use self::daemon::{Daemon, understood};
use self::inspected::{end_of, image_check, running};
use self::retention::{Recorded, Used};
use super::{Container, ContainerHealth, Images, Launch, Running, Runtime, RuntimeError};
use bollard::models::NetworkConnectRequest;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use greenlight_protocol::Slot;
use greenlight_release::secret::RegistryLogin;
use greenlight_release::spec::image::Pin;
use greenlight_release::spec::{Artifact, ImageSpec};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The pause before a daemon that did not answer is asked again.
const AWAY_PAUSE: Duration = Duration::from_millis(200);
/// How often a container is inspected although no event came: a daemon that restarts
/// it on its own may send no event.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The last lines of a removed container that are kept for people.
const LINES_KEPT: usize = 1000;

/// Runs releases as containers.
#[derive(Clone)]
pub struct DockerRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    daemon: Daemon,
    dir: PathBuf,
    mark: Mark,
    recorded: Mutex<Recorded>,
    places: Mutex<BTreeMap<Slot, Arc<Place>>>,
}

/// One slot's lock: a start and a stop of the same slot never overlap, even if the caller of
/// the start is gone; a stop cancels a start that is still pulling.
#[derive(Default)]
struct Place {
    turn: tokio::sync::Mutex<()>,
    start: Mutex<CancellationToken>,
}

impl DockerRuntime {
    /// A runtime that keeps its files in `dir` and speaks to the daemon at `host`: `unix://…`;
    /// Docker's usual socket if none. The daemon need not run yet.
    pub fn new(dir: impl Into<PathBuf>, host: Option<&str>) -> Result<Self, RuntimeError> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).map_err(|source| files(&dir, source))?;
        let path = dir.join("mark");
        let mark = Mark::open(&path).map_err(|source| files(&path, source))?;
        Ok(Self {
            inner: Arc::new(Inner {
                daemon: Daemon::new(host),
                mark,
                recorded: Mutex::new(Recorded::open(dir.join("images.json"))),
                places: Mutex::default(),
                dir,
            }),
        })
    }

    /// Whether anything was ever started here. If not, there is nothing to be found or stopped.
    pub fn was_used(&self) -> bool {
        self.inner.dir.join("used").exists()
    }

    fn place(&self, slot: &Slot) -> Arc<Place> {
        let mut places = self.inner.places.lock();
        places.entry(slot.clone()).or_default().clone()
    }

    async fn begin(
        &self,
        launch: Launch,
        called_off: &CancellationToken,
    ) -> Result<Running, RuntimeError> {
        let Artifact::Image(spec) = &launch.artifact else {
            return Err(RuntimeError::Unsuited(launch.slot));
        };
        let used = self.inner.dir.join("used");
        std::fs::write(&used, "").map_err(|source| files(&used, source))?;
        let login = launch.secrets.registry.as_ref();
        let id = tokio::select! {
            image = image::ensure(&self.inner.daemon, spec, login) => image?,
            () = called_off.cancelled() => return Err(RuntimeError::CalledOff(launch.slot)),
        };
        self.inner.recorded.lock().note(Used {
            service: launch.slot.service.clone(),
            digest: launch.digest.clone(),
            reference: spec.reference(),
            id,
            retain: spec.retain,
        });
        let plan = container::for_slot(&launch, spec, &self.inner.mark);
        self.create(&plan, spec).await?;
        if let Err(error) = self.inner.daemon.start(&plan.name).await {
            let port = launch.port;
            // G2: what could not be started is not left behind.
            self.remove(&plan.name).await?;
            return Err(match daemon_error::is_port_taken(&error) {
                true => RuntimeError::PortTaken {
                    slot: launch.slot,
                    port,
                },
                false => self.inner.daemon.explain("starting the container", &error),
            });
        }
        let inspected = self.inner.daemon.inspect(&plan.name).await?;
        let inspected = inspected.ok_or_else(|| RuntimeError::Docker {
            doing: "starting the container".to_owned(),
            reason: "it was removed at once".to_owned(),
        })?;
        Ok(running(launch, &inspected))
    }

    async fn create(&self, plan: &ContainerPlan, spec: &ImageSpec) -> Result<(), RuntimeError> {
        let daemon = &self.inner.daemon;
        let docker = daemon.connect().await?;
        let options = CreateContainerOptionsBuilder::default()
            .name(&plan.name)
            .build();
        let created = docker.create_container(Some(options), plan.body.clone());
        created
            .await
            .map_err(|error| match daemon_error::is_name_taken(&error) {
                true => RuntimeError::NameTaken(plan.name.clone()),
                false => daemon.explain("creating the container", &error),
            })?;
        // Older daemons take one network at creation.
        for network in spec.networks.iter().skip(1) {
            let request = NetworkConnectRequest {
                container: plan.name.clone(),
                endpoint_config: None,
            };
            if let Err(error) = docker.connect_network(network, request).await {
                self.remove(&plan.name).await?;
                let doing = format!("connecting the container to network `{network}`");
                return Err(daemon.explain(&doing, &error));
            }
        }
        Ok(())
    }

    /// Our containers of a slot, running or not, by id.
    async fn of_slot(&self, slot: &Slot) -> Result<Vec<String>, RuntimeError> {
        self.find(
            &[self.inner.mark.label(), container::slot_label(slot)],
            true,
        )
        .await
    }

    async fn find(&self, labels: &[String], stopped: bool) -> Result<Vec<String>, RuntimeError> {
        let filters = HashMap::from([("label".to_owned(), labels.to_vec())]);
        let options = ListContainersOptionsBuilder::default()
            .all(stopped)
            .filters(&filters)
            .build();
        let docker = self.inner.daemon.connect().await?;
        let list = || docker.list_containers(Some(options.clone()));
        let found = understood(list).await;
        let found =
            found.map_err(|error| self.inner.daemon.explain("listing containers", &error))?;
        Ok(found.into_iter().filter_map(|found| found.id).collect())
    }

    async fn found(&self) -> Result<Vec<Running>, RuntimeError> {
        let labels = [self.inner.mark.label(), container::IN_SLOT.to_owned()];
        let mut all = Vec::new();
        for id in self.find(&labels, false).await? {
            // It may have ended since.
            let Some(inspected) = self.inner.daemon.inspect(&id).await? else {
                continue;
            };
            let labels = inspected.config.as_ref().and_then(|c| c.labels.as_ref());
            let Some(launch) = labels.and_then(container::launch_of) else {
                tracing::warn!(container = id, "a container of ours cannot be read");
                continue;
            };
            all.push(running(launch, &inspected));
        }
        Ok(all)
    }

    async fn end(&self, slot: Slot, timeout: Duration) -> Result<(), RuntimeError> {
        let place = self.place(&slot);
        place.start.lock().cancel();
        let _turn = place.turn.lock().await;
        for id in self.of_slot(&slot).await? {
            self.stop_container(&id, timeout).await?;
            self.keep_last_lines(&slot, &id).await;
            self.remove(&id).await?;
        }
        let surplus = self.inner.recorded.lock().surplus(&slot.service);
        for used in surplus {
            if image::prune(&self.inner.daemon, &used).await {
                self.inner.recorded.lock().forget(&used);
            }
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError> {
        // Whole seconds, and never less than was granted.
        let seconds = i32::try_from(timeout.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let docker = self.inner.daemon.connect().await?;
        match docker.stop_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if daemon_error::is_missing(&error) => Ok(()),
            Err(error) => Err(self.inner.daemon.explain("stopping the container", &error)),
        }
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        let docker = self.inner.daemon.connect().await?;
        match docker.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error)
                if daemon_error::is_missing(&error) || daemon_error::is_being_removed(&error) =>
            {
                Ok(())
            }
            Err(error) => Err(self.inner.daemon.explain("removing the container", &error)),
        }
    }

    /// What a removed container wrote is what a person asks for after a failure.
    async fn keep_last_lines(&self, slot: &Slot, id: &str) {
        let lines = tail::lines(&self.inner.daemon, id, LINES_KEPT).await;
        if lines.is_empty() {
            return;
        }
        let path = self.log_path(slot);
        if let Err(error) = std::fs::write(&path, lines.join("\n")) {
            tracing::warn!(%error, path = %path.display(), "an application's output is lost");
        }
    }

    fn log_path(&self, slot: &Slot) -> PathBuf {
        let name = format!("{}-{}.log", slot.service, slot.color);
        self.inner.dir.join(name)
    }

    /// Waits for the end of one run of a container, through restarts of the daemon.
    async fn ended(&self, container: Container) -> String {
        let daemon = &self.inner.daemon;
        loop {
            let Ok(inspected) = daemon.inspect(&container.id).await else {
                tokio::time::sleep(AWAY_PAUSE).await;
                continue;
            };
            let Some(inspected) = inspected else {
                return "its container was removed".to_owned();
            };
            if let Some(end) = end_of(&container, &inspected) {
                return end;
            }
            let Ok(docker) = daemon.connect().await else {
                continue;
            };
            let options = WaitContainerOptionsBuilder::default()
                .condition("not-running")
                .build();
            let mut waiting = pin!(docker.wait_container(&container.id, Some(options)));
            let heard = tokio::time::timeout(LOOK_EVERY, waiting.next()).await;
            if let Ok(Some(Err(error))) = heard
                && !matches!(
                    error,
                    bollard::errors::Error::DockerContainerWaitError { .. }
                )
            {
                tokio::time::sleep(AWAY_PAUSE).await;
            }
        }
    }
}

impl Runtime for DockerRuntime {
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Running, RuntimeError>> {
        let this = self.clone();
        async move {
            let place = this.place(&launch.slot);
            let called_off = CancellationToken::new();
            *place.start.lock() = called_off.clone();
            // A task of its own: if the caller is gone, the daemon may still have received the
            // container, and a stop must find it finished.
            let work = tokio::spawn(async move {
                let _turn = place.turn.lock().await;
                this.begin(launch, &called_off).await
            });
            work.await.expect("a start does not panic")
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Running>, RuntimeError>> {
        self.found().boxed()
    }

    fn exited(&self, running: Running) -> BoxFuture<'static, String> {
        let this = self.clone();
        async move {
            match running.container {
                Some(container) => this.ended(container).await,
                None => "it is in no container".to_owned(),
            }
        }
        .boxed()
    }

    fn stop(&self, slot: Slot, timeout: Duration) -> BoxFuture<'_, Result<(), RuntimeError>> {
        self.end(slot, timeout).boxed()
    }

    fn logs<'a>(&'a self, slot: &'a Slot, lines: usize) -> BoxFuture<'a, Vec<String>> {
        async move {
            let labels = [
                self.inner.mark.label(),
                container::slot_label(slot),
                container::IN_SLOT.to_owned(),
            ];
            if let Ok(found) = self.find(&labels, true).await
                && let Some(id) = found.first()
            {
                return tail::lines(&self.inner.daemon, id, lines).await;
            }
            let text = std::fs::read_to_string(self.log_path(slot)).unwrap_or_default();
            let all: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
            all[all.len().saturating_sub(lines)..].to_vec()
        }
        .boxed()
    }

    fn container_health<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, ContainerHealth> {
        async move {
            let Some(container) = &running.container else {
                return ContainerHealth::NoObjection;
            };
            // A daemon that does not answer says nothing about the application.
            let Ok(Some(inspected)) = self.inner.daemon.inspect(&container.id).await else {
                return ContainerHealth::NoObjection;
            };
            image_check(&inspected)
        }
        .boxed()
    }
}

impl Images for DockerRuntime {
    fn pin<'a>(
        &'a self,
        image: &'a str,
        login: Option<&'a RegistryLogin>,
    ) -> BoxFuture<'a, Result<Pin, RuntimeError>> {
        image::pin(&self.inner.daemon, image, login).boxed()
    }

    fn run_job<'a>(
        &'a self,
        launch: Launch,
        name: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>> {
        self.run_job_container(launch, name, within).boxed()
    }
}

fn files(path: &Path, source: std::io::Error) -> RuntimeError {
    RuntimeError::Files {
        path: path.display().to_string(),
        source,
    }
}
