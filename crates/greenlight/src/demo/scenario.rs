//! The fleet of the demo: two instances with a sample application, and their server or servers.
//!
//! With the barrier one server leads both. Without it each instance is a fleet of its own, and
//! both get the same commands at the same time and carry them out separately.

use super::application::Application;
use super::{Barrier, DemoError, DemoOptions, Printer, SERVICE, write_nginx};
use crate::local::{LocalFleet, LocalFront, LocalInstance};
use futures_util::future::try_join_all;
use greenlight_agent::nginx::{AttachError, PrivateNginx};
use greenlight_link::api::{
    CommandAnswer, DeployRequest, DeploymentEvent, FleetStatus, RollbackRequest,
};
use greenlight_link::receipt::Receipt;
use greenlight_link::{ApiClient, Follow};
use greenlight_ports::{reserve_address, reserve_port};
use greenlight_protocol::coordinator::Promotion;
use greenlight_protocol::policy::PeerChecks;
use greenlight_protocol::{InstanceId, Policy, ServiceName, Strategy};
use greenlight_release::front::FrontKind;
use greenlight_release::health::HealthCheck;
use greenlight_release::ports::{PortPair, RequestedAddresses, RequestedPorts};
use greenlight_release::spec::ServiceSpec;
use greenlight_shell::clock::monotonic_ns;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the load runs before and after each deployment.
const AROUND: Duration = Duration::from_millis(400);
/// How long the fleet may take to come up, also on a machine that is busy with something else.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a good release is watched.
const WATCH: Duration = Duration::from_secs(2);
/// How long a release is watched that will die: its death ends the watch, whenever it is noticed.
const WATCH_UNTIL_DEATH: Duration = Duration::from_mins(1);
/// A machine that runs a whole fleet, its load and what else a person does there can keep any of
/// its processes waiting; that must not call a cut-over off.
const HOLD_BUDGET: Duration = Duration::from_secs(2);
/// The gates' own deadline.
const MAX_HOLD: Duration = Duration::from_secs(8);
/// How long the gates may take to tell what they saw of a cut-over, after its end.
const EVIDENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often either is polled until then.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Two instances, and their server or servers.
pub(super) struct Scenario<'a> {
    application: &'a Application,
    dir: PathBuf,
    fleets: Vec<Fleet>,
    /// One for each instance, if that is the front.
    _nginx: Vec<PrivateNginx>,
    ports: BTreeMap<InstanceId, PortPair>,
    printer: RefCell<Box<dyn Printer>>,
}

struct Fleet {
    local: LocalFleet,
    api: ApiClient,
}

/// A deployment as it was seen from here.
pub(super) struct ObservedDeployment {
    pub(super) title: &'static str,
    pub(super) from_ns: u64,
    pub(super) until_ns: u64,
    /// By the first instance of each fleet.
    pub(super) receipts: BTreeMap<InstanceId, Receipt>,
}

/// What a release is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is promoted.
    Good,
    /// On one instance it never becomes ready.
    FailsItsCheck,
    /// It dies soon after its first request.
    Dies,
}

impl Kind {
    /// What tells the application so.
    fn env(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Good => None,
            Self::FailsItsCheck => Some(("FAIL_CHECK_ON", "b")),
            Self::Dies => Some(("DIE_AFTER_MS", "200")),
        }
    }
}

impl<'a> Scenario<'a> {
    pub(super) async fn set_up(
        options: &DemoOptions,
        dir: &Path,
        printer: Box<dyn Printer>,
        application: &'a Application,
    ) -> Result<Self, DemoError> {
        let mut led_together: BTreeMap<PathBuf, Vec<LocalInstance>> = BTreeMap::new();
        let mut masters = Vec::new();
        let mut ports = BTreeMap::new();
        for (name, late) in [("a", Duration::ZERO), ("b", options.injected_delay)] {
            let name = InstanceId::from(name);
            let pair = PortPair {
                blue: reserve_port()?,
                green: reserve_port()?,
            };
            ports.insert(name.clone(), pair);
            let listen = reserve_address()?;
            let led_from = match options.barrier {
                Barrier::Fleet => dir.to_owned(),
                Barrier::None => dir.join(&name.0),
            };
            let front = match options.front {
                FrontKind::Builtin => LocalFront::Builtin,
                FrontKind::Nginx | FrontKind::NginxReload => {
                    let home = dir.join("nginx").join(&name.0);
                    let gate = std::path::absolute(LocalFleet::gate(&led_from, &name))?;
                    let written = write_nginx(&home, options.front, listen, &gate, pair)?;
                    masters.push(written.nginx.clone());
                    match options.front {
                        FrontKind::NginxReload => LocalFront::NginxReload {
                            nginx: written.nginx,
                            include: written.include,
                        },
                        FrontKind::Builtin | FrontKind::Nginx => LocalFront::Nginx { group: None },
                    }
                }
            };
            let instance = LocalInstance {
                name,
                listen,
                front,
                injected_delay: late,
            };
            led_together.entry(led_from).or_default().push(instance);
        }
        let mut running = Vec::new();
        for master in masters {
            let started = PrivateNginx::start(master).await;
            running.push(started.map_err(AttachError::Nginx)?);
        }
        let fleets = led_together.into_iter().map(|(dir, instances)| {
            let local = LocalFleet::start(&dir, instances, None)?;
            let api = ApiClient::from_dir(&local.operator_dir())?;
            Ok(Fleet { local, api })
        });
        Ok(Self {
            application,
            dir: dir.to_owned(),
            fleets: fleets.collect::<Result<_, DemoError>>()?,
            _nginx: running,
            ports,
            printer: RefCell::new(printer),
        })
    }

