//! One request: find its service, get past the gate, send it, bring back the answer.
//!
//! A request is sent again only when that is safe: nothing of it was written; or its method is
//! idempotent, its body is at hand, and no byte of an answer has come. An application that
//! refuses connections is waited for, because the fleet may be about to cut over away from it;
//! only so many may wait for one service, so that a dead one does not stand in the others' way.

use crate::answer::{forward_answer, own, unavailable};
use crate::body::{Exchange, ResponseBody};
use crate::gate::{Claim, Gate, NoClaim, Route, Tally};
use crate::request::{Client, Outgoing};
use crate::route_table::{Service, WaitingPlace};
use crate::upload::{Failure, Upload};
use crate::upstream::{Connection, is_out_of_descriptors};
use crate::worker::{HeldPlace, StarvingPlace, Worker};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::future::{Future as _, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Answered by the gate itself, and only on a unix socket.
const GATE_PATH: &str = "/.greenlight/gate";
/// What the gate answers to a proxy before it that asks for `/.greenlight/gate`.
pub const GATE_ANSWER: &str = "the gate of greenlight\n";

/// Waits between two tries to reach an application that refuses connections.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// Answers one request.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    client: &Client,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    // Whether another proxy of this machine has found the gate.
    if client.asker.is_proxy() && request.uri().path() == GATE_PATH {
        return own(StatusCode::OK, GATE_ANSWER);
    }
    let mut outgoing = match Outgoing::new(request, client, &worker.limits) {
        Ok(outgoing) => outgoing,
        Err(refusal) => return refusal,
    };
    let table = worker.shared.table.load();
    let Some(service) = table.find(&outgoing.host, outgoing.path()).cloned() else {
        let text = "no service is routed for this host and path\n";
        return own(StatusCode::NOT_FOUND, text);
    };
    drop(table);
    Forwarding {
        worker,
        deadline: Instant::now() + service.request_timeout(),
        service,
        pause: FIRST_PAUSE,
        place: Place::None,
        held: Held::No,
    }
    .run(&mut outgoing)
    .await
}

/// One request on its way.
struct Forwarding<'a> {
    worker: &'a Rc<Worker>,
    service: Arc<Service>,
    deadline: Instant,
    /// The next wait for an application that is not there.
    pause: Duration,
    /// Its place among those that wait, while it does.
    place: Place<'a>,
    held: Held,
}

