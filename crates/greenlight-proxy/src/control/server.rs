//! The admin socket: who may come in, and which command or question it is.
//!
//! All commands run on one thread, so a gate has a single writer. What they do is in [`commands`],
//! what can be asked in [`status`] and [`evidence`]. After a handover this process obeys only
//! its successor ([`follower`]).
//!
//! [`commands`]: super::commands
//! [`status`]: super::status
//! [`evidence`]: super::evidence
//! [`follower`]: super::follower

use super::answer::{Answer, Refusal, json, not_found, read, typed};
use super::metrics;
use super::service_control::ServiceControls;
use crate::address::Address;
use crate::admin::{EvidenceByEpoch, HoldRequest, OpenRequest, ServicesRequest};
use crate::clock::monotonic_ns;
use crate::handover::{Followers, HandoverState, Sockets};
use crate::lifecycle::Lifecycle;
use crate::routing::{RouteTable, SharedTable};
use crate::state_file::{ServiceState, State, StateFile};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tracing::{Instrument as _, Span};

/// The pause after `accept` failed, for example because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The process whose commands this one obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Those of the admin socket.
    Leader,
    /// None, for the moment: a successor is taking over.
    HandingOver,
    /// Those of its successor.
    Follower,
}

/// The admin side of a proxy.
pub(crate) struct Admin {
    pub(super) table: Arc<SharedTable>,
    pub(super) file: StateFile,
    /// The admin socket's.
    pub(super) path: PathBuf,
    pub(super) listening: Vec<Address>,
    /// What a successor is given; `None` when that is too late.
    pub(super) sockets: RefCell<Option<Sockets>>,
    pub(super) lifecycle: Arc<watch::Sender<Lifecycle>>,
    pub(super) role: watch::Sender<Role>,
    pub(super) started_at_ns: u64,
    /// What the commands so far mean for each service of the table.
    pub(super) controls: RefCell<ServiceControls>,
    /// The last generation of any service.
    pub(super) generation: watch::Sender<u64>,
    pub(super) evidence: RefCell<EvidenceByEpoch>,
    pub(super) followers: Followers,
    /// Commands that are being carried out; a handover waits for them.
    pub(super) running: Cell<usize>,
    /// How many replications this leader has sent.
    pub(super) replicated: Cell<u64>,
    /// The last replication of the leader that was applied.
    pub(super) applied: Cell<(u64, u64)>,
}

/// How far a change must have come before it is answered.
#[derive(Clone, Copy)]
pub(super) enum Durability {
    /// Survives the process.
    Process,
    /// Survives the machine.
    Disk,
}

/// What a connection may ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Commands,
    Reading,
}

impl Admin {
    pub(crate) fn new(
        table: Arc<SharedTable>,
        file: StateFile,
        path: PathBuf,
        state: HandoverState,
        listening: Vec<Address>,
        lifecycle: Arc<watch::Sender<Lifecycle>>,
    ) -> Self {
        Self {
            table,
            file,
            path,
            listening,
            sockets: RefCell::default(),
            lifecycle,
            role: watch::Sender::new(Role::Leader),
            started_at_ns: monotonic_ns(),
            controls: RefCell::new(state.routing.controls()),
            generation: watch::Sender::new(0),
            evidence: RefCell::new(state.evidence),
            followers: Followers::new(state.final_counts),
            running: Cell::new(0),
            replicated: Cell::new(0),
            applied: Cell::default(),
        }
    }

