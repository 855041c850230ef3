//! The commands: hold, open, park, shed, drain, define, remove.
//!
//! Commands are fenced, separately for each service: an epoch older than the last one obeyed
//! changes nothing, and a hold of an epoch that was opened already is late and refused. A command
//! that is too old for one of its services changes none of them. It is answered when it is carried
//! out here and in every follower that still has connections.

use super::answer::{Answer, Refusal, conflict, read};
use super::server::{Admin, Durability, Role};
use super::service_control::ServiceControl;
use crate::admin::{
    Color, DrainAnswer, DrainRequest, HoldAnswer, HoldRequest, OpenAnswer, OpenRequest,
    ServiceSettings, ServicesRequest,
};
use crate::clock::monotonic_ns;
use crate::counts::CountsByService;
use crate::gate::{Gate, InFlight, Route};
use crate::handover::ReplicateRequest;
use crate::routing::Service;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The longest name of a service.
const MAX_SERVICE_NAME: usize = 128;
/// How long followers may take to carry out a command that has no deadline of its own.
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(2);
/// How often followers are asked whether they have drained.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(5);

impl Admin {
    pub(super) async fn hold(self: &Rc<Self>, request: HoldRequest) -> Answer<HoldAnswer> {
        let _running = self.run();
        let epoch = request.epoch;
        let services = self.named(&request.services)?;
        self.fence_hold(&services, epoch)?;
        self.freeze_evidence(&services).await;
        let services = self.named(&request.services)?;
        self.fence_hold(&services, epoch)?;
        let reset = self.begin_evidence(&services, epoch);
        let generation = self.next_generation(&services);
        self.change_control(&services, |control| control.epoch = epoch);
        let mut held = services.clone();
        // What was never opened is refused at once, before and during its first deployment.
        held.retain(|s| self.control(&s.name).parked || served(s.gate.route()).is_some());
        for service in &held {
            let old = served(service.gate.route());
            if service.gate.route() != Route::Held(old) {
                service.gate.set(Route::Held(old));
            }
        }
        let deadline = (request.max_hold_ms, request.on_uncertain);
        self.change_control(&held, |control| control.deadline = Some(deadline));
        self.arm_deadline(held, generation, deadline);
        // Not synced: this must survive the process, and a machine that lost power has lost its
        // applications too. The sync would lengthen every hold.
        self.persist(Durability::Process)?;
        let others = self
            .wait_held(&services, &request, generation, reset)
            .await?;
        let held = self.note_hold(&services, epoch, &others);
        tracing::debug!(at_ns = held.held_at_ns, "held");
        Ok(held)
    }