/// A place among those that wait.
enum Place<'a> {
    None,
    /// At the gate. Too many of these stop the accepting of connections.
    Held(#[expect(dead_code, reason = "kept for its drop")] HeldPlace<'a>),
    /// For the application. Too many of these and more are refused.
    Waiting(#[expect(dead_code, reason = "kept for its drop")] WaitingPlace),
    /// For a descriptor. Any of these stops the accepting of connections.
    Starving(#[expect(dead_code, reason = "kept for its drop")] StarvingPlace<'a>),
}

/// Whether a request has waited at the gate.
#[derive(Clone, Copy)]
enum Held {
    No,
    Since(Instant),
    /// It did, and was admitted since.
    Released,
}

/// What one try led to.
enum Try {
    Answered(Response<ResponseBody>),
    /// The application has not answered: wait for it or for the gate, then look again.
    Wait,
    /// This process has no descriptor left for a connection: wait for one, then look again.
    Starve,
    /// The gate changed under it before anything was sent: look again at once.
    Recalled,
}

impl<'a> Forwarding<'a> {
    async fn run(mut self, outgoing: &mut Outgoing) -> Response<ResponseBody> {
        loop {
            let seen = self.gate().route();
            match self.gate().claim() {
                Ok(claim) => match self.forward(claim, seen, outgoing).await {
                    Try::Answered(response) => return response,
                    Try::Wait if !self.take_waiting_place() => {
                        self.gate().note_failed();
                        return unavailable("the application is away, and too many wait for it\n");
                    }
                    Try::Wait => self.wait_for_application(seen).await,
                    Try::Starve => {
                        if !matches!(self.place, Place::Starving(_)) {
                            let worker: &'a Worker = self.worker;
                            self.place = Place::Starving(worker.starving_place());
                        }
                        self.wait_for_application(seen).await;
                    }
                    Try::Recalled => Tally::add(&self.gate().tally.recalled),
                },
                Err(NoClaim::Held) => self.wait_at_gate(seen).await,
                Err(NoClaim::Shed) => {
                    Tally::add(&self.gate().tally.shed);
                    return unavailable("the instance does not know the fleet's decision yet\n");
                }
                Err(NoClaim::Closed) => return unavailable("nothing is deployed here yet\n"),
            }
            if Instant::now() >= self.deadline {
                self.gate().note_failed();
                let text = "the application could not be reached in time\n";
                return own(StatusCode::GATEWAY_TIMEOUT, text);
            }
        }
    }

    fn gate(&self) -> &Arc<Gate> {
        &self.service.gate
    }

    async fn wait_at_gate(&mut self, seen: Route) {
        if !matches!(self.place, Place::Held(_)) {
            let worker: &'a Worker = self.worker;
            self.place = Place::Held(worker.hold_place());
        }
        if let Held::No = self.held {
            Tally::add(&self.gate().tally.held);
            self.held = Held::Since(Instant::now());
        }
        // Past the deadline the caller answers; the gate's own deadline usually comes first.
        let _ = timeout_at(self.deadline, self.gate().changed_from(seen)).await;
    }

    async fn wait_for_application(&mut self, seen: Route) {
        let next = Instant::now() + self.pause;
        tokio::select! {
            () = sleep_until(next.min(self.deadline)) => {
                self.pause = (self.pause * 2).min(LAST_PAUSE);
            }
            () = self.gate().changed_from(seen) => self.pause = FIRST_PAUSE,
        }
    }

    /// Whether there is room among those that wait for the application.
    fn take_waiting_place(&mut self) -> bool {
        if !matches!(self.place, Place::Waiting(_)) {
            let place = self.service.waiting_place(self.worker.limits.max_waiting);
            self.place = place.map_or(Place::None, Place::Waiting);
        }
        matches!(self.place, Place::Waiting(_))
    }

    /// Sends a request for which there is a claim. A recall leaves it unsent.
    async fn forward(&mut self, claim: Claim, seen: Route, outgoing: &mut Outgoing) -> Try {
        let pool = &self.worker.pool;
        let upstream = self.service.upstream(claim.color());
        let mut connection = if let Some(connection) = pool.take(upstream) {
            connection
        } else {
            // A hold must not wait for an application that does not take connections.
            tokio::select! {
                biased;
                opened = Connection::open(upstream, self.worker.limits.idle_timeout) => match opened {
                    Ok(connection) => connection,
                    Err(error) if is_out_of_descriptors(&error) => {
                        pool.clear();
                        return Try::Starve;
                    }
                    Err(_) => return Try::Wait,
                },
                () = self.gate().changed_from(seen) => return Try::Recalled,
                () = sleep_until(self.deadline) => return Try::Wait,
            }
        };
        let Some(admission) = claim.admit() else {
            pool.put_back(connection);
            return Try::Recalled;
        };
        self.place = Place::None;
        if let Held::Since(since) = self.held {
            self.held = Held::Released;
            let micros = u64::try_from(since.elapsed().as_micros());
            self.gate().waited(micros.unwrap_or(u64::MAX));
        }
        connection.marker.arm(admission);
        let idle_timeout = self.worker.limits.idle_timeout;
        match send(&mut connection, outgoing, idle_timeout).await {
            Sent::Answered(response) => {
                let exchange = Exchange {
                    claim,
                    connection,
                    upload: outgoing.upload.clone(),
                    worker: self.worker.clone(),
                };
                let upgrade = outgoing.upgrade.take();
                Try::Answered(forward_answer(response, exchange, upgrade))
            }
            Sent::Failed => self.fail(&connection, outgoing),
            Sent::Silent => {
                self.gate().note_failed();
                let text = "the application did not answer in time\n";
                Try::Answered(own(StatusCode::GATEWAY_TIMEOUT, text))
            }
        }
    }

    /// The connection failed before an answer: decides whether the request may be sent again.
    fn fail(&self, connection: &Connection, outgoing: &Outgoing) -> Try {
        let marker = &connection.marker;
        marker.disarm();
        if let Some(failure) = outgoing.upload.as_ref().and_then(Upload::failure) {
            return Try::Answered(refuse_body(failure));
        }
        let may_repeat = if marker.was_written() {
            !marker.was_answered() && outgoing.may_repeat()
        } else {
            outgoing.rewind()
        };
        if !may_repeat {
            self.gate().note_failed();
            let text = "the application went away under the request\n";
            return Try::Answered(own(StatusCode::BAD_GATEWAY, text));
        }
        if marker.was_written() {
            Tally::add(&self.gate().tally.retried);
        }
        Try::Wait
    }
}

/// What became of a request that was given to a connection.
enum Sent {
    Answered(Response<Incoming>),
    Failed,
    /// Neither an answer nor progress for too long.
    Silent,
}

async fn send(connection: &mut Connection, outgoing: &Outgoing, idle_timeout: Duration) -> Sent {
    let Connection {
        sender,
        marker,
        idle,
        ..
    } = connection;
    let answer = sender.try_send_request(outgoing.request(marker));
    tokio::pin!(answer);
    idle.progressed();
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(answer.map_or(Sent::Failed, Sent::Answered));
        }
        outgoing.register_for_interim(cx);
        while idle.poll_expired(cx).is_ready() {
            let is_clients_turn = outgoing
                .upload
                .as_ref()
                .is_some_and(Upload::waits_for_client);
            let silence = marker.silence();
            if is_clients_turn {
                idle.progressed();
            } else if silence < idle_timeout {
                idle.progressed_before(silence);
            } else {
                return Poll::Ready(Sent::Silent);
            }
        }
        Poll::Pending
    })
    .await
}

/// The client is to blame: its body did not come as it said.
fn refuse_body(failure: Failure) -> Response<ResponseBody> {
    match failure {
        Failure::Broken => own(StatusCode::BAD_REQUEST, "the request's body broke off\n"),
        Failure::Stalled => own(
            StatusCode::REQUEST_TIMEOUT,
            "the request's body did not come\n",
        ),
        Failure::TooLarge => own(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is too large\n",
        ),
    }
}
