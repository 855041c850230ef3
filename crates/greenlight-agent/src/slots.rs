//! The instance's slots as the shell handles them: start, check, follow, drain, stop.

use super::event::ShellEvent;
use super::slot_error::SlotError;
use crate::addresses::Addresses;
use crate::front::{Front, SlotAddresses};
use crate::health::{Answers, LINES_SHOWN, Probe, check_health};
use crate::runtime::{Images, Launch, Running, Runtime, RuntimeError};
use crate::secret_store::SecretStore;
use futures_util::future::join_all;
use greenlight_link::peer::{CheckAnswer, Readiness};
use greenlight_protocol::agent::{BeforeSwitchFailed, Ledger};
use greenlight_protocol::{
    AgentEvent, Color, DrainEvidence, Epoch, Incarnation, InstanceId, Release, ServiceName, Slot,
};
use greenlight_release::health::HealthCheck;
use greenlight_release::ports::PortPair;
use greenlight_release::spec::ServiceSpec;
use greenlight_shell::failpoint;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{Instrument as _, Span};

/// The pause before a runtime is queried again.
const LIST_PAUSE: Duration = Duration::from_millis(200);

/// Starts, checks and stops applications for the loop.
pub(super) struct Slots {
    work: Work,
    events: UnboundedSender<ShellEvent>,
    /// Health checks and death watches of what runs, to be ended with it.
    watching: BTreeMap<Slot, Vec<AbortHandle>>,
}

/// What the tasks beside the loop work with.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) me: InstanceId,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) images: Arc<dyn Images>,
    pub(super) front: Arc<dyn Front>,
    pub(super) secrets: SecretStore,
    pub(super) addresses: Addresses,
    /// Where what runs is reached: a container has an address of its own, and what was started
    /// before the ports changed has the old one.
    reached_at: Arc<Mutex<BTreeMap<Slot, SocketAddr>>>,
}

impl Work {
    pub(super) fn new(
        me: InstanceId,
        runtime: Arc<dyn Runtime>,
        images: Arc<dyn Images>,
        front: Arc<dyn Front>,
        secrets: SecretStore,
        addresses: Addresses,
    ) -> Self {
        Self {
            me,
            runtime,
            images,
            front,
            secrets,
            addresses,
            reached_at: Arc::default(),
        }
    }
}

impl Slots {
    pub(super) fn new(work: Work, events: UnboundedSender<ShellEvent>) -> Self {
        Self {
            work,
            events,
            watching: BTreeMap::new(),
        }
    }

    /// After a restart: asks the runtime what runs, until it knows. The loop continues meanwhile,
    /// because a decision may be waited for.
    pub(super) fn list_running(&self) {
        let (runtime, events) = (self.work.runtime.clone(), self.events.clone());
        tokio::spawn(async move {
            loop {
                match runtime.list().await {
                    Ok(running) => {
                        let _ = events.send(ShellEvent::Found(running));
                        return;
                    }
                    Err(error) => tracing::error!(%error, "the runtime cannot list what runs"),
                }
                tokio::time::sleep(LIST_PAUSE).await;
            }
        });
    }

