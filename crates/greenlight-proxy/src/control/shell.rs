//! The shell of the gates' control: gives it events, and carries its effects out in their order.
//!
//! All of it runs on the admin thread; only messages to followers are sent by another. What takes no time is done at once, so that between an
//! event and the last of its effects nothing else happens. What has to wait is a task of its own,
//! which ends in another event.
//!
//! Deliberately absent: decisions. [`GateControl`](greenlight_gate::GateControl) makes them.

use super::server::Admin;
use super::tables;
use crate::clock::monotonic_ns;
use crate::error::ProxyError;
use crate::gate::{Counters, Wait as _};
use crate::routing::SharedTable;
use greenlight_admin::ServiceSettings;
use greenlight_gate::{
    Answer, Awaited, Color, Command, Counts, CountsByCutOver, Durability, GateEffect, GateEvent,
    InFlight, Mode, OnUncertain, ReadCounts, Refusal, ReplicateRequest, Ticket,
};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, Span};

/// How long followers may take to say what they have counted, before it is left out of an answer.
const COUNTS_TIMEOUT: Duration = Duration::from_millis(500);
/// How often followers are asked what they still have.
pub(super) const COUNTS_INTERVAL: Duration = Duration::from_millis(5);

type Effect = GateEffect<ServiceSettings>;
type Event = GateEvent<ServiceSettings>;

/// What the gates of this process have counted.
pub(super) struct Gates<'a>(pub(super) &'a SharedTable);

impl ReadCounts for Gates<'_> {
    fn counts(&self, service: &str) -> Counts {
        let table = self.0.load();
        let service = table.named(service);
        service.map_or_else(Counts::default, |service| service.gate.counts())
    }
}

impl Admin {
    /// This process leads from now on. Predecessors that still have connections follow it.
    pub(crate) fn start(self: &Rc<Self>) {
        self.followers.discover(&self.path);
        let followers = self.followers.names();
        self.step(Event::Started { followers });
    }

    /// Has a command carried out; returns when it is answered.
    pub(super) async fn command(
        self: &Rc<Self>,
        command: Command<ServiceSettings>,
    ) -> Result<Answer, Refusal> {
        let (ticket, answer) = self.tickets.issue();
        self.step(Event::Commanded { ticket, command });
        answer.await.expect("the control answers every command")
    }

