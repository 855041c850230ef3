//! The orders: hold, open, park, shed, drain, define, remove.
//!
//! Orders are fenced: an epoch older than the last one obeyed changes nothing, and a hold of an
//! epoch that was opened already is late and refused. An order is answered when it is carried
//! out here and in every predecessor that still has connections.

use super::answer::{Answer, Refusal, conflict, json, read};
use super::following::FollowRequest;
use super::server::{Admin, Durability, Role};
use super::{
    Color, DrainAnswer, DrainRequest, HoldAnswer, HoldRequest, OpenAnswer, OpenRequest,
    ServiceSettings, ServicesRequest,
};
use crate::counts::CountsByService;
use crate::gate::{Gate, InFlight, Route};
use crate::route_table::Service;
use crate::upstream::monotonic_ns;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The longest name of a service.
const MAX_SERVICE_NAME: usize = 128;
/// How long predecessors may take to carry out an order that has no deadline of its own.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often predecessors are asked whether they have drained.
const ASK_AGAIN: Duration = Duration::from_millis(5);

impl Admin {
    pub(super) async fn hold(self: &Rc<Self>, request: HoldRequest) -> Answer<HoldAnswer> {
        let _running = self.run();
        self.in_time_for_hold(request.epoch)?;
        let repeated = self.epoch.get() == request.epoch && self.deadline.borrow().is_some();
        if !repeated {
            self.freeze_evidence().await;
            self.in_time_for_hold(request.epoch)?;
        }
        let services = self.named(&request.services)?;
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
        let mut reset = Vec::new();
        if !repeated {
            reset.clone_from(&request.services);
            self.predecessors.change_departed(|departed| {
                for name in &request.services {
                    departed.entry(name.clone()).or_default().reset_tally();
                }
            });
        }
        *self.deadline.borrow_mut() = Some((request.max_hold_ms, request.on_uncertain));
        let max_hold = Duration::from_millis(request.max_hold_ms);
        let on_uncertain = request.on_uncertain;
        let turn = self.arm_deadline(request.epoch, services.clone(), max_hold, on_uncertain);
        // Not synced: this must survive the process, and a machine that lost power has lost its
        // applications too. The sync would lengthen every hold.
        self.keep(Durability::Process)?;
        let others = self.wait_held(&services, &request, turn, reset).await?;
        Ok(self.note_hold(&services, request.epoch, &others))
    }

    fn in_time_for_hold(&self, epoch: u64) -> Answer<()> {
        self.fence(epoch)?;
        if epoch <= self.opened.get() {
            return Err(conflict(format!("cut-over {epoch} was opened already")));
        }
        Ok(())
    }

    /// Waits until nothing more reaches the old colors, here and in every predecessor, unless
    /// another order or the deadline comes first. Returns what the predecessors have counted.
    async fn wait_held(
        self: &Rc<Self>,
        services: &[Arc<Service>],
        request: &HoldRequest,
        turn: u64,
        reset: Vec<String>,
    ) -> Answer<CountsByService> {
        let complete = async {
            let here = async {
                for service in services {
                    if let Some(old) = served(service.gate.route()) {
                        service.gate.none_admitting(old).await;
                    }
                }
            };
            tokio::join!(self.tell(reset), here);
            if let Some(budget) = request.exclusive_ms {
                let budget = Duration::from_millis(budget);
                timeout(budget, self.no_requests(services)).await.ok()?;
            }
            Some(self.predecessors.counts().await)
        };
        let mut turns = self.turn.subscribe();
        let outcome = tokio::select! {
            // The sender is part of `self`.
            _ = turns.wait_for(|now| *now != turn) => None,
            others = complete => Some(others),
        };
        match outcome {
            Some(Some(others)) if *self.turn.borrow() == turn => Ok(others),
            Some(None) => {
                self.reopen(services);
                self.tell_in_time().await?;
                let error = self.still_in_flight(services).await;
                let help = "try again, or allow more time for exclusive cut-overs";
                Err(Refusal(StatusCode::CONFLICT, error, help))
            }
            Some(Some(_)) | None => Err(conflict(
                "the deadline passed, or another order came, before the hold was complete",
            )),
        }
    }

