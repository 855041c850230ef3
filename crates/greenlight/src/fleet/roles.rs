//! The long-running roles, each as a process runs it.

use crate::agent::{AgentOptions, AgentShell};
use crate::api::Progress;
use crate::crash;
use crate::descriptors::raise_limit;
use crate::doctor::Machine;
use crate::front::{BuiltinFront, Front, NginxReloadFront};
use crate::journal::Journal;
use crate::link::{Credentials, Dial, LinkEvent, Outboxes, Role, agent_router, allow, peer, serve};
use crate::nginx::{Nginx, NginxPath};
use crate::runtime::Runtimes;
use crate::secret::SecretKeep;
use crate::server::{Input, Shell, router};
use greenlight_protocol::coordinator::{CoordinatorEvent, Ledger};
use greenlight_protocol::{Alignment, CoordinatorRecord, InstanceId};
use greenlight_proxy::{Incumbent, Limits, ListenAddr, ProxyError, ProxyOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Progress kept for a slow reader before it loses some.
const PROGRESS_BUFFER: usize = 1024;

type RoleResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// `greenlight server`.
#[derive(Clone, Debug)]
pub struct ServerRole {
    /// Its folder: authority, identity, journal, receipts.
    pub state: PathBuf,
    /// Where agents and operators connect.
    pub listen: SocketAddr,
    /// The fleet.
    pub instances: BTreeSet<InstanceId>,
}

/// `greenlight agent`.
#[derive(Clone, Debug)]
pub struct AgentRole {
    /// Its name.
    pub name: InstanceId,
    /// Its folder: identity, journal, slots.
    pub state: PathBuf,
    /// The server.
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
    pub late: Duration,
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
        /// The file of ours that it includes.
        include: NginxPath,
    },
}

/// `greenlight proxy`.
#[derive(Clone, Debug)]
pub struct ProxyRole {
    /// Where users come in.
    pub listen: Vec<ListenAddr>,
    /// The group that may connect to the unix sockets among them; this process's if none.
    pub socket_group: Option<u32>,
    /// The admin socket.
    pub admin: PathBuf,
    /// The file that keeps the routing.
    pub state: PathBuf,
    /// A separate address for status, metrics and health.
    pub status: Option<SocketAddr>,
    /// Threads; one for each core if none.
    pub threads: Option<usize>,
    /// What to do about a proxy that runs already.
    pub incumbent: Incumbent,
}

/// Runs the server until SIGTERM.
pub async fn run_server(role: ServerRole) -> RoleResult {
    crash::name_role("server");
    raise_limit();
    let journal = Journal::open(&role.state.join("journal.redb"))?;
    let records: Vec<CoordinatorRecord> = journal.load()?;
    let term = Ledger::replay(&records).term.next().0;
    let (inbox, input) = std::sync::mpsc::channel();
    let told = inbox.clone();
    let outboxes = Outboxes::new(term, move |event| {
        let event = match event {
            LinkEvent::Connected(agent) => CoordinatorEvent::Connected(agent),
            LinkEvent::Disconnected(agent) => CoordinatorEvent::Disconnected(agent),
            LinkEvent::Reported(from, reported) => CoordinatorEvent::Reported {
                from,
                reported: *reported,
            },
        };
        // When the shell has ended the process is ending.
        let _ = told.send(Input::Event(event));
    });
    let (progress, _) = tokio::sync::broadcast::channel::<Progress>(PROGRESS_BUFFER);
    let sending = outboxes.clone();
    let shell = Shell::recover(
        role.instances.clone(),
        journal,
        role.state.join("receipts.json"),
        Box::new(move |outgoing| sending.send(outgoing)),
        progress.clone(),
    )?;
    let tls = Credentials::load(&role.state.join("identity"))?.server_config()?;
    let listener = TcpListener::bind(role.listen).await?;
    let operators = router(inbox.clone(), progress, role.instances, outboxes.clone());
    let operators = allow(operators, |role| *role == Role::Operator);
    let routes = operators.merge(agent_router(outboxes));
    tokio::spawn(serve(listener, tls, routes));
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("coordinator".to_owned())
        .spawn(move || {
            // The receiver lives until the process ends.
            let _ = ended.send(shell.run(&input));
        })?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = end => Ok(ended??),
        _ = terminate.recv() => Ok(()),
    }
}

/// Runs an agent until SIGTERM. Applications go on without it.
pub async fn run_agent(role: AgentRole) -> RoleResult {
    crash::name_role(&format!("agent-{}", role.name));
    let identity = Credentials::load(&role.state.join("identity"))?;
    let machine = Machine {
        state: Some(role.state.clone()),
        admin: match &role.front {
            AgentFront::Gate(admin) => Some(admin.clone()),
            AgentFront::Reload { .. } => None,
        },
        docker: role.docker.clone(),
        root: Machine::usual_root(),
    };
    let (front, alignment): (Arc<dyn Front>, _) = match role.front {
        AgentFront::Gate(admin) => (Arc::new(BuiltinFront::new(admin)), Alignment::Gated),
        AgentFront::Reload { nginx, include } => (
            Arc::new(NginxReloadFront::new(role.name.clone(), nginx, include)),
            Alignment::Aligned,
        ),
    };
    let tls = identity.client_config()?;
    let runtimes = Runtimes::open(&role.state, role.docker.as_deref())?;
    let shell = AgentShell::recover(AgentOptions {
        name: role.name.clone(),
        journal: role.state.join("agent.redb"),
        dial: Dial {
            server: role.server,
            tls: tls.clone(),
            name: role.name.0.clone(),
            late: role.late,
        },
        peers: role.peers,
        tls,
        images: Arc::new(runtimes.docker()),
        runtime: Arc::new(runtimes),
        secrets: SecretKeep::new(role.state.join("secrets")),
        machine,
        front,
        alignment,
    })?;
    let listener = TcpListener::bind(role.listen).await?;
    let routes = peer::router(shell.peer());
    tokio::spawn(serve(listener, identity.server_config()?, routes));
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = shell.run() => Ok(ended?),
        _ = terminate.recv() => Ok(()),
    }
}

/// Runs a proxy until SIGTERM.
pub fn run_proxy(role: ProxyRole) -> Result<(), ProxyError> {
    raise_limit();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    greenlight_proxy::run(&ProxyOptions {
        listen: role.listen,
        socket_group: role.socket_group,
        admin: role.admin,
        state: role.state,
        status: role.status,
        threads: role.threads.unwrap_or(cores),
        limits: Limits::default(),
        incumbent: role.incumbent,
    })
}
