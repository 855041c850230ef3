//! A fleet on this machine: server, agents and proxies as processes, kept running.
//!
//! `demo` and `up` use it. Each role is a process of its own, started from this very binary, so
//! that each can die alone; one that dies is started again.

mod backoff;
mod stale_processes;
mod supervisor;

pub use stale_processes::end_stale_processes;
pub use supervisor::{Supervised, Supervisor};

use greenlight_agent::nginx::Nginx;
use greenlight_agent::runtime::{Runtime as _, Runtimes};
use greenlight_link::{Authority, PkiError, Role};
use greenlight_ports::reserve_address;
use greenlight_protocol::InstanceId;
use greenlight_release::nginx::NginxPath;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The gate's socket in an instance's folder.
const GATE_SOCKET: &str = "gate.sock";
/// How long applications get to stop when the whole fleet is taken down.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// One instance of a local fleet.
#[derive(Clone, Debug)]
pub struct LocalInstance {
    pub name: InstanceId,
    /// Its public address.
    pub listen: SocketAddr,
    /// What receives its users' traffic.
    pub front: LocalFront,
    /// How late its control messages are.
    pub injected_delay: Duration,
}

/// What receives the traffic of an instance of a local fleet.
#[derive(Clone, Debug)]
pub enum LocalFront {
    /// The built-in proxy, on the public address.
    Builtin,
    /// An Nginx on the public address; the proxy is behind it, on a unix socket.
    Nginx {
        /// The group of Nginx's workers, if it differs from ours.
        group: Option<String>,
    },
    /// An Nginx on the public address, and no proxy.
    NginxReload {
        /// Where it is.
        nginx: Nginx,
        /// Our file, which it includes.
        include: NginxPath,
    },
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
    status: BTreeMap<InstanceId, SocketAddr>,
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
        let server = reserve_address()?;
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
            peers.push((name, reserve_address()?));
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
            status: BTreeMap::new(),
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
        let (server, listen) = (server.to_string(), peer_address.to_string());
        let home = self.home(&instance.name);
        let admin = path(&home.join("proxy.sock"));
        let injected_delay = format!("{}ms", instance.injected_delay.as_millis());
        let mut agent = vec![
            "agent",
            "--name",
            name,
            "--server",
            &server,
            "--listen",
            &listen,
            "--peers",
            peers,
            "--inject-delay",
            &injected_delay,
        ];
        let state = path(&home);
        agent.extend(["--state", &state]);
        let nginx_arguments;
        match &instance.front {
            LocalFront::Builtin => {
                self.start_proxy(&instance.name, &home, &[instance.listen.to_string()])?;
                agent.extend(["--proxy-admin", &admin]);
            }
            LocalFront::Nginx { group } => {
                let mut listen = vec![format!("unix:{}", path(&home.join(GATE_SOCKET)))];
                if let Some(group) = group {
                    listen.extend(["--socket-group".to_owned(), group.clone()]);
                }
                self.start_proxy(&instance.name, &home, &listen)?;
                agent.extend(["--proxy-admin", &admin]);
            }
            LocalFront::NginxReload { nginx, include } => {
                nginx_arguments = [
                    ("--nginx-include", include.to_string()),
                    ("--nginx-conf", path(&nginx.conf)),
                    ("--nginx-pid", path(&nginx.pid)),
                    ("--nginx-binary", path(&nginx.binary)),
                ];
                let pairs = nginx_arguments.iter();
                agent.extend(pairs.flat_map(|(name, value)| [*name, value.as_str()]));
            }
        }
        let agent = agent.into_iter().map(ToOwned::to_owned).collect();
        Ok(self.supervisor.keep(&format!("agent-{name}"), agent)?)
    }

    /// `listen` is the value of `--listen`, and what comes after it.
    fn start_proxy(
        &mut self,
        name: &InstanceId,
        home: &Path,
        listen: &[String],
    ) -> Result<(), FleetError> {
        let status = reserve_address()?;
        self.status.insert(name.clone(), status);
        let mut proxy = vec!["proxy".to_owned(), "--listen".to_owned()];
        proxy.extend_from_slice(listen);
        let (admin, state) = (path(&home.join("proxy.sock")), path(&home.join("routing")));
        proxy.extend(["--admin".to_owned(), admin, "--state".to_owned(), state]);
        proxy.extend(["--status".to_owned(), status.to_string()]);
        Ok(self.supervisor.keep(&format!("proxy-{name}"), proxy)?)
    }

    /// The folder with an operator's credentials.
    pub fn operator_dir(&self) -> PathBuf {
        self.dir.join("operator")
    }

    /// The folder of an instance.
    pub fn home(&self, name: &InstanceId) -> PathBuf {
        self.dir.join("instances").join(&name.0)
    }

    /// The socket of an instance's gate in a fleet that is kept in `dir`, if Nginx is before it.
    pub fn gate(dir: &Path, name: &InstanceId) -> PathBuf {
        dir.join("instances").join(&name.0).join(GATE_SOCKET)
    }

    /// The instances.
    pub fn instances(&self) -> &[LocalInstance] {
        &self.instances
    }

    /// Where the proxies tell their status, metrics and health: on loopback, for it is not the
    /// world's business.
    pub fn status(&self) -> &BTreeMap<InstanceId, SocketAddr> {
        &self.status
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
                if let Err(error) = runtime.stop(slot, STOP_TIMEOUT).await {
                    tracing::error!(%error, "an application could not be stopped");
                }
            }
        }
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
