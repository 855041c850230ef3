//! The admin socket: takes orders one at a time and carries them out on the gates.
//!
//! All orders run on one thread, so a gate has a single writer. Orders are fenced: an epoch older
//! than the last one obeyed changes nothing, and a hold of an epoch that was opened already is
//! late and refused.

use super::{
    Color, DrainAnswer, DrainRequest, ErrorAnswer, EvidenceAnswer, HeldService, HoldAnswer,
    HoldRequest, OnUncertain, OpenAnswer, OpenRequest, ServiceEvidence, ServiceStatus,
    ServicesRequest, StatusAnswer, metrics,
};
use crate::gate::{Gate, Route};
use crate::listener::ListenAddr;
use crate::proxy::Shared;
use crate::route_table::{Service, ServiceSettings};
use crate::state_file::{ServiceState, State, StateFile};
use crate::upstream::monotonic_ns;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

/// Cut-overs whose evidence is kept.
const EVIDENCE_KEPT: usize = 32;
/// The largest order.
const MAX_ORDER: usize = 1024 * 1024;
/// The longest name of a service.
const MAX_SERVICE_NAME: usize = 128;

/// The admin side of a proxy.
pub(crate) struct Admin {
    shared: Arc<Shared>,
    file: StateFile,
    listening: Vec<ListenAddr>,
    epoch: Cell<u64>,
    /// The highest epoch that was opened: a hold of it is late.
    opened: Cell<u64>,
    /// Counts holds, opens and the like; a deadline of an earlier one does nothing.
    turn: Cell<u64>,
    deadline: RefCell<Option<(u64, OnUncertain)>>,
    evidence: RefCell<BTreeMap<u64, BTreeMap<String, ServiceEvidence>>>,
}

