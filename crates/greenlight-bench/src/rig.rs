//! A fleet of this very build on this machine, in processes of its own, running the sample
//! application; and what a benchmark does to it.

use crate::machine::Weight;
use crate::{Outcome, Setting};
use greenlight::demo::write_nginx;
use greenlight::local::{LocalFleet, LocalFront, LocalInstance};
use greenlight_agent::nginx::PrivateNginx;
use greenlight_link::api::{
    CommandAnswer, DeployRequest, DeploymentEvent, FleetStatus, RollbackRequest,
};
use greenlight_link::receipt::Receipt;
use greenlight_link::{ApiClient, Follow};
use greenlight_ports::{reserve_address, reserve_port};
use greenlight_protocol::coordinator::Promotion;
use greenlight_protocol::{Color, InstanceId, Outcome as Ended, Policy, ServiceName, Strategy};
use greenlight_release::front::FrontKind;
use greenlight_release::health::HealthCheck;
use greenlight_release::ports::{PortPair, RequestedAddresses, RequestedPorts};
use greenlight_release::spec::{Artifact, ServiceSpec};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The only service.
pub(crate) const SERVICE: &str = "sample";
/// How long the fleet may take for anything.
const FLEET_TIMEOUT: Duration = Duration::from_secs(30);

/// A running fleet.
pub(crate) struct Rig {
    fleet: LocalFleet,
    api: ApiClient,
    ports: BTreeMap<InstanceId, PortPair>,
    program: PathBuf,
    /// One for each instance, if that is the front.
    _nginx: Vec<PrivateNginx>,
    // Removed last, after the processes that use it.
    _dir: tempfile::TempDir,
}

impl Rig {
    /// Starts a fleet with one instance for each of these latenesses, and waits until it is up.
    pub(crate) async fn start(setting: &Setting, late: &[Duration]) -> Outcome<Self> {
        Self::start_behind(FrontKind::Builtin, setting, late).await
    }

    /// The same behind a front; the Nginx fronts have an Nginx of their own for each instance.
    pub(crate) async fn start_behind(
        front: FrontKind,
        setting: &Setting,
        late: &[Duration],
    ) -> Outcome<Self> {
        let mut masters = Vec::new();
        let dir = tempfile::tempdir_in(&setting.scratch)?;
        let (mut instances, mut ports) = (Vec::new(), BTreeMap::new());
        for (number, late) in late.iter().enumerate() {
            let name = InstanceId(format!("i{number}"));
            let pair = PortPair {
                blue: reserve_port()?,
                green: reserve_port()?,
            };
            ports.insert(name.clone(), pair);
            let (listen, late) = (reserve_address()?, *late);
            let front = match front {
                FrontKind::Builtin => LocalFront::Builtin,
                FrontKind::Nginx | FrontKind::NginxReload => {
                    let home = dir.path().join("nginx").join(&name.0);
                    let gate = LocalFleet::gate(dir.path(), &name);
                    let written = write_nginx(&home, front, listen, &gate, pair)?;
                    masters.push(PrivateNginx::start(written.nginx.clone()).await?);
                    match front {
                        FrontKind::NginxReload => LocalFront::NginxReload {
                            nginx: written.nginx,
                            include: written.include,
                        },
                        FrontKind::Builtin | FrontKind::Nginx => LocalFront::Nginx { group: None },
                    }
                }
            };
            instances.push(LocalInstance {
                name,
                listen,
                front,
                injected_delay: late,
            });
        }
        let program = setting.greenlight.clone();
        let fleet = LocalFleet::start_program(program.clone(), dir.path(), instances, None)?;
        let rig = Self {
            api: ApiClient::from_dir(&fleet.operator_dir())?,
            fleet,
            ports,
            program,
            _nginx: masters,
            _dir: dir,
        };
        match rig
            .wait(|status| status.instances.values().all(Option::is_some))
            .await
        {
            Ok(_) => Ok(rig),
            Err(error) => {
                rig.stop().await;
                Err(error)
            }
        }
    }

    /// Stops everything.
    pub(crate) async fn stop(self) {
        self.fleet.stop().await;
    }

    /// Where users come in, by instance.
    pub(crate) fn targets(&self) -> Vec<SocketAddr> {
        self.fleet
            .instances()
            .iter()
            .map(|instance| instance.listen)
            .collect()
    }

