//! The proxy as a whole: its threads, its admin socket, its start and end.

use crate::admin::server::Admin;
use crate::error::ProxyError;
use crate::gate::{Gate, Route};
use crate::limits::Limits;
use crate::listener::{ListenAddr, open_all, open_unix};
use crate::route_table::{RouteTable, Service};
use crate::state_file::StateFile;
use crate::worker::{Stage, Worker};
use arc_swap::ArcSwap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How a proxy is to run.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Where users come in.
    pub listen: Vec<ListenAddr>,
    /// The admin socket.
    pub admin: PathBuf,
    /// The file that keeps the routing.
    pub state: PathBuf,
    /// A separate address for status, metrics and health, for a load balancer.
    pub status: Option<SocketAddr>,
    /// Threads that serve users; at least 1.
    pub threads: usize,
    /// What a client may ask for.
    pub limits: Limits,
}

/// What all threads share.
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<RouteTable>,
}

/// A proxy that runs in this process.
pub struct RunningProxy {
    listening: Vec<ListenAddr>,
    status: Option<SocketAddr>,
    stage: watch::Sender<Stage>,
    threads: Vec<JoinHandle<()>>,
}

/// Runs a proxy until SIGTERM or SIGINT, then answers what is in flight and returns.
pub fn run(options: &ProxyOptions) -> Result<(), ProxyError> {
    let proxy = RunningProxy::start(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ProxyError::Threads)?;
    runtime
        .block_on(wait_for_signal())
        .map_err(ProxyError::Threads)?;
    proxy.stop();
    Ok(())
}

async fn wait_for_signal() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

impl RunningProxy {
    /// Starts the threads. When this returns, the proxy listens and obeys.
    pub fn start(options: &ProxyOptions) -> Result<Self, ProxyError> {
        let state_file = StateFile::new(options.state.clone());
        let state = state_file.load()?;
        let mut table = RouteTable::default();
        for (name, kept) in &state.services {
            let route = Route::from(kept.route);
            let gate = Arc::new(Gate::new(route));
            let service = Service::new(name.clone(), kept.settings.clone(), gate);
            table = table.with(service.map_err(|reason| ProxyError::State {
                path: options.state.clone(),
                reason,
            })?);
        }
        let shared = Arc::new(Shared {
            table: ArcSwap::from_pointee(table),
        });
        let admin_socket = open_unix(&options.admin).map_err(|source| {
            let path = options.admin.clone();
            if source.kind() == io::ErrorKind::AddrInUse {
                return ProxyError::AdminInUse { path };
            }
            let address = path.display().to_string();
            ProxyError::Listen { address, source }
        })?;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&options.admin, private).map_err(ProxyError::Threads)?;
        let status_socket = options.status.map(std::net::TcpListener::bind).transpose();
        let status_socket = status_socket.map_err(|source| ProxyError::Listen {
            address: options.status.map_or_else(String::new, |a| a.to_string()),
            source,
        })?;
        let status = status_socket.as_ref().and_then(|s| s.local_addr().ok());
        let (listening, per_thread) = open_all(&options.listen, options.threads.max(1))?;
        let (stage, stage_seen) = watch::channel(Stage::Serving);
        let mut threads = Vec::new();
        for (number, listeners) in per_thread.into_iter().enumerate() {
            let (shared, limits, stage) = (shared.clone(), options.limits, stage_seen.clone());
            threads.push(spawn(format!("worker-{number}"), move || async move {
                Rc::new(Worker::new(shared, limits))
                    .run(listeners, stage)
                    .await;
            })?);
        }
        let admin = Admin::new(shared, state_file, &state, listening.clone());
        let admin_path = options.admin.clone();
        let mut leaving = stage_seen;
        threads.push(spawn("admin".to_owned(), move || async move {
            let admin = Rc::new(admin);
            admin.resume();
            tokio::select! {
                () = admin.serve(admin_socket, status_socket) => {}
                _ = leaving.wait_for(|stage| *stage == Stage::Leaving) => {}
            }
            // The file may already belong to a successor; then removing it fails or is harmless.
            let _ = std::fs::remove_file(admin_path);
        })?);
        Ok(Self {
            listening,
            status,
            stage,
            threads,
        })
    }

    /// Where users come in, with the ports that were taken.
    pub fn listening(&self) -> &[ListenAddr] {
        &self.listening
    }

    /// The first TCP address where users come in.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listening.iter().find_map(|listening| match listening {
            ListenAddr::Tcp(address) => Some(*address),
            ListenAddr::Unix(_) => None,
        })
    }

    /// The separate address for status, metrics and health.
    pub fn status(&self) -> Option<SocketAddr> {
        self.status
    }

    /// Stops accepting, answers what is in flight, and returns when nothing is left.
    pub fn stop(self) {
        // The receivers are the threads themselves; if they are gone there is nothing to tell.
        let _ = self.stage.send(Stage::Leaving);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn spawn<F, Fut>(name: String, body: F) -> Result<JoinHandle<()>, ProxyError>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ProxyError::Threads)?;
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, body());
        })
        .map_err(ProxyError::Threads)
}