/// A refusal: status, what is wrong, what to do next.
struct Refusal(StatusCode, String, &'static str);

type Answer<T> = Result<T, Refusal>;

impl Admin {
    pub(crate) fn new(
        shared: Arc<Shared>,
        file: StateFile,
        state: &State,
        listening: Vec<ListenAddr>,
    ) -> Self {
        Self {
            shared,
            file,
            listening,
            epoch: Cell::new(state.epoch),
            opened: Cell::new(state.opened),
            turn: Cell::new(0),
            deadline: RefCell::new(state.deadline),
            evidence: RefCell::default(),
        }
    }

    /// After a restart: a hold that was on is on again, with a fresh deadline.
    pub(crate) fn resume(self: &Rc<Self>) {
        let Some((millis, on_uncertain)) = *self.deadline.borrow() else {
            return;
        };
        let held = self.shared.table.load();
        let services: Vec<_> = held
            .services
            .iter()
            .filter(|service| matches!(service.gate.route(), Route::Held(_)))
            .cloned()
            .collect();
        if !services.is_empty() {
            let epoch = self.epoch.get();
            self.arm_deadline(epoch, services, Duration::from_millis(millis), on_uncertain);
        }
    }

    /// Serves the admin socket, and what is read-only on the status address.
    pub(crate) async fn serve(
        self: &Rc<Self>,
        socket: std::os::unix::net::UnixListener,
        status: Option<std::net::TcpListener>,
    ) {
        let orders = match UnixListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the admin socket cannot be used");
                return;
            }
        };
        let status = status.and_then(|listener| {
            listener.set_nonblocking(true).ok()?;
            TcpListener::from_std(listener).ok()
        });
        loop {
            tokio::select! {
                accepted = orders.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    if !is_permitted(&stream) {
                        tracing::warn!("another user was refused on the admin socket");
                        continue;
                    }
                    self.clone().converse(TokioIo::new(stream), Access::Orders);
                }
                accepted = accept_or_never(status.as_ref()) => {
                    if let Ok((stream, _)) = accepted {
                        self.clone().converse(TokioIo::new(stream), Access::Reading);
                    }
                }
            }
        }
    }

    fn converse<S>(self: Rc<Self>, io: TokioIo<S>, access: Access)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    {
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let admin = self.clone();
                async move { Ok::<_, Infallible>(admin.answer(request, access).await) }
            });
            // Half close: a client may stop writing and wait for its answer.
            let connection = http1::Builder::new()
                .half_close(true)
                .serve_connection(io, service);
            // How the other side ends is its business.
            let _ = connection.await;
        });
    }

    async fn answer(
        self: &Rc<Self>,
        request: Request<Incoming>,
        access: Access,
    ) -> Response<Full<Bytes>> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        match (&method, path.as_str()) {
            (&Method::GET, "/v1/status") => json(Ok(self.status())),
            (&Method::GET, "/metrics") => text(StatusCode::OK, metrics::render(&self.status())),
            (&Method::GET, "/healthz") => self.health(),
            _ if access == Access::Reading => json::<()>(Err(not_found(&path))),
            (&Method::POST, "/v1/hold") => json(match read(request).await {
                Ok(order) => self.hold(order).await,
                Err(refusal) => Err(refusal),
            }),
            (&Method::POST, "/v1/open") => {
                json(read(request).await.and_then(|order| self.open(&order)))
            }
            (&Method::POST, "/v1/park") => json(
                read(request)
                    .await
                    .and_then(|order| self.close(&order, Route::Held)),
            ),
            (&Method::POST, "/v1/shed") => json(
                read(request)
                    .await
                    .and_then(|order| self.close(&order, Route::Shed)),
            ),
            (&Method::POST, "/v1/drain") => json(match read(request).await {
                Ok(order) => self.drain(order).await,
                Err(refusal) => Err(refusal),
            }),
            (method, path) => {
                if let Some(name) = path.strip_prefix("/v1/services/") {
                    let name = name.to_owned();
                    return match *method {
                        Method::PUT => json(self.define(name, request).await),
                        Method::DELETE => json(self.remove(&name)),
                        _ => json::<()>(Err(not_found(path))),
                    };
                }
                match (method, path.strip_prefix("/v1/evidence/").map(str::parse)) {
                    (&Method::GET, Some(Ok(epoch))) => json(Ok(self.evidence(epoch))),
                    _ => json::<()>(Err(not_found(path))),
                }
            }
        }
    }

    async fn hold(self: &Rc<Self>, request: HoldRequest) -> Answer<HoldAnswer> {
        self.fence(request.epoch)?;
        if request.epoch <= self.opened.get() {
            let error = format!("cut-over {} was opened already", request.epoch);
            return Err(Refusal(StatusCode::CONFLICT, error, "ask for the status"));
        }
        let services = self.named(&request.services)?;
        let repeated = self.epoch.get() == request.epoch && self.deadline.borrow().is_some();
        if !repeated {
            self.freeze_evidence();
        }
        self.epoch.set(request.epoch);
        for service in &services {
            if !repeated {
                service.gate.reset_tally();
            }
            let old = served(service.gate.route());
            if service.gate.route() != Route::Held(old) {
                service.gate.set(Route::Held(old));
            }
        }
        *self.deadline.borrow_mut() = Some((request.max_hold_ms, request.on_uncertain));
        let max_hold = Duration::from_millis(request.max_hold_ms);
        let on_uncertain = request.on_uncertain;
        let turn = self.arm_deadline(request.epoch, services.clone(), max_hold, on_uncertain);
        // Not synced: this must survive the process, and a machine that lost power has lost its
        // applications too. The sync would lengthen every hold.
        self.keep(Durability::Process)?;
        self.wait_held(&services, &request, turn).await?;
        Ok(self.note_hold(&services, request.epoch))
    }

    /// Waits until nothing more reaches the old colors, unless another order comes first.
    async fn wait_held(
        &self,
        services: &[Arc<Service>],
        request: &HoldRequest,
        turn: u64,
    ) -> Answer<()> {
        for service in services {
            let Some(old) = served(service.gate.route()) else {
                continue;
            };
            let held = service.gate.route();
            tokio::select! {
                () = service.gate.none_admitting(old) => {}
                () = service.gate.changed_from(held) => {}
            }
            let Some(budget) = request.exclusive_ms else {
                continue;
            };
            tokio::select! {
                () = service.gate.no_requests(old) => {}
                () = service.gate.changed_from(held) => {}
                () = tokio::time::sleep(Duration::from_millis(budget)) => {
                    self.reopen(services);
                    let error = format!(
                        "`{}` still has {} requests in flight after {budget} ms",
                        service.name,
                        service.gate.in_flight(old).requests
                    );
                    let help = "try again, or allow more time for exclusive cut-overs";
                    return Err(Refusal(StatusCode::CONFLICT, error, help));
                }
            }
        }
        if self.turn.get() != turn {
            let error = "another order came while the hold was waiting".to_owned();
            return Err(Refusal(StatusCode::CONFLICT, error, "ask for the status"));
        }
        Ok(())
    }

    fn note_hold(&self, services: &[Arc<Service>], epoch: u64) -> HoldAnswer {
        let held_at_ns = monotonic_ns();
        let mut answer = HoldAnswer {
            held_at_ns,
            services: BTreeMap::new(),
        };
        let mut evidence = self.evidence.borrow_mut();
        let seen = evidence.entry(epoch).or_default();
        for service in services {
            let gate = &service.gate;
            let color = served(gate.route());
            let last_admission_ns = color.and_then(|color| gate.last_admission_ns(color));
            seen.insert(
                service.name.clone(),
                ServiceEvidence {
                    old: color,
                    held_at_ns: Some(held_at_ns),
                    last_admission_old_ns: last_admission_ns,
                    ..ServiceEvidence::default()
                },
            );
            let held = HeldService {
                color,
                last_admission_ns,
                in_flight: color.map_or(0, |color| gate.in_flight(color).total()),
                recalled: gate.tally.recalled.load(SeqCst),
            };
            answer.services.insert(service.name.clone(), held);
        }
        while evidence.len() > EVIDENCE_KEPT {
            evidence.pop_first();
        }
        answer
    }

    fn open(&self, request: &OpenRequest) -> Answer<OpenAnswer> {
        self.fence(request.epoch)?;
        let names: Vec<_> = request.services.keys().cloned().collect();
        let services = self.named(&names)?;
        self.turn.set(self.turn.get() + 1);
        let opened_at_ns = monotonic_ns();
        for service in &services {
            let color = request.services[&service.name];
            if service.gate.route() != Route::Open(color) {
                service.gate.set(Route::Open(color));
            }
        }
        let released = services
            .iter()
            .map(|s| s.gate.tally.held.load(SeqCst))
            .sum();
        self.epoch.set(request.epoch);
        self.opened.set(request.epoch);
        *self.deadline.borrow_mut() = None;
        if let Some(seen) = self.evidence.borrow_mut().get_mut(&request.epoch) {
            for (name, color) in &request.services {
                let seen = seen.entry(name.clone()).or_default();
                seen.new = Some(*color);
                seen.opened_at_ns.get_or_insert(opened_at_ns);
            }
        }
        self.keep(Durability::Disk)?;
        Ok(OpenAnswer {
            opened_at_ns,
            released,
        })
    }

    fn close(&self, request: &ServicesRequest, to: fn(Option<Color>) -> Route) -> Answer<()> {
        self.fence(request.epoch)?;
        for service in self.named(&request.services)? {
            let route = to(served(service.gate.route()));
            if service.gate.route() != route {
                service.gate.set(route);
            }
        }
        self.epoch.set(request.epoch);
        self.keep(Durability::Process)
    }

    async fn drain(&self, request: DrainRequest) -> Answer<DrainAnswer> {
        let services = self.named(std::slice::from_ref(&request.service))?;
        let gate = &services[0].gate;
        let deadline = Duration::from_millis(request.deadline_ms);
        tokio::select! {
            () = gate.drained(request.color) => {}
            () = tokio::time::sleep(deadline) => {}
        }
        let left = gate.in_flight(request.color);
        Ok(DrainAnswer { left })
    }

    async fn define(&self, name: String, request: Request<Incoming>) -> Answer<()> {
        let settings: ServiceSettings = read(request).await?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_SERVICE_NAME || !name.bytes().all(plain) {
            let error = format!("`{name}` cannot be a service's name");
            let help = "use letters, digits, `-`, `_` and `.`";
            return Err(Refusal(StatusCode::BAD_REQUEST, error, help));
        }
        let table = self.shared.table.load();
        let gate = table.named(&name).map(|known| known.gate.clone());
        let gate = gate.unwrap_or_else(|| Arc::new(Gate::default()));
        let service = Service::new(name, settings, gate).map_err(|error| {
            Refusal(
                StatusCode::BAD_REQUEST,
                error,
                "correct the service's settings",
            )
        })?;
        self.shared.table.store(Arc::new(table.with(service)));
        self.keep(Durability::Disk)
    }

    fn remove(&self, name: &str) -> Answer<()> {
        self.named(&[name.to_owned()])?;
        let table = self.shared.table.load();
        self.shared.table.store(Arc::new(table.without(name)));
        self.keep(Durability::Disk)
    }

    /// Starts the deadline of a hold. Returns the turn that it belongs to.
    fn arm_deadline(
        self: &Rc<Self>,
        epoch: u64,
        services: Vec<Arc<Service>>,
        max_hold: Duration,
        on_uncertain: OnUncertain,
    ) -> u64 {
        let turn = self.turn.get() + 1;
        self.turn.set(turn);
        let admin = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(max_hold).await;
            if admin.turn.get() == turn {
                admin.expire(epoch, &services, on_uncertain);
            }
        });
        turn
    }

    fn expire(&self, epoch: u64, services: &[Arc<Service>], on_uncertain: OnUncertain) {
        tracing::warn!(
            epoch,
            ?on_uncertain,
            "a hold's deadline passed without a decision"
        );
        self.turn.set(self.turn.get() + 1);
        match on_uncertain {
            OnUncertain::ServeOld => self.reopen(services),
            OnUncertain::Shed => {
                for service in services {
                    let old = served(service.gate.route());
                    service.gate.set(Route::Shed(old));
                }
            }
        }
        *self.deadline.borrow_mut() = None;
        if let Some(seen) = self.evidence.borrow_mut().get_mut(&epoch) {
            for service in services {
                seen.entry(service.name.clone()).or_default().expired = true;
            }
        }
        if let Err(Refusal(_, error, _)) = self.keep(Durability::Process) {
            tracing::error!(error, "the routing could not be kept");
        }
    }

    fn reopen(&self, services: &[Arc<Service>]) {
        self.turn.set(self.turn.get() + 1);
        *self.deadline.borrow_mut() = None;
        for service in services {
            let route = match served(service.gate.route()) {
                Some(old) => Route::Open(old),
                None => Route::Closed,
            };
            service.gate.set(route);
        }
    }

    fn fence(&self, epoch: u64) -> Answer<()> {
        if epoch >= self.epoch.get() {
            return Ok(());
        }
        let error = format!("cut-over {epoch} is older than {}", self.epoch.get());
        Err(Refusal(StatusCode::CONFLICT, error, "ask for the status"))
    }

    fn named(&self, names: &[String]) -> Answer<Vec<Arc<Service>>> {
        let table = self.shared.table.load();
        names
            .iter()
            .map(|name| {
                table.named(name).cloned().ok_or_else(|| {
                    let error = format!("there is no service `{name}`");
                    let help = "define it with `PUT /v1/services/NAME`";
                    Refusal(StatusCode::NOT_FOUND, error, help)
                })
            })
            .collect()
    }

    fn keep(&self, durability: Durability) -> Answer<()> {
        let table = self.shared.table.load();
        let services = table.services.iter().map(|service| {
            let kept = ServiceState {
                settings: service.settings.clone(),
                route: service.gate.route().into(),
            };
            (service.name.clone(), kept)
        });
        let state = State {
            epoch: self.epoch.get(),
            opened: self.opened.get(),
            deadline: *self.deadline.borrow(),
            services: services.collect(),
        };
        let stored = match durability {
            Durability::Disk => self.file.store(&state),
            Durability::Process => self.file.store_unsynced(&state),
        };
        stored.map_err(|error| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Refusal(
                status,
                error.to_string(),
                "look at the disk of this instance",
            )
        })
    }

    /// Before the totals start again: those of the last cut-over are written down for good.
    fn freeze_evidence(&self) {
        let last = self.evidence.borrow().keys().next_back().copied();
        if let Some(epoch) = last {
            let frozen = self.evidence(epoch).services;
            self.evidence.borrow_mut().insert(epoch, frozen);
        }
    }

    fn evidence(&self, epoch: u64) -> EvidenceAnswer {
        let evidence = self.evidence.borrow();
        let mut services = evidence.get(&epoch).cloned().unwrap_or_default();
        if evidence.keys().next_back() == Some(&epoch) && epoch == self.epoch.get() {
            let table = self.shared.table.load();
            for (name, seen) in &mut services {
                if let Some(service) = table.named(name) {
                    complete(seen, &service.gate);
                }
            }
        }
        EvidenceAnswer { services }
    }

    fn status(&self) -> StatusAnswer {
        let table = self.shared.table.load();
        let services = table.services.iter().map(|service| {
            let gate = &service.gate;
            let route = gate.route();
            let state = match route {
                Route::Closed => "closed",
                Route::Open(_) => "open",
                Route::Held(_) => "held",
                Route::Shed(_) => "shed",
            };
            let status = ServiceStatus {
                settings: service.settings.clone(),
                state: state.to_owned(),
                color: served(route),
                blue: gate.in_flight(Color::Blue),
                green: gate.in_flight(Color::Green),
                admitted_blue: gate.admitted(Color::Blue),
                admitted_green: gate.admitted(Color::Green),
            };
            (service.name.clone(), status)
        });
        StatusAnswer {
            pid: std::process::id(),
            listening: self.listening.iter().map(ToString::to_string).collect(),
            epoch: self.epoch.get(),
            services: services.collect(),
        }
    }

    /// For load balancers: whether users should come here. Asks for no host.
    fn health(&self) -> Response<Full<Bytes>> {
        let table = self.shared.table.load();
        let serves = |route| matches!(route, Route::Open(_) | Route::Held(_));
        let ready = !table.services.is_empty()
            && table
                .services
                .iter()
                .all(|service| serves(service.gate.route()));
        if ready {
            text(StatusCode::OK, "ok\n".to_owned())
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not serving\n".to_owned())
        }
    }
}

