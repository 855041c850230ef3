//! The proxy as a whole: its threads, its admin socket, its start and end.

#[cfg(test)]
mod tests;

use crate::address::Address;
use crate::clock::monotonic_ns;
use crate::control::{Admin, table_of};
use crate::downstream::accept;
use crate::downstream::listener::{addresses, distribute};
use crate::error::ProxyError;
use crate::handover::{Followers, Handover, Sockets};
use crate::heartbeat::{Heartbeat, beat};
use crate::lifecycle::Lifecycle;
use crate::options::{IfRunning, ProxyOptions};
use crate::routing::SharedTable;
use crate::state_file::StateFile;
use crate::thread::ThreadContext;
use greenlight_admin::ServiceSettings;
use greenlight_gate::HandoverState;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

/// A proxy that runs in this process.
pub struct RunningProxy {
    listening: Vec<Address>,
    status: Option<SocketAddr>,
    lifecycle: Arc<watch::Sender<Lifecycle>>,
    threads: Vec<JoinHandle<()>>,
    heartbeat: Heartbeat,
    /// Errs when the last thread has ended.
    ended: oneshot::Receiver<Infallible>,
}

/// Runs a proxy until SIGTERM or SIGINT, then answers what is in flight and returns. Returns by
/// itself when a successor leads and nothing is left here.
pub fn run(options: &ProxyOptions) -> Result<(), ProxyError> {
    let mut proxy = RunningProxy::start(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ProxyError::Threads)?;
    runtime
        .block_on(async {
            tokio::select! {
                told = wait_for_signal() => told,
                () = proxy.ended() => Ok(()),
            }
        })
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
        // Found out with the first command, that would be in the middle of a deployment.
        ProxyError::need_folder(&options.state, "--state")?;
        Self::start_with(options, StateFile::new(options.state.clone()))
    }

    fn start_with(options: &ProxyOptions, file: StateFile) -> Result<Self, ProxyError> {
        // A successor reads it too, although it gets its routing from its predecessor: an existing
        // file that is not ours must not be replaced.
        let kept = file.load()?;
        let handover = match options.if_running {
            IfRunning::Fail => None,
            IfRunning::TakeOver => Handover::request(&options.admin)?,
        };
        let Some(handover) = handover else {
            let state = HandoverState {
                evidence: kept.evidence(monotonic_ns()),
                routing: kept,
                ..HandoverState::default()
            };
            let sockets = Sockets::open(options, None)?;
            return Self::prepare(options, file, state, sockets).map(Self::serve);
        };
        Self::take_over(options, &file, handover)
    }

    /// Until the predecessor has handed over, it leads, and what it writes down is what counts: this
    /// process may be so slow that it was given up long ago, and what it was offered is old. So it
    /// only tests that it could write.
    fn take_over(
        options: &ProxyOptions,
        file: &StateFile,
        handover: Handover,
    ) -> Result<Self, ProxyError> {
        let (state, sockets, confirmation) = handover.into_parts();
        file.test_writing()?;
        let routing = state.routing.clone();
        let sockets = Sockets::open(options, Some(sockets))?;
        let prepared = Self::prepare(options, file.clone(), state, sockets)?;
        if let Err(error) = confirmation.confirm() {
            prepared.stop();
            return Err(ProxyError::Handover {
                path: options.admin.clone(),
                reason: error.to_string(),
            });
        }
        // Before anything is served, in case this process dies and its file is another one than the
        // predecessor's. The control has it synced.
        if let Err(error) = file.store_unsynced(&routing) {
            tracing::error!(%error, "the routing that was handed over could not be written");
        }
        Ok(prepared.serve())
    }

    /// Does everything that can fail; serves nothing yet.
    fn prepare(
        options: &ProxyOptions,
        file: StateFile,
        state: HandoverState<ServiceSettings>,
        sockets: Sockets,
    ) -> Result<Self, ProxyError> {
        let table = table_of(&state.routing);
        let table = table.map_err(|source| ProxyError::State {
            path: options.state.clone(),
            source: source.into(),
        })?;
        let table = Arc::new(SharedTable::from_pointee(table));
        let listening = addresses(&sockets.users);
        let status = sockets.status.as_ref();
        let status = status.and_then(|status| status.socket.local_addr().ok());
        let workers =
            distribute(&sockets.users, options.threads.max(1)).map_err(ProxyError::Threads)?;
        let (lifecycle, lifecycle_seen) = watch::channel(Lifecycle::Starting);
        let lifecycle = Arc::new(lifecycle);
        let (working, mut none_working) = mpsc::channel::<Infallible>(1);
        let mut threads = Vec::new();
        let mut heartbeat = Heartbeat::default();
        for (number, listeners) in workers.into_iter().enumerate() {
            let (table, limits, lifecycle) =
                (table.clone(), options.limits, lifecycle_seen.clone());
            let working = working.clone();
            let counter = heartbeat.add_thread();
            threads.push(spawn(
                format!("worker-{number}"),
                counter,
                move || async move {
                    let thread = Rc::new(ThreadContext::new(table, limits));
                    accept::run(thread, listeners, lifecycle).await;
                    drop(working);
                },
            )?);
        }
        drop(working);
        let path = options.admin.clone();
        let admin = Admin::new(
            table,
            file,
            path,
            state,
            listening.clone(),
            lifecycle.clone(),
            Followers::start().map_err(ProxyError::Threads)?,
        );
        let (ending, ended) = oneshot::channel();
        let mut lifecycle_seen = lifecycle_seen;
        threads.push(spawn(
            "admin".to_owned(),
            heartbeat.add_thread(),
            move || async move {
                // The sender is part of `admin`.
                let _ = lifecycle_seen
                    .wait_for(|lifecycle| *lifecycle > Lifecycle::Starting)
                    .await;
                if *lifecycle_seen.borrow() == Lifecycle::Draining {
                    // Never served: everything belongs to the predecessor still.
                    return;
                }
                let admin = Rc::new(admin);
                admin.start();
                let serving = admin.clone();
                let serving = tokio::task::spawn_local(async move {
                    if let Err(error) = serving.serve(sockets).await {
                        tracing::error!(%error, "the admin socket cannot be used");
                    }
                });
                // Commands are obeyed until the last request is answered: some may wait at a gate.
                none_working.recv().await;
                admin.shutdown().await;
                serving.abort();
                drop(ending);
            },
        )?);
        Ok(Self {
            listening,
            status,
            lifecycle,
            threads,
            heartbeat,
            ended,
        })
    }

    fn serve(self) -> Self {
        self.lifecycle.send_replace(Lifecycle::Serving);
        self
    }

    /// Where users come in, with the ports that were taken.
    pub fn listening(&self) -> &[Address] {
        &self.listening
    }

    /// The first TCP address where users come in.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listening.iter().find_map(|listening| match listening {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }

    /// The separate address for status, metrics and health.
    pub fn status(&self) -> Option<SocketAddr> {
        self.status
    }

    /// Whether its threads are responsive.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Returns when a successor accepts in this one's place.
    pub fn handed_over(&self) -> impl Future<Output = ()> + use<> {
        let mut lifecycle = self.lifecycle.subscribe();
        async move {
            // Its sender is gone only when this proxy is.
            let _ = lifecycle
                .wait_for(|lifecycle| *lifecycle >= Lifecycle::HandedOver)
                .await;
        }
    }

    /// Returns when nothing is left here: a successor has taken over, and the last connection
    /// has ended.
    pub async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }

    /// Stops accepting, answers what is in flight, and returns when nothing is left, or when the
    /// time for that is over.
    pub fn stop(self) {
        self.lifecycle.send_replace(Lifecycle::Draining);
        for thread in self.threads {
            // A thread that panicked has logged it.
            let _ = thread.join();
        }
    }
}

fn spawn<F, Fut>(
    name: String,
    counter: Arc<AtomicU64>,
    body: F,
) -> Result<JoinHandle<()>, ProxyError>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    let (built, ready) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            // A local runtime and not a set of local tasks in another: a set is woken through a
            // queue with a lock for every event of every connection.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    // The caller that started the thread waits for this.
                    let _ = built.send(Ok(()));
                    runtime.block_on(async {
                        tokio::task::spawn_local(beat(counter));
                        body().await;
                    });
                }
                Err(error) => {
                    let _ = built.send(Err(error));
                }
            }
        })
        .map_err(ProxyError::Threads)?;
    let built = ready
        .recv()
        .unwrap_or_else(|gone| Err(io::Error::other(gone)));
    built.map_err(ProxyError::Threads)?;
    Ok(thread)
}