    /// The admin sockets of the proxies, by instance.
    pub(crate) fn admin_sockets(&self) -> Vec<PathBuf> {
        let instances = self.fleet.instances().iter();
        instances
            .map(|i| self.fleet.home(&i.name).join("proxy.sock"))
            .collect()
    }

    /// Where the applications of a color listen, by instance.
    pub(crate) fn applications(&self, color: Color) -> Vec<SocketAddr> {
        let ports = self.ports.values().map(|pair| pair.of(color));
        ports.map(|port| ([127, 0, 0, 1], port).into()).collect()
    }

    /// Waits until the fleet is in the requested state.
    pub(crate) async fn wait(&self, enough: impl Fn(&FleetStatus) -> bool) -> Outcome<FleetStatus> {
        let deadline = Instant::now() + FLEET_TIMEOUT;
        loop {
            match self.api.get::<FleetStatus>("/v1/status").await {
                Ok(status) if enough(&status) => return Ok(status),
                Ok(_) if Instant::now() > deadline => {
                    return Err("the fleet does not get where the benchmark needs it".into());
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Deploys a version of the sample application that takes `startup` to start.
    pub(crate) async fn deploy(
        &self,
        version: &str,
        startup: Duration,
        policy: &Policy,
    ) -> Outcome<Receipt> {
        let weight = Weight {
            startup,
            ..Weight::NONE
        };
        self.deploy_weighing(version, weight, policy).await
    }

    /// Deploys a version of the sample application that costs this much.
    pub(crate) async fn deploy_weighing(
        &self,
        version: &str,
        weight: Weight,
        policy: &Policy,
    ) -> Outcome<Receipt> {
        let program = self.program.display().to_string();
        let spec = ServiceSpec {
            artifact: Artifact::command(vec![program, "sample-app".to_owned()]),
            env: weight.env(),
            secrets: BTreeMap::new(),
            health: HealthCheck::default(),
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            request_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
        };
        let request = DeployRequest {
            requested_by: "the benchmark".to_owned(),
            releases: [(ServiceName::from(SERVICE), spec.to_release(version))].into(),
            secrets: BTreeMap::new(),
            addresses: self.addresses(),
            remove: [].into(),
            strategy: Strategy::BlueGreen,
            policy: Some(policy.clone()),
            promotion: Promotion::Automatic,
        };
        let accepted: CommandAnswer = self.api.post("/v1/deployments", &request).await?;
        self.finish(&accepted).await
    }

    fn addresses(&self) -> BTreeMap<InstanceId, RequestedAddresses> {
        let addresses = self.ports.iter().map(|(name, pair)| {
            let ports = RequestedPorts::Named(*pair);
            let requested = RequestedAddresses {
                ports: [(ServiceName::from(SERVICE), ports)].into(),
                front: None,
            };
            (name.clone(), requested)
        });
        addresses.collect()
    }

    /// Cuts over to what was live before, and still runs.
    pub(crate) async fn rollback(&self, policy: &Policy) -> Outcome<Receipt> {
        let request = RollbackRequest {
            requested_by: "the benchmark".to_owned(),
            version: None,
            policy: Some(policy.clone()),
        };
        let accepted: CommandAnswer = self.api.post("/v1/rollback", &request).await?;
        self.finish(&accepted).await
    }

    async fn finish(&self, accepted: &CommandAnswer) -> Outcome<Receipt> {
        let following = self.api.follow(|progress| match progress.event {
            DeploymentEvent::Finished { .. } if progress.deployment == accepted.deployment => {
                Follow::Enough
            }
            DeploymentEvent::Finished { .. }
            | DeploymentEvent::Phase { .. }
            | DeploymentEvent::Instance { .. } => Follow::On,
        });
        tokio::time::timeout(FLEET_TIMEOUT, following).await??;
        let receipt: Receipt = self
            .get(&format!("/v1/deployments/{}", accepted.deployment))
            .await?;
        match receipt.outcome {
            Some(Ended::Promoted) => Ok(receipt),
            Some(other) => Err(format!("a deployment failed: {other}").into()),
            None => Err("a deployment did not end".into()),
        }
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Outcome<A> {
        Ok(self.api.get(path).await?)
    }
}