fn complete(seen: &mut ServiceEvidence, gate: &Gate) {
    if seen.opened_at_ns.is_some() {
        seen.first_admission_new_ns = seen.new.and_then(|color| gate.first_admission_ns(color));
    }
    seen.held = gate.tally.held.load(SeqCst);
    seen.max_held_us = gate.tally.max_held_us.load(SeqCst);
    seen.recalled = gate.tally.recalled.load(SeqCst);
    seen.retried = gate.tally.retried.load(SeqCst);
    seen.failed = gate.tally.failed.load(SeqCst);
    seen.shed = gate.tally.shed.load(SeqCst);
}

/// What a connection may ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Orders,
    Reading,
}

/// How far a change must have come before it is answered.
#[derive(Clone, Copy)]
enum Durability {
    /// Survives the process.
    Process,
    /// Survives the machine.
    Disk,
}

fn served(route: Route) -> Option<Color> {
    match route {
        Route::Closed => None,
        Route::Open(color) => Some(color),
        Route::Held(color) | Route::Shed(color) => color,
    }
}

/// Only this user and root may give orders, whatever the mode of the socket's folder.
fn is_permitted(stream: &tokio::net::UnixStream) -> bool {
    let me = rustix::process::getuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == me)
}

async fn accept_or_never(
    listener: Option<&TcpListener>,
) -> std::io::Result<(tokio::net::TcpStream, std::net::SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn read<Q: DeserializeOwned>(request: Request<Incoming>) -> Answer<Q> {
    let bad = |error: String| Refusal(StatusCode::BAD_REQUEST, error, "correct the order");
    let body = Limited::new(request.into_body(), MAX_ORDER).collect().await;
    let bytes = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}

fn not_found(path: &str) -> Refusal {
    let error = format!("there is no `{path}` here");
    Refusal(
        StatusCode::NOT_FOUND,
        error,
        "see the documentation of the admin socket",
    )
}

fn json<T: Serialize>(answer: Answer<T>) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Ok(answer) => (StatusCode::OK, serde_json::to_vec(&answer)),
        Err(Refusal(status, error, help)) => {
            let help = help.to_owned();
            (status, serde_json::to_vec(&ErrorAnswer { error, help }))
        }
    };
    let body = body.expect("plain data serialises");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