    /// Serves the admin socket, and what is read-only on the status address, until a successor
    /// has taken them over.
    pub(crate) async fn serve(self: &Rc<Self>, sockets: Sockets) -> std::io::Result<()> {
        let commands = UnixListener::from_std(sockets.admin.try_clone()?)?;
        let status = match &sockets.status {
            Some(status) => Some(TcpListener::from_std(status.socket.try_clone()?)?),
            None => None,
        };
        *self.sockets.borrow_mut() = Some(sockets);
        let mut role = self.role.subscribe();
        let mut lifecycle = self.lifecycle.subscribe();
        loop {
            let now = *role.borrow_and_update();
            if now == Role::Follower {
                return Ok(());
            }
            tokio::select! {
                accepted = commands.accept(), if now == Role::Leader => match accepted {
                    Ok((stream, _)) => self.serve_if_permitted(stream),
                    Err(error) => pause(&error).await,
                },
                accepted = accept_or_never(status.as_ref()), if now == Role::Leader => {
                    match accepted {
                        Ok((stream, _)) => {
                            self.clone().serve_connection(TokioIo::new(stream), Access::Reading);
                        }
                        Err(error) => pause(&error).await,
                    }
                }
                // Its sender is part of `self`.
                _ = role.changed() => {}
                _ = lifecycle.wait_for(|lifecycle| *lifecycle == Lifecycle::Draining),
                    if self.sockets.borrow().is_some() =>
                {
                    // What the kernel queued here would be lost with this process.
                    self.sockets.take();
                }
            }
        }
    }

    /// Only this user and root may give commands, whatever the mode of the socket's folder.
    pub(super) fn serve_if_permitted(self: &Rc<Self>, stream: tokio::net::UnixStream) {
        let me = rustix::process::getuid().as_raw();
        let peer = stream.peer_cred();
        if peer.is_ok_and(|peer| peer.uid() == 0 || peer.uid() == me) {
            self.clone()
                .serve_connection(TokioIo::new(stream), Access::Commands);
        } else {
            tracing::warn!("another user was refused on the admin socket");
        }
    }