    /// Gives the control an event, and carries out what follows.
    pub(super) fn step(self: &Rc<Self>, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let gates = Gates(&self.table);
            let mut control = self.control.borrow_mut();
            let effects = control.handle(event, monotonic_ns(), &gates);
            drop(control);
            for effect in effects {
                events.extend(self.carry_out(effect));
            }
        }
        let role = self.control.borrow().role();
        self.role.send_if_modified(|known| {
            let is_new = *known != role;
            *known = role;
            is_new
        });
    }

    /// Carries out one effect. Returns what it leads to at once.
    fn carry_out(self: &Rc<Self>, effect: Effect) -> Option<Event> {
        match effect {
            GateEffect::ResetCounters(name) => {
                if let Some(service) = self.table.load().named(&name) {
                    service.gate.reset_counters();
                }
            }
            GateEffect::CountExpiry(name) => self.count_expiry(&name),
            GateEffect::SetRoute { service, route } => {
                if let Some(service) = self.table.load().named(&service) {
                    service.gate.set(route);
                }
            }
            GateEffect::SetServices => {
                let table = tables::of_control(&self.control.borrow(), &self.table.load());
                self.table.store(Arc::new(table));
            }
            GateEffect::ArmDeadline {
                generation,
                after_ms,
            } => self.spawn(async move {
                sleep(Duration::from_millis(after_ms)).await;
                Event::DeadlinePassed { generation }
            }),
            GateEffect::Persist { ticket, durability } => {
                let result = self.persist(durability);
                match ticket {
                    Some(ticket) => {
                        let result = result.map_err(|error| error.to_string());
                        return Some(Event::Written { ticket, result });
                    }
                    None => log_failure(result),
                }
            }
            GateEffect::Replicate { followed, waits } => self.replicate(&followed, waits),
            GateEffect::Await { ticket, what } => return self.wait(ticket, what),
            GateEffect::Reply { ticket, answer } => self.tickets.answer(ticket, answer),
        }
        None
    }

    fn count_expiry(&self, name: &str) {
        if let Some(service) = self.table.load().named(name) {
            Counters::add(&service.gate.counters.expired);
        }
        let control = self.control.borrow();
        let Some(service) = control.services().get(name) else {
            return;
        };
        let on_uncertain = if let Mode::Expired { then, .. } = service.mode {
            then
        } else {
            // It ended while the gate was about to flip.
            OnUncertain::Shed
        };
        tracing::warn!(
            service = name,
            epoch = service.epoch,
            ?on_uncertain,
            "a hold's deadline passed without a decision"
        );
    }

    fn persist(&self, durability: Durability) -> Result<(), ProxyError> {
        let control = self.control.borrow();
        let state = control.to_persist(&Gates(&self.table));
        match durability {
            Durability::Disk => self.file.store(&state),
            Durability::Process => self.file.store_unsynced(&state),
        }
    }

    fn replicate(
        self: &Rc<Self>,
        request: &ReplicateRequest<ServiceSettings>,
        waits: Option<(Ticket, u64)>,
    ) {
        // Before anything else, because writing it down may take its time.
        let sent = self.followers.send_routing(request);
        let admin = self.clone();
        let replication = async move {
            let obeyed = admin.followers.have_obeyed(sent);
            let Some((ticket, limit_ms)) = waits else {
                obeyed.await;
                return admin.forget_who_is_gone();
            };
            let in_time = within(limit_ms, obeyed).await.is_some();
            admin.forget_who_is_gone();
            admin.step(Event::Replicated { ticket, in_time });
        };
        tokio::task::spawn_local(replication.instrument(Span::current()));
    }

    fn wait(self: &Rc<Self>, ticket: Ticket, what: Awaited) -> Option<Event> {
        let admin = self.clone();
        match what {
            Awaited::NoneAdmitting(of) => return self.wait_for_none_admitting(ticket, of),
            Awaited::NoRequests { of, within_ms } => self.spawn(async move {
                let none = within(within_ms, admin.no_requests(&of)).await;
                let in_time = none.is_some();
                Event::NoRequests { ticket, in_time }
            }),
            Awaited::Counts { within_ms } => self.spawn(async move {
                let others = within(within_ms, admin.followers.counts()).await;
                admin.forget_who_is_gone();
                Event::Counted { ticket, others }
            }),
        }
        None
    }

    fn wait_for_none_admitting(
        self: &Rc<Self>,
        ticket: Ticket,
        of: Vec<(String, Color)>,
    ) -> Option<Event> {
        let table = self.table.load();
        let gates = of.into_iter().filter_map(|(name, color)| {
            let gate = table.named(&name)?.gate.clone();
            Some((gate, color))
        });
        let gates: Vec<_> = gates.collect();
        // Mostly nothing is being admitted at this moment, and then no time is lost.
        if gates.iter().all(|(gate, color)| gate.admits_none(*color)) {
            return Some(Event::NoneAdmitting { ticket });
        }
        self.spawn(async move {
            for (gate, color) in gates {
                gate.none_admitting(color).await;
            }
            Event::NoneAdmitting { ticket }
        });
        None
    }

    /// Waits until no request is in flight to these colors, here and in every follower.
    async fn no_requests(&self, of: &[(String, Color)]) {
        for (name, color) in of {
            let table = self.table.load_full();
            let Some(service) = table.named(name) else {
                continue;
            };
            service.gate.no_requests(*color).await;
            while self.in_flight_elsewhere(name, *color).await.requests > 0 {
                sleep(COUNTS_INTERVAL).await;
            }
        }
    }

    /// What the living followers have in flight.
    pub(super) async fn in_flight_elsewhere(&self, service: &str, color: Color) -> InFlight {
        self.followers.counts().await.in_flight(service, color)
    }

    /// What the living followers have counted; `None` if one does not say it in time.
    pub(super) async fn counts_in_time(self: &Rc<Self>) -> Option<CountsByCutOver> {
        let counts = timeout(COUNTS_TIMEOUT, self.followers.counts()).await;
        self.forget_who_is_gone();
        counts.ok()
    }

    /// Tells the control of followers whose sockets refuse connections.
    fn forget_who_is_gone(self: &Rc<Self>) {
        let there = self.followers.names();
        let known = self.control.borrow().followers().clone();
        let gone: BTreeSet<_> = known.difference(&there).cloned().collect();
        for follower in gone {
            self.step(Event::FollowerGone { follower });
        }
    }

    /// Waits for an event beside everything else.
    fn spawn(self: &Rc<Self>, event: impl Future<Output = Event> + 'static) {
        let admin = self.clone();
        let step = async move { admin.step(event.await) };
        tokio::task::spawn_local(step.instrument(Span::current()));
    }
}

async fn within<T>(limit_ms: u64, future: impl Future<Output = T>) -> Option<T> {
    timeout(Duration::from_millis(limit_ms), future).await.ok()
}

/// For writing that no command waits for.
fn log_failure(result: Result<(), ProxyError>) {
    if let Err(error) = result {
        tracing::error!(%error, "the routing could not be written");
    }
}
