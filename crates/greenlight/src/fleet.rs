//! A fleet on this machine: server, agents and proxies as processes, kept running.
//!
//! `demo` and `up` use it. Each role is a process of its own, started from this very binary, so
//! that each can die alone; one that dies is started again.

mod roles;
mod supervisor;

pub use roles::{AgentRole, ProxyRole, ServerRole, run_agent, run_proxy, run_server};
pub use supervisor::{Supervised, Supervisor};

use crate::link::{Authority, PkiError, Role};
use crate::runtime::{Runtime as _, Runtimes};
use greenlight_protocol::InstanceId;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long applications get to stop when the whole fleet is taken down.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// One instance of a local fleet.
#[derive(Clone, Debug)]
pub struct LocalInstance {
    /// Its name.
    pub name: InstanceId,
    /// Its public address.
    pub listen: SocketAddr,
    /// How late its control messages are.
    pub late: Duration,
}

/// Why a fleet cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Files, addresses or processes.
    #[error("the fleet cannot be started: {0}")]
    Io(#[from] std::io::Error),
}

/// A fleet that runs on this machine.
pub struct LocalFleet {
    dir: PathBuf,
    supervisor: Supervisor,
    instances: Vec<LocalInstance>,
}

impl LocalFleet {
    /// Enrols and starts server, agents and proxies with their state in `dir`. Applications run
    /// in `home`, or where this process does.
    pub fn start(
        dir: &Path,
        instances: Vec<LocalInstance>,
        home: Option<&Path>,
    ) -> Result<Self, FleetError> {
        Self::start_program(std::env::current_exe()?, dir, instances, home)
    }

    /// The same, for a caller that is not this program itself.
    pub fn start_program(
        program: PathBuf,
        dir: &Path,
        instances: Vec<LocalInstance>,
        home: Option<&Path>,
    ) -> Result<Self, FleetError> {
        std::fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let server = free_address()?;
        let authority = Authority::open(&dir.join("server"))?;
        authority
            .issue(&Role::Server)?
            .store(&dir.join("server/identity"))?;
        let operator = dir.join("operator");
        authority.issue(&Role::Operator)?.store(&operator)?;
        std::fs::write(operator.join("server"), server.to_string())?;
        let mut peers = Vec::new();
        for instance in &instances {
            let name = instance.name.0.clone();
            let home = dir.join("instances").join(&name);
            let role = Role::Agent(name.clone());
            authority.issue(&role)?.store(&home.join("identity"))?;
            peers.push((name, free_address()?));
        }
        let peer_list: Vec<_> = peers
            .iter()
            .map(|(name, at)| format!("{name}={at}"))
            .collect();
        let peer_list = peer_list.join(",");
        let mut fleet = Self {
            supervisor: Supervisor::new(program, dir.join("run"), home.map(ToOwned::to_owned))?,
            dir,
            instances,
        };
        fleet.start_server(server)?;
        for (instance, (_, peer_address)) in fleet.instances.clone().iter().zip(&peers) {
            fleet.start_instance(instance, server, *peer_address, &peer_list)?;
        }
        Ok(fleet)
    }

    fn start_server(&mut self, listen: SocketAddr) -> Result<(), FleetError> {
        let mut arguments = vec![
            "server".to_owned(),
            "--state".to_owned(),
            path(&self.dir.join("server")),
            "--listen".to_owned(),
            listen.to_string(),
        ];
        for instance in &self.instances {
            arguments.extend(["--instance".to_owned(), instance.name.0.clone()]);
        }
        Ok(self.supervisor.keep("server", arguments)?)
    }

    fn start_instance(
        &mut self,
        instance: &LocalInstance,
        server: SocketAddr,
        peer_address: SocketAddr,
        peers: &str,
    ) -> Result<(), FleetError> {
        let name = &instance.name.0;
        let home = self.home(&instance.name);
        let proxy = [
            "proxy",
            "--listen",
            &instance.listen.to_string(),
            "--admin",
            &path(&home.join("proxy.sock")),
            "--state",
            &path(&home.join("routing")),
        ];
        let proxy = proxy.map(ToOwned::to_owned).to_vec();
        self.supervisor.keep(&format!("proxy-{name}"), proxy)?;
        let agent = [
            "agent",
            "--name",
            name,
            "--state",
            &path(&home),
            "--server",
            &server.to_string(),
            "--listen",
            &peer_address.to_string(),
            "--peers",
            peers,
            "--proxy-admin",
            &path(&home.join("proxy.sock")),
            "--late",
            &format!("{}ms", instance.late.as_millis()),
        ];
        let agent = agent.map(ToOwned::to_owned).to_vec();
        Ok(self.supervisor.keep(&format!("agent-{name}"), agent)?)
    }

    /// The folder with an operator's credentials.
    pub fn operator_dir(&self) -> PathBuf {
        self.dir.join("operator")
    }

    /// The folder of an instance.
    pub fn home(&self, name: &InstanceId) -> PathBuf {
        self.dir.join("instances").join(&name.0)
    }

    /// The instances.
    pub fn instances(&self) -> &[LocalInstance] {
        &self.instances
    }

    /// Stops every process of the fleet, and the applications with it.
    pub async fn stop(mut self) {
        self.supervisor.stop();
        let docker = std::env::var("DOCKER_HOST").ok();
        for instance in &self.instances {
            let home = self.dir.join("instances").join(&instance.name.0);
            let runtime = match Runtimes::open(&home, docker.as_deref()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(%error, "applications could not be looked for");
                    continue;
                }
            };
            for running in runtime.list().await.unwrap_or_default() {
                let slot = running.launch.slot;
                if let Err(error) = runtime.stop(slot, STOP_PATIENCE).await {
                    tracing::error!(%error, "an application could not be stopped");
                }
            }
        }
    }
}

/// A loopback address that nobody uses now.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