    /// Stops everything that was started.
    pub(super) async fn take_down(self) {
        self.printer.into_inner().end();
        for fleet in self.fleets {
            fleet.local.stop().await;
        }
    }

    pub(super) fn say(&self, text: &str) {
        self.printer.borrow().say(text);
    }

    /// What is deployed.
    pub(super) fn application(&self) -> &Application {
        self.application
    }

    /// All instances, in the order of the load's targets.
    pub(super) fn instances(&self) -> impl Iterator<Item = &LocalInstance> {
        self.fleets.iter().flat_map(|fleet| fleet.local.instances())
    }

    /// Where users come in.
    pub(super) fn targets(&self) -> Vec<SocketAddr> {
        self.instances().map(|instance| instance.listen).collect()
    }

    /// The ports of the slots, and where the instances look for each other's fronts.
    fn addresses(&self) -> BTreeMap<InstanceId, RequestedAddresses> {
        let addresses = self.instances().map(|instance| {
            let ports = RequestedPorts::Named(self.ports[&instance.name]);
            let requested = RequestedAddresses {
                ports: [(ServiceName::from(SERVICE), ports)].into(),
                front: Some(instance.listen.to_string()),
            };
            (instance.name.clone(), requested)
        });
        addresses.collect()
    }

    pub(super) async fn wait_until_up(&self) -> Result<(), DemoError> {
        let deadline = Instant::now() + START_TIMEOUT;
        for fleet in &self.fleets {
            loop {
                let status: Result<FleetStatus, _> = fleet.api.get("/v1/status").await;
                if status.is_ok_and(|s| s.instances.values().all(Option::is_some)) {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(DemoError::NotUp(self.dir.clone()));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    pub(super) async fn deploy(
        &self,
        title: &'static str,
        version: &str,
        kind: Kind,
    ) -> Result<ObservedDeployment, DemoError> {
        let env = kind.env().into_iter();
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let spec = ServiceSpec {
            artifact: self.application.artifact(),
            env: self.application.env().into_iter().chain(env).collect(),
            secrets: BTreeMap::new(),
            health: HealthCheck::default(),
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            request_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
        };
        let request = DeployRequest {
            requested_by: "the demo".to_owned(),
            releases: [(ServiceName::from(SERVICE), spec.to_release(version))].into(),
            secrets: BTreeMap::new(),
            addresses: self.addresses(),
            remove: [].into(),
            strategy: Strategy::BlueGreen,
            policy: Some(self.policy(kind)),
            promotion: Promotion::Automatic,
        };
        self.command(title, "/v1/deployments", &request).await
    }

    pub(super) async fn rollback(
        &self,
        title: &'static str,
    ) -> Result<ObservedDeployment, DemoError> {
        let request = RollbackRequest {
            requested_by: "the demo".to_owned(),
            version: None,
            policy: Some(self.policy(Kind::Good)),
        };
        self.command(title, "/v1/rollback", &request).await
    }

    /// Gives every fleet the same command at the same time, and follows all to their ends.
    async fn command(
        &self,
        title: &'static str,
        path: &str,
        request: &impl Serialize,
    ) -> Result<ObservedDeployment, DemoError> {
        tokio::time::sleep(AROUND).await;
        let from_ns = monotonic_ns();
        let led = self
            .fleets
            .iter()
            .map(|fleet| self.lead(fleet, path, request));
        let receipts = try_join_all(led).await?;
        Ok(ObservedDeployment {
            title,
            from_ns,
            until_ns: monotonic_ns(),
            receipts: receipts.into_iter().collect(),
        })
    }

    async fn lead(
        &self,
        fleet: &Fleet,
        path: &str,
        request: &impl Serialize,
    ) -> Result<(InstanceId, Receipt), DemoError> {
        let answer: CommandAnswer = fleet.api.post(path, request).await?;
        let following = fleet.api.follow(|progress| {
            if progress.deployment != answer.deployment {
                return Follow::On;
            }
            self.printer.borrow_mut().show(&progress);
            match progress.event {
                DeploymentEvent::Finished { .. } => Follow::Enough,
                DeploymentEvent::Phase { .. } | DeploymentEvent::Instance { .. } => Follow::On,
            }
        });
        following.await?;
        tokio::time::sleep(AROUND).await;
        let path = format!("/v1/deployments/{}", answer.deployment);
        let deadline = Instant::now() + EVIDENCE_TIMEOUT;
        let receipt = loop {
            let receipt: Receipt = fleet.api.get(&path).await?;
            if every_gate_has_told(&receipt) || Instant::now() > deadline {
                break receipt;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let first = &fleet.local.instances()[0].name;
        Ok((first.clone(), receipt))
    }

    /// Short enough for a minute, long enough to see something go wrong.
    /// Only what is to happen to a release of this kind is bounded closely.
    fn policy(&self, kind: Kind) -> Policy {
        let usual = Policy::default();
        Policy {
            hold_budget: HOLD_BUDGET,
            max_hold: MAX_HOLD,
            prepare: match kind {
                Kind::Good | Kind::Dies => usual.prepare,
                Kind::FailsItsCheck => self.application.ready_within(),
            },
            peer_checks: PeerChecks::Yes,
            watch: match kind {
                Kind::Good | Kind::FailsItsCheck => WATCH,
                Kind::Dies => WATCH_UNTIL_DEATH,
            },
            ..usual
        }
    }
}

/// Gates tell what they saw a moment after they have switched; until then nothing is claimed of it.
fn every_gate_has_told(receipt: &Receipt) -> bool {
    let cut_overs = receipt.cut_overs.iter();
    let mut gated = cut_overs.filter(|c| c.committed_ns.is_some() && c.aligned.is_none());
    gated.all(|c| c.instances.values().all(|instance| instance.gate.is_some()))
}