    /// Waits until nothing more reaches the old colors, here and in every follower, unless
    /// another command or the deadline comes first. Returns what the followers have counted.
    async fn wait_held(
        self: &Rc<Self>,
        services: &[Arc<Service>],
        request: &HoldRequest,
        generation: u64,
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
            tokio::join!(self.replicate(reset), here);
            if let Some(budget) = request.exclusive_ms {
                let budget = Duration::from_millis(budget);
                timeout(budget, self.no_requests(services)).await.ok()?;
            }
            Some(self.followers.counts().await)
        };
        let is_on = || {
            services
                .iter()
                .all(|s| self.is_generation_of(s, generation))
        };
        let mut generations = self.generation.subscribe();
        let outcome = tokio::select! {
            // The sender is part of `self`.
            _ = generations.wait_for(|_| !is_on()) => None,
            others = complete => Some(others),
        };
        match outcome {
            Some(Some(others)) if is_on() => Ok(others),
            Some(None) if is_on() => {
                self.reopen(services);
                self.replicate_in_time().await?;
                let error = self.still_in_flight(services).await;
                let help = "try again, or allow more time for exclusive cut-overs";
                Err(Refusal(StatusCode::CONFLICT, error, help))
            }
            Some(Some(_) | None) | None => Err(conflict(
                "the deadline passed, or another command came, before the hold was complete",
            )),
        }
    }

    /// Waits until no request is in flight to the colors served until now.
    async fn no_requests(&self, services: &[Arc<Service>]) {
        for service in services {
            if let Some(old) = served(service.gate.route()) {
                service.gate.no_requests(old).await;
                while self.in_flight_elsewhere(service, old).await.requests > 0 {
                    sleep(DRAIN_POLL_INTERVAL).await;
                }
            }
        }
    }

    async fn in_flight_elsewhere(&self, service: &Service, color: Color) -> InFlight {
        let counts = self.followers.counts().await;
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
        let (epoch, colors) = (request.epoch, &request.services);
        // What is not known goes nowhere already.
        let table = self.table.load_full();
        let wanted = colors
            .iter()
            .filter(|(name, color)| color.is_some() || table.named(name).is_some());
        let names: Vec<_> = wanted.map(|(name, _)| name.clone()).collect();
        let services = self.named(&names)?;
        self.fence(&services, epoch)?;
        if !self.followers.is_empty() {
            self.close_before_flip(&services, request).await?;
            self.fence(&services, epoch)?;
        }
        self.next_generation(&services);
        let opened_at_ns = monotonic_ns();
        for service in &services {
            let color = colors[&service.name];
            self.note_opening(service, epoch, color, opened_at_ns);
            let route = color.map_or(Route::Closed, Route::Open);
            if service.gate.route() == route {
                continue;
            }
            service.gate.set(route);
            if let Some(color) = color {
                self.followers.change_final_counts(|final_counts| {
                    let counts = final_counts.entry(service.name.clone()).or_default();
                    counts.opened(color);
                });
            }
        }
        self.change_control(&services, |control| {
            control.epoch = epoch;
            control.opened = epoch;
            control.parked = false;
            control.deadline = None;
        });
        let held_here: u64 = services
            .iter()
            .map(|s| s.gate.counters.held.load(SeqCst))
            .sum();
        // The followers open while this process waits for the disk.
        let (replicated, persisted) = tokio::join!(self.replicate_in_time(), async {
            self.persist(Durability::Disk)
        });
        persisted.and(replicated)?;
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

    /// A command to open that no hold came before: one process would admit to the new color while
    /// another still admits to the old one. So the gates close in all of them first.
    async fn close_before_flip(
        self: &Rc<Self>,
        services: &[Arc<Service>],
        request: &OpenRequest,
    ) -> Answer<()> {
        let generation = self.next_generation(services);
        let mut closed = Vec::new();
        for service in services {
            if let Route::Open(old) = service.gate.route()
                && request.services[&service.name] != Some(old)
            {
                service.gate.set(Route::Held(Some(old)));
                closed.push((service.clone(), old));
            }
        }
        if closed.is_empty() {
            return Ok(());
        }
        let replicated = self.replicate_in_time().await;
        if replicated.is_err() {
            // Unless another command has come, the color that served continues to serve.
            let mut closed: Vec<_> = closed.into_iter().map(|(service, _)| service).collect();
            closed.retain(|service| self.is_generation_of(service, generation));
            self.reopen(&closed);
            self.replicate_in_background();
            return replicated;
        }
        for (service, old) in closed {
            service.gate.none_admitting(old).await;
        }
        Ok(())
    }

    /// Lets requests wait until their service is opened. An unknown service gets no requests
    /// anyway.
    pub(super) async fn park(self: &Rc<Self>, mut request: ServicesRequest) -> Answer<()> {
        let table = self.table.load_full();
        request.services.retain(|name| table.named(name).is_some());
        self.close(&request, Route::Held, |control| control.parked = true)
            .await
    }

    /// Refuses requests.
    pub(super) async fn shed(self: &Rc<Self>, request: ServicesRequest) -> Answer<()> {
        self.close(&request, Route::Shed, |_| {}).await
    }

    async fn close(
        self: &Rc<Self>,
        request: &ServicesRequest,
        to: fn(Option<Color>) -> Route,
        then: fn(&mut ServiceControl),
    ) -> Answer<()> {
        let _running = self.run();
        let services = self.named(&request.services)?;
        self.fence(&services, request.epoch)?;
        for service in &services {
            let route = to(served(service.gate.route()));
            if service.gate.route() != route {
                service.gate.set(route);
            }
        }
        self.change_control(&services, |control| {
            control.epoch = request.epoch;
            then(control);
        });
        self.persist(Durability::Process)?;
        self.replicate_in_time().await
    }

    pub(super) async fn drain(&self, request: DrainRequest) -> Answer<DrainAnswer> {
        let services = self.named(std::slice::from_ref(&request.service))?;
        let service = &services[0];
        let elsewhere = std::cell::Cell::new(None);
        let drained = async {
            loop {
                let there = self.in_flight_elsewhere(service, request.color).await;
                elsewhere.set(Some(there));
                service.gate.drained(request.color).await;
                if there.total() == 0 {
                    return;
                }
                sleep(DRAIN_POLL_INTERVAL).await;
            }
        };
        // Past the deadline the answer says what is left.
        let _ = timeout(Duration::from_millis(request.deadline_ms), drained).await;
        let here = service.gate.in_flight(request.color);
        let there = if let Some(there) = elsewhere.get() {
            there
        } else {
            // A short deadline was over before the followers had answered.
            let counts = self.counts_in_time().await;
            let counts = counts.get(&service.name);
            counts.map_or_else(InFlight::default, |c| c.color(request.color).in_flight)
        };
        let left = InFlight {
            requests: here.requests + there.requests,
            streams: here.streams + there.streams,
            upgrades: here.upgrades + there.upgrades,
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
        let table = self.table.load_full();
        let gate = table.named(&name).map(|known| known.gate.clone());
        let gate = gate.unwrap_or_else(|| Arc::new(Gate::default()));
        let service = Service::new(name, settings, gate).map_err(|error| {
            let help = "correct the service's settings";
            Refusal(StatusCode::BAD_REQUEST, error, help)
        })?;
        let name = service.name.clone();
        self.reroute(table.with(service))?;
        self.controls.borrow_mut().entry(name).or_default();
        self.replicate_in_time().await
    }

    pub(super) async fn remove(self: &Rc<Self>, name: &str) -> Answer<()> {
        self.leading()?;
        let _running = self.run();
        self.named(&[name.to_owned()])?;
        let table = self.table.load_full();
        self.reroute(table.without(name))?;
        self.controls.borrow_mut().remove(name);
        self.replicate_in_time().await
    }

    fn named(&self, names: &[String]) -> Answer<Vec<Arc<Service>>> {
        let table = self.table.load();
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

    /// Replicates the routing as it is now to the followers; returns when all of them have
    /// applied it.
    pub(super) async fn replicate(&self, reset: Vec<String>) {
        // Once this process follows, its leader replicates to them.
        if self.followers.is_empty() || *self.role.borrow() == Role::Follower {
            return;
        }
        self.replicated.set(self.replicated.get() + 1);
        let request = ReplicateRequest {
            sequence: (self.started_at_ns, self.replicated.get()),
            state: self.state(),
            reset,
        };
        self.followers.replicate(&request).await;
    }

    async fn replicate_in_time(&self) -> Answer<()> {
        timeout(REPLICATION_TIMEOUT, self.replicate(Vec::new()))
            .await
            .map_err(|_| {
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
