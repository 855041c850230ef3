//! `greenlight agent` as a process.

use super::RoleResult;
use super::listen::listen;
use greenlight_agent::addresses::Addresses;
use greenlight_agent::examine::MachinePaths;
use greenlight_agent::front::{BuiltinFront, Front, NginxReloadFront};
use greenlight_agent::nginx::Nginx;
use greenlight_agent::runtime::Runtimes;
use greenlight_agent::secret_store::SecretStore;
use greenlight_agent::{AgentOptions, AgentShell};
use greenlight_link::{ClientAuth, Identity, Renewal, ServerLink, peer, serve};
use greenlight_protocol::{Alignment, InstanceId};
use greenlight_release::nginx::NginxPath;
use greenlight_shell::failpoint;
use greenlight_shell::service_manager::ServiceManager;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// `greenlight agent`.
#[derive(Clone, Debug)]
pub struct AgentRole {
    pub name: InstanceId,
    /// Its folder: identity, journal, addresses.
    pub state: PathBuf,
    pub server: SocketAddr,
    /// Where its peers ask it.
    pub listen: SocketAddr,
    /// Where its peers answer.
    pub peers: BTreeMap<InstanceId, SocketAddr>,
    /// What receives user traffic.
    pub front: AgentFront,
    /// The docker daemon's socket; Docker's usual one if none.
    pub docker: Option<String>,
    /// How late its control messages are.
    pub injected_delay: Duration,
}

/// What an agent's front is.
#[derive(Clone, Debug)]
pub enum AgentFront {
    /// The built-in proxy, by its admin socket; perhaps with Nginx before it.
    Gate(PathBuf),
    /// An Nginx that is reloaded.
    Reload {
        /// Where it is.
        nginx: Nginx,
        /// Our file, which it includes.
        include: NginxPath,
    },
}

/// Runs an agent until SIGTERM. Applications continue without it.
pub async fn run_agent(role: AgentRole) -> RoleResult {
    failpoint::name_role(&format!("agent-{}", role.name));
    let dir = role.state.join("identity");
    if !dir.exists() {
        let (server, dir) = (role.server, dir.display());
        return Err(format!(
            "this instance has not joined; `greenlight join --server {server} --token TOKEN \
             --dir {dir}` does that"
        )
        .into());
    }
    let identity = Identity::load(&dir)?;
    let machine = MachinePaths {
        state: Some(role.state.clone()),
        admin: match &role.front {
            AgentFront::Gate(admin) => Some(admin.clone()),
            AgentFront::Reload { .. } => None,
        },
        docker: role.docker.clone(),
        root: MachinePaths::usual_root(),
    };
    let (front, alignment): (Arc<dyn Front>, _) = match role.front {
        AgentFront::Gate(admin) => (Arc::new(BuiltinFront::new(admin)), Alignment::Gated),
        AgentFront::Reload { nginx, include } => (
            Arc::new(NginxReloadFront::new(nginx, include)),
            Alignment::Aligned,
        ),
    };
    let tls = identity.client_config()?;
    let runtimes = Runtimes::open(&role.state, role.docker.as_deref())?;
    let shell = AgentShell::recover(AgentOptions {
        name: role.name.clone(),
        journal: role.state.join("agent.redb"),
        server: ServerLink {
            server: role.server,
            tls: tls.clone(),
            name: role.name.0.clone(),
            injected_delay: role.injected_delay,
        },
        peers: role.peers,
        tls,
        images: Arc::new(runtimes.docker()),
        runtime: Arc::new(runtimes),
        secrets: SecretStore::new(role.state.join("secrets")),
        addresses: Addresses::open(role.state.join("addresses.json"))?,
        machine,
        front,
        alignment,
    })?;
    let listener = listen(role.listen).await?;
    let routes = peer::router(shell.peer());
    let peers_tls = identity.server_config(ClientAuth::Required)?;
    tokio::spawn(serve(listener, peers_tls, routes));
    tokio::spawn(Renewal::OverLink(role.server).keep_fresh(identity));
    let mut terminate = signal(SignalKind::terminate())?;
    let manager = ServiceManager::found();
    manager.ready();
    tokio::spawn(manager.watched(shell.ping()));
    tokio::select! {
        ended = shell.run() => Ok(ended?),
        _ = terminate.recv() => {
            manager.stopping();
            Ok(())
        }
    }
}