    /// What runs, told to the protocol and watched again.
    pub(super) fn adopt(&mut self, running: Vec<Running>, ledger: &Ledger) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        for running in &running {
            self.work.note_address(running);
        }
        for running in running {
            let launch = running.launch.clone();
            events.push(AgentEvent::SlotFound {
                slot: launch.slot.clone(),
                incarnation: launch.incarnation,
                digest: launch.digest.clone(),
            });
            let known = releases(ledger).find(|release| release.digest == launch.digest);
            let spec = known.and_then(|release| ServiceSpec::from_release(release).ok());
            self.watch(running, spec);
        }
        events.push(AgentEvent::SlotsListed);
        events
    }

    pub(super) fn start(
        &mut self,
        slot: Slot,
        incarnation: Incarnation,
        release: Release,
        ready_within: Duration,
    ) {
        let (work, events) = (self.work.clone(), self.events.clone());
        self.forget(&slot);
        let begun = slot.clone();
        let span = span_of(&slot, Some(incarnation));
        let starting = async move {
            tracing::info!("starting");
            match work.begin(&slot, incarnation, &release).await {
                Ok((running, check)) => {
                    let runtime = work.runtime.clone();
                    supervise(runtime, running, check, Some(ready_within), events).await;
                }
                Err(error) => {
                    tracing::info!(%error, "not started");
                    let exited = AgentEvent::SlotExited {
                        slot,
                        incarnation,
                        reason: error.to_string(),
                    };
                    let _ = events.send(ShellEvent::Protocol(exited));
                }
            }
        };
        let task = tokio::spawn(starting.instrument(span));
        self.watching
            .entry(begun)
            .or_default()
            .push(task.abort_handle());
    }

    fn watch(&mut self, running: Running, spec: Option<ServiceSpec>) {
        let slot = running.launch.slot.clone();
        let (work, events) = (self.work.clone(), self.events.clone());
        let service = slot.service.clone();
        let span = span_of(&slot, Some(running.launch.incarnation));
        let watching = async move {
            let check = match spec {
                Some(spec) => {
                    // A container may have been given another address meanwhile.
                    if let Err(error) = work.define(&service, &spec).await {
                        tracing::warn!(%error, "the front was not told where a slot is");
                    }
                    spec.health
                }
                None => HealthCheck::default(),
            };
            supervise(work.runtime, running, check, None, events).await;
        };
        let task = tokio::spawn(watching.instrument(span));
        self.watching
            .entry(slot)
            .or_default()
            .push(task.abort_handle());
    }

    pub(super) fn stop(&mut self, slot: Slot, drain: Duration, timeout: Duration) {
        let (runtime, front, events) = (
            self.work.runtime.clone(),
            self.work.front.clone(),
            self.events.clone(),
        );
        let addresses = self.work.addresses.clone();
        let watching = self.watching.remove(&slot).unwrap_or_default();
        let span = span_of(&slot, None);
        let stopping = async move {
            // G7: nothing is stopped before its requests end or the deadline passes.
            let drained = front
                .drain(slot.clone(), drain)
                .await
                .unwrap_or_else(|error| {
                    tracing::warn!(%error, "the front could not drain");
                    DrainEvidence::default()
                });
            for task in watching {
                task.abort();
            }
            let failpoint = failpoint::before(|| "end application".to_owned());
            while let Err(error) = runtime.stop(slot.clone(), timeout).await {
                tracing::error!(%error, "an application could not be stopped");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            failpoint.after();
            if let Err(error) = addresses.emptied(&slot) {
                tracing::warn!(%error, "a slot may keep its port for the next start");
            }
            tracing::info!("stopped");
            let stopped = AgentEvent::SlotStopped { slot, drained };
            let _ = events.send(ShellEvent::Protocol(stopped));
        };
        tokio::spawn(stopping.instrument(span));
    }

    /// Runs the command of each release that has one, one after the other; all of them have one
    /// limit together.
    pub(super) fn before_switch(
        &self,
        epoch: Epoch,
        releases: BTreeMap<Slot, Release>,
        within: Duration,
    ) {
        let (work, events) = (self.work.clone(), self.events.clone());
        tokio::spawn(async move {
            let result = work.run_before_switch(epoch, &releases, within).await;
            let result = result.map_err(|error| BeforeSwitchFailed(error.to_string()));
            let ended = AgentEvent::BeforeSwitchEnded { epoch, result };
            // The loop may be ending.
            let _ = events.send(ShellEvent::Protocol(ended));
        });
    }

    /// Checks what runs in these slots once, in addition to the regular checks, for a peer that
    /// asks.
    pub(super) fn check_now(
        &self,
        prepared: BTreeMap<Slot, Release>,
        answer: oneshot::Sender<Readiness>,
    ) {
        let work = self.work.clone();
        tokio::spawn(async move {
            let checks = prepared.iter().map(|(slot, release)| async {
                let answer = match work.check_now(slot, release).await {
                    Ok(()) => CheckAnswer::Healthy,
                    Err(error) => CheckAnswer::Unhealthy(error.to_string()),
                };
                (slot.service.clone(), answer)
            });
            let readiness = Readiness {
                services: join_all(checks).await.into_iter().collect(),
                front: work.addresses.front(),
            };
            // The caller may have given up.
            let _ = answer.send(readiness);
        });
    }

    /// Removes the secrets of releases that will not be started again.
    pub(super) fn forget_old_secrets(&self, ledger: &Ledger) {
        let needed = releases(ledger).map(|release| release.digest.clone());
        let (secrets, needed) = (self.work.secrets.clone(), needed.collect());
        // Beside the loop: it is about files, and nothing waits for it.
        tokio::task::spawn_blocking(move || secrets.forget_old(&needed));
    }

    /// Sees every event before the protocol does: a dead application is no longer watched.
    pub(super) fn note(&mut self, event: &AgentEvent) {
        if let AgentEvent::SlotExited { slot, .. } = event {
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: &Slot) {
        for task in self.watching.remove(slot).unwrap_or_default() {
            task.abort();
        }
    }
}

/// What the lines of the log are about while something is done with a slot.
fn span_of(slot: &Slot, incarnation: Option<Incarnation>) -> Span {
    let epoch = incarnation.map(|incarnation| incarnation.epoch.0);
    tracing::info_span!("slot", service = %slot.service, color = %slot.color, epoch)
}

fn releases(ledger: &Ledger) -> impl Iterator<Item = &Release> {
    use greenlight_protocol::agent::Promise;
    let coming = match &ledger.promise {
        Promise::Prepared(cut_over) | Promise::Armed(cut_over) => Some(&cut_over.releases),
        Promise::None => None,
    };
    let kept = ledger.live.values().chain(ledger.warm.values());
    kept.map(|live| &live.release)
        .chain(coming.into_iter().flat_map(|its| its.values().flatten()))
}

impl Work {
    async fn begin(
        &self,
        slot: &Slot,
        incarnation: Incarnation,
        release: &Release,
    ) -> Result<(Running, HealthCheck), SlotError> {
        let spec = ServiceSpec::from_release(release)?;
        // What an earlier start may have left in the slot, for example before this agent crashed.
        self.runtime.stop(slot.clone(), spec.stop_timeout).await?;
        self.reached_at().remove(slot);
        // From here on a request for other ports changes nothing for this slot: it is launched on
        // the port that is defined.
        self.addresses.starting(slot, &release.digest)?;
        self.define(&slot.service, &spec).await?;
        let failpoint = failpoint::before(|| "begin application".to_owned());
        let running = self.start(slot, incarnation, release, &spec).await?;
        failpoint.after();
        let published = SocketAddr::from(([127, 0, 0, 1], running.launch.port));
        self.note_address(&running);
        if running.address != published
            && let Err(error) = self.define(&slot.service, &spec).await
        {
            // G2: what cannot be reached is not left behind.
            let stopped = self.runtime.stop(slot.clone(), spec.stop_timeout).await;
            return Err(match stopped {
                Ok(()) => error,
                Err(cleanup) => SlotError::LeftBehind {
                    source: Box::new(error),
                    cleanup,
                },
            });
        }
        Ok((running, spec.health))
    }

    /// Starts a release in an empty slot, on another port if its own was taken meanwhile.
    async fn start(
        &self,
        slot: &Slot,
        incarnation: Incarnation,
        release: &Release,
        spec: &ServiceSpec,
    ) -> Result<Running, SlotError> {
        loop {
            let launch = self.launch(slot, incarnation, release, spec)?;
            let taken = launch.port;
            let error = match self.runtime.start(launch).await {
                Err(error @ RuntimeError::PortTaken { .. }) => error,
                started => return Ok(started?),
            };
            if self.addresses.replace(slot)?.is_none() {
                return Err(error.into());
            }
            tracing::info!(
                port = taken,
                "another program has the port; another is used"
            );
            self.define(&slot.service, spec).await?;
        }
    }

    async fn check_now(&self, slot: &Slot, release: &Release) -> Result<(), SlotError> {
        let spec = ServiceSpec::from_release(release)?;
        let address = self.address(slot, self.addresses.ports(&slot.service)?);
        Probe::new(address, spec.health).ask().await?;
        Ok(())
    }

    async fn run_before_switch(
        &self,
        epoch: Epoch,
        releases: &BTreeMap<Slot, Release>,
        within: Duration,
    ) -> Result<String, SlotError> {
        let deadline = Instant::now() + within;
        let mut output = Vec::new();
        for (slot, release) in releases {
            let within = deadline.saturating_duration_since(Instant::now());
            let spec = ServiceSpec::from_release(release)?;
            if !spec.artifact.has_before_switch() {
                continue;
            }
            let incarnation = Incarnation { epoch, attempt: 0 };
            let launch = self.launch(slot, incarnation, release, &spec)?;
            let name = format!("before-switch-{epoch}");
            output.extend(self.images.run_job(launch, &name, within).await?);
        }
        Ok(output.join("\n"))
    }

    /// How a release is started in a slot, its secrets included.
    pub(super) fn launch(
        &self,
        slot: &Slot,
        incarnation: Incarnation,
        release: &Release,
        spec: &ServiceSpec,
    ) -> Result<Launch, SlotError> {
        let ports = self.addresses.ports(&slot.service)?;
        let mut env = spec.env.clone();
        env.insert("GREENLIGHT_INSTANCE".to_owned(), self.me.0.clone());
        Ok(Launch {
            slot: slot.clone(),
            incarnation,
            digest: release.digest.clone(),
            version: release.version.clone(),
            artifact: spec.artifact.clone(),
            env,
            secrets: self.secrets.of(&slot.service, release, spec)?,
            port: ports.of(slot.color),
        })
    }

    /// Tells the front where the two slots of a service are.
    async fn define(&self, service: &ServiceName, spec: &ServiceSpec) -> Result<(), SlotError> {
        let ports = self.addresses.ports(service)?;
        let address = |color| {
            let slot = Slot {
                service: service.clone(),
                color,
            };
            self.address(&slot, ports)
        };
        let addresses = SlotAddresses {
            blue: address(Color::Blue),
            green: address(Color::Green),
            ports,
        };
        self.front.define(service, spec, addresses).await?;
        Ok(())
    }

    /// Where a slot is reached: at the address that the runtime reported, or at its port on this
    /// machine.
    fn address(&self, slot: &Slot, ports: PortPair) -> SocketAddr {
        let published = SocketAddr::from(([127, 0, 0, 1], ports.of(slot.color)));
        self.reached_at().get(slot).copied().unwrap_or(published)
    }

    fn note_address(&self, running: &Running) {
        let slot = running.launch.slot.clone();
        self.reached_at().insert(slot, running.address);
    }

    fn reached_at(&self) -> MutexGuard<'_, BTreeMap<Slot, SocketAddr>> {
        self.reached_at.lock()
    }
}