    /// Waits until no request is in flight to the colors served until now.
    async fn no_requests(&self, services: &[Arc<Service>]) {
        for service in services {
            if let Some(old) = served(service.gate.route()) {
                service.gate.no_requests(old).await;
                while self.in_flight_elsewhere(service, old).await.requests > 0 {
                    sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    async fn in_flight_elsewhere(&self, service: &Service, color: Color) -> InFlight {
        let counts = self.predecessors.counts().await;
        let counts = counts.get(&service.name);
        counts.map_or_else(InFlight::default, |counts| counts.color(color).in_flight)
    }

    async fn still_in_flight(&self, services: &[Arc<Service>]) -> String {
        let mut left = Vec::new();
        for service in services {
            if let Some(old) = served(service.gate.route()) {
                let requests = service.gate.in_flight(old).requests
                    + self.in_flight_elsewhere(service, old).await.requests;
                left.push(format!("`{}` has {requests}", service.name));
            }
        }
        format!("requests were still in flight ({})", left.join(", "))
    }

    pub(super) async fn open(self: &Rc<Self>, request: &OpenRequest) -> Answer<OpenAnswer> {
        let _running = self.run();
        self.fence(request.epoch)?;
        let names: Vec<_> = request.services.keys().cloned().collect();
        let services = self.named(&names)?;
        if !self.predecessors.is_empty() {
            self.close_before_flip(&services, request).await?;
            self.fence(request.epoch)?;
        }
        self.next_turn();
        let opened_at_ns = monotonic_ns();
        for service in &services {
            let color = request.services[&service.name];
            if service.gate.route() != Route::Open(color) {
                service.gate.set(Route::Open(color));
                self.predecessors.change_departed(|departed| {
                    let counts = departed.entry(service.name.clone()).or_default();
                    counts.opened(color);
                });
            }
        }
        let held_here: u64 = services
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
        // The predecessors are told first, and open while this process waits for the disk.
        let (told, kept) = tokio::join!(self.tell_in_time(), async { self.keep(Durability::Disk) });
        kept.and(told)?;
        let others = self.counts_in_time().await;
        let held_elsewhere: u64 = names
            .iter()
            .filter_map(|name| others.get(name))
            .map(|counts| counts.held)
            .sum();
        Ok(OpenAnswer {
            opened_at_ns,
            released: held_here + held_elsewhere,
        })
    }

    /// An order to open that no hold came before: one process would admit to the new color while
    /// another still admits to the old one. So the gates close in all of them first.
    async fn close_before_flip(
        self: &Rc<Self>,
        services: &[Arc<Service>],
        request: &OpenRequest,
    ) -> Answer<()> {
        let mut closed = Vec::new();
        for service in services {
            if let Route::Open(old) = service.gate.route()
                && old != request.services[&service.name]
            {
                service.gate.set(Route::Held(Some(old)));
                closed.push((service, old));
            }
        }
        if closed.is_empty() {
            return Ok(());
        }
        let told = self.tell_in_time().await;
        for (service, old) in closed {
            if told.is_err() {
                service.gate.set(Route::Open(old));
            } else {
                service.gate.none_admitting(old).await;
            }
        }
        told
    }

    /// Parks or sheds.
    pub(super) async fn close(
        self: &Rc<Self>,
        request: Request<Incoming>,
        to: fn(Option<Color>) -> Route,
    ) -> Response<Full<Bytes>> {
        json(match self.order(request).await {
            Ok(order) => self.close_services(&order, to).await,
            Err(refusal) => Err(refusal),
        })
    }

    async fn close_services(
        self: &Rc<Self>,
        request: &ServicesRequest,
        to: fn(Option<Color>) -> Route,
    ) -> Answer<()> {
        let _running = self.run();
        self.fence(request.epoch)?;
        for service in self.named(&request.services)? {
            let route = to(served(service.gate.route()));
            if service.gate.route() != route {
                service.gate.set(route);
            }
        }
        self.epoch.set(request.epoch);
        self.keep(Durability::Process)?;
        self.tell_in_time().await
    }

    pub(super) async fn drain(&self, request: DrainRequest) -> Answer<DrainAnswer> {
        let services = self.named(std::slice::from_ref(&request.service))?;
        let service = &services[0];
        let elsewhere = std::cell::Cell::new(InFlight::default());
        let drained = async {
            loop {
                elsewhere.set(self.in_flight_elsewhere(service, request.color).await);
                service.gate.drained(request.color).await;
                if elsewhere.get().total() == 0 {
                    return;
                }
                sleep(ASK_AGAIN).await;
            }
        };
        // Past the deadline the answer says what is left.
        let _ = timeout(Duration::from_millis(request.deadline_ms), drained).await;
        let here = service.gate.in_flight(request.color);
        let left = InFlight {
            requests: here.requests + elsewhere.get().requests,
            streams: here.streams + elsewhere.get().streams,
            upgrades: here.upgrades + elsewhere.get().upgrades,
        };
        Ok(DrainAnswer { left })
    }

    pub(super) async fn define(
        self: &Rc<Self>,
        name: String,
        request: Request<Incoming>,
    ) -> Answer<()> {
        let settings: ServiceSettings = read(request).await?;
        self.leading()?;
        let _running = self.run();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_SERVICE_NAME || !name.bytes().all(plain) {
            let error = format!("`{name}` cannot be a service's name");
            let help = "use letters, digits, `-`, `_` and `.`";
            return Err(Refusal(StatusCode::BAD_REQUEST, error, help));
        }
        let table = self.shared.table.load_full();
        let gate = table.named(&name).map(|known| known.gate.clone());
        let gate = gate.unwrap_or_else(|| Arc::new(Gate::default()));
        let service = Service::new(name, settings, gate).map_err(|error| {
            let help = "correct the service's settings";
            Refusal(StatusCode::BAD_REQUEST, error, help)
        })?;
        self.shared.table.store(Arc::new(table.with(service)));
        self.keep(Durability::Disk)?;
        self.tell_in_time().await
    }

    pub(super) async fn remove(self: &Rc<Self>, name: &str) -> Answer<()> {
        self.leading()?;
        let _running = self.run();
        self.named(&[name.to_owned()])?;
        let table = self.shared.table.load_full();
        self.shared.table.store(Arc::new(table.without(name)));
        self.keep(Durability::Disk)?;
        self.tell_in_time().await
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

    /// Tells the predecessors the routing as it is now; returns when all of them follow it.
    pub(super) async fn tell(&self, reset: Vec<String>) {
        // Once this process follows, its successor tells them.
        if self.predecessors.is_empty() || *self.role.borrow() == Role::Following {
            return;
        }
        self.told.set(self.told.get() + 1);
        let request = FollowRequest {
            turn: (self.started_at_ns, self.told.get()),
            state: self.state(),
            reset,
        };
        self.predecessors.tell(&request).await;
    }

    async fn tell_in_time(&self) -> Answer<()> {
        timeout(PATIENCE, self.tell(Vec::new())).await.map_err(|_| {
            let error = "a predecessor of this proxy that still has connections does not obey";
            let help = "end the processes that listen beside the admin socket";
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_owned(), help)
        })
    }
}

/// The color that is served, or was until now.
pub(super) fn served(route: Route) -> Option<Color> {
    match route {
        Route::Closed => None,
        Route::Open(color) => Some(color),
        Route::Held(color) | Route::Shed(color) => color,
    }
}