    fn serve_connection<S>(self: Rc<Self>, io: TokioIo<S>, access: Access)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let admin = self.clone();
                async move { Ok::<_, Infallible>(admin.answer(request, access).await) }
            });
            // Half close: a client may stop writing and wait for its answer.
            let connection = http1::Builder::new()
                .half_close(true)
                .serve_connection(io, service)
                .with_upgrades();
            // Errors when the other side closes its connection are ignored.
            let _ = connection.await;
        });
    }

    async fn answer(
        self: &Rc<Self>,
        request: Request<Incoming>,
        access: Access,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        // hyper leaves the body off where the question was `HEAD`.
        let method = match request.method() {
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        match (&method, path.as_str()) {
            (&Method::GET, "/v1/status") => return json(Ok(self.status().await)),
            (&Method::GET, "/metrics") => {
                let body = metrics::render(&self.status().await);
                return typed(StatusCode::OK, metrics::CONTENT_TYPE, body);
            }
            (&Method::GET, "/healthz") => return self.health(),
            _ if access == Access::Reading => {}
            (&Method::POST, "/v1/hold") => {
                return json(match self.command::<HoldRequest>(request).await {
                    Ok(command) => {
                        let span = span_of(command.epoch, &command.services);
                        self.hold(command).instrument(span).await
                    }
                    Err(refusal) => Err(refusal),
                });
            }
            (&Method::POST, "/v1/open") => {
                return json(match self.command::<OpenRequest>(request).await {
                    Ok(command) => {
                        let span = span_of(command.epoch, command.services.keys());
                        self.open(&command).instrument(span).await
                    }
                    Err(refusal) => Err(refusal),
                });
            }
            (&Method::POST, "/v1/park") => {
                return json(match self.command::<ServicesRequest>(request).await {
                    Ok(command) => {
                        let span = span_of(command.epoch, &command.services);
                        self.park(command).instrument(span).await
                    }
                    Err(refusal) => Err(refusal),
                });
            }
            (&Method::POST, "/v1/shed") => {
                return json(match self.command::<ServicesRequest>(request).await {
                    Ok(command) => {
                        let span = span_of(command.epoch, &command.services);
                        self.shed(command).instrument(span).await
                    }
                    Err(refusal) => Err(refusal),
                });
            }
            (&Method::POST, "/v1/drain") => {
                return json(match self.command(request).await {
                    Ok(command) => self.drain(command).await,
                    Err(refusal) => Err(refusal),
                });
            }
            (&Method::POST, "/v1/evidence") => {
                return json(match read(request).await {
                    Ok(asked) => Ok(self.evidence_after_first_requests(&asked).await),
                    Err(refusal) => Err(refusal),
                });
            }
            (&Method::POST, "/v1/handover") => return self.offer(request),
            (&Method::POST, "/v1/final-counts") => {
                let ended = self.command(request).await;
                return json(ended.map(|ended| {
                    self.followers.record_final_counts(&ended);
                    // No other process has its counts now.
                    self.persist_or_log();
                }));
            }
            (&Method::POST, "/v1/replicate") => {
                return json(match read(request).await {
                    Ok(command) => self.apply(command).await,
                    Err(refusal) => Err(refusal),
                });
            }
            (&Method::GET, "/v1/counts") => return json(Ok(self.own_counts())),
            (method, path) => {
                if let Some(name) = path.strip_prefix("/v1/services/") {
                    match *method {
                        Method::PUT => return json(self.define(name.to_owned(), request).await),
                        Method::DELETE => return json(self.remove(name).await),
                        _ => {}
                    }
                }
                let epoch = path.strip_prefix("/v1/evidence/").map(str::parse);
                if let (&Method::GET, Some(Ok(epoch))) = (method, epoch) {
                    return json(Ok(self.evidence(epoch).await));
                }
            }
        }
        json::<()>(Err(not_found(&path)))
    }

    /// Reads a command, and refuses it where commands are not obeyed.
    pub(super) async fn command<Q: DeserializeOwned>(
        &self,
        request: Request<Incoming>,
    ) -> Answer<Q> {
        let command = read(request).await?;
        self.leading()?;
        Ok(command)
    }

    /// A command is being carried out until this is dropped.
    pub(super) fn run(&self) -> Running<'_> {
        self.running.set(self.running.get() + 1);
        Running(self)
    }

    pub(super) fn leading(&self) -> Answer<()> {
        match *self.role.borrow() {
            Role::Leader => Ok(()),
            Role::HandingOver | Role::Follower => {
                let error = "this proxy is being taken over by its successor".to_owned();
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Err(Refusal(status, error, "ask again: the successor answers"))
            }
        }
    }

    /// The routing as it is now.
    pub(super) fn state(&self) -> State {
        self.state_with(&self.table.load())
    }

    fn state_with(&self, table: &RouteTable) -> State {
        let services = table.services.iter().map(|service| {
            let kept = ServiceState {
                settings: service.settings.clone(),
                route: service.gate.route().into(),
                control: self.control(&service.name),
                evidence: None,
            };
            (service.name.clone(), kept)
        });
        State {
            services: services.collect(),
        }
    }

    /// Everything that has to survive this process.
    pub(super) fn persist(&self, durability: Durability) -> Answer<()> {
        self.persist_with(&self.table.load(), durability)
    }

    /// Routes by another table, if that is on the disk.
    pub(super) fn reroute(&self, table: RouteTable) -> Answer<()> {
        self.persist_with(&table, Durability::Disk)?;
        self.table.store(Arc::new(table));
        Ok(())
    }

    fn persist_with(&self, table: &RouteTable, durability: Durability) -> Answer<()> {
        if *self.role.borrow() == Role::Follower {
            // The file is the successor's.
            return Ok(());
        }
        let mut state = self.state_with(table);
        for (name, kept) in &mut state.services {
            kept.evidence = self.evidence_to_keep(name);
        }
        let stored = match durability {
            Durability::Disk => self.file.store(&state),
            Durability::Process => self.file.store_unsynced(&state),
        };
        stored.map_err(|error| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let help = "look at the disk of this instance";
            Refusal(status, error.to_string(), help)
        })
    }
}

/// A command that is being carried out.
pub(super) struct Running<'a>(&'a Admin);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

async fn accept_or_never(
    listener: Option<&TcpListener>,
) -> std::io::Result<(tokio::net::TcpStream, std::net::SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted on the admin socket");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// What the lines of the log are about while a command is carried out.
fn span_of<N: AsRef<str>>(epoch: u64, services: impl IntoIterator<Item = N>) -> Span {
    let names = services.into_iter().fold(String::new(), |names, name| {
        let comma = if names.is_empty() { "" } else { "," };
        names + comma + name.as_ref()
    });
    tracing::info_span!("gate", epoch, service = names)
}
