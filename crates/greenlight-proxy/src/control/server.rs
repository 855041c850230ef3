//! The admin socket: who may come in, and which command or question it is.
//!
//! All commands run on one thread, so a gate has a single writer. What a command is and how it is
//! answered is in [`commands`], what can be asked in [`status`], [`evidence`] and [`drain`].
//!
//! [`commands`]: super::commands
//! [`status`]: super::status
//! [`evidence`]: super::evidence
//! [`drain`]: super::drain

use super::answer::{json, not_found, read, typed};
use super::metrics;
use super::tickets::Tickets;
use crate::address::Address;
use crate::clock::monotonic_ns;
use crate::handover::{Followers, Sockets};
use crate::lifecycle::Lifecycle;
use crate::routing::SharedTable;
use crate::state_file::StateFile;
use bytes::Bytes;
use greenlight_admin::ServiceSettings;
use greenlight_gate::{GateControl, HandoverState, Role};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::convert::Infallible;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// The pause after `accept` failed, for example because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

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
    pub(super) control: RefCell<GateControl<ServiceSettings>>,
    pub(super) followers: Followers,
    pub(super) tickets: Tickets,
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
        state: HandoverState<ServiceSettings>,
        listening: Vec<Address>,
        lifecycle: Arc<watch::Sender<Lifecycle>>,
        followers: Followers,
    ) -> Self {
        let started_at_ns = monotonic_ns();
        Self {
            table,
            file,
            path,
            listening,
            sockets: RefCell::default(),
            lifecycle,
            role: watch::Sender::new(Role::Leader),
            started_at_ns,
            control: RefCell::new(GateControl::new(started_at_ns, state)),
            followers,
            tickets: Tickets::default(),
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
            if matches!(now, Role::Follower { .. }) {
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
            (&Method::POST, "/v1/hold") => return json(self.hold(request).await),
            (&Method::POST, "/v1/open") => return json(self.open(request).await),
            (&Method::POST, "/v1/park") => return json(self.park(request).await),
            (&Method::POST, "/v1/shed") => return json(self.shed(request).await),
            (&Method::POST, "/v1/drain") => return json(self.drain(request).await),
            (&Method::POST, "/v1/evidence") => {
                return json(match read(request).await {
                    Ok(asked) => Ok(self.evidence_after_first_requests(&asked).await),
                    Err(refusal) => Err(refusal),
                });
            }
            (&Method::POST, "/v1/handover") => return self.offer(request).await,
            (&Method::POST, "/v1/final-counts") => {
                return json(self.record_final_counts(request).await);
            }
            (&Method::POST, "/v1/replicate") => return json(self.follow(request).await),
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

    pub(super) fn is_leader(&self) -> bool {
        *self.role.borrow() == Role::Leader
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

pub(super) async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted on the admin socket");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