/// Watches an application until it is dead, and returns how it died.
async fn supervise(
    runtime: Arc<dyn Runtime>,
    running: Running,
    check: HealthCheck,
    ready_within: Option<Duration>,
    events: UnboundedSender<ShellEvent>,
) {
    let slot = running.launch.slot.clone();
    let incarnation = running.launch.incarnation;
    let tell = |event| {
        // The loop may be ending.
        let _ = events.send(ShellEvent::Protocol(event));
    };
    let mut answers = Answers::default();
    let checks = check_health(
        &*runtime,
        &running,
        &check,
        ready_within,
        &mut answers,
        &tell,
    );
    let ended = tokio::select! {
        ended = runtime.exited(running.clone()) => ended,
        () = checks => return,
    };
    let log = runtime.logs(&slot, LINES_SHOWN).await;
    // G2: of a dead application nothing is left, a stopped container included.
    if let Err(error) = runtime.stop(slot.clone(), Duration::ZERO).await {
        tracing::warn!(%error, "the remains of a dead application could not be removed");
    }
    let mut reason = ended;
    if !log.is_empty() {
        reason.push_str("; last lines it wrote: ");
        reason.push_str(&log.join(" | "));
    }
    tracing::info!(reason, "ended");
    tell(AgentEvent::SlotExited {
        slot,
        incarnation,
        reason,
    });
}
