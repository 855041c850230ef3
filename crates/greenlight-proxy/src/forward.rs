//! One request: find its service, get past the gate, send it, bring back the response.
//!
//! A request is sent again only when that is safe: nothing of it was written; or its method is
//! idempotent, its body is at hand, and no byte of a response has come. An application that
//! refuses connections is waited for, because the fleet may be about to cut over away from it;
//! only so many may wait for one service, so that a dead one does not stand in the others' way.

use crate::address::Address;
use crate::gate::{Admission, Claim, Counters, Gate, NoClaim, Route, Wait as _};
use crate::local_reply::{LocalReply, UPSTREAM_GONE, UPSTREAM_TIMED_OUT};
use crate::routing::{Service, WaitingPermit};
use crate::thread::{FdPermit, HeldPermit, ThreadContext};
use crate::upstream::{Connection, Pool, is_out_of_descriptors};
use hyper::StatusCode;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Waits between two tries to reach an application that refuses connections.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(50);
/// How often a request is sent again that an application has died under: it may be the cause.
const MOST_RESENT: u32 = 5;

/// One of the ways to send a request. A transport says how; this module decides when and whether.
pub(crate) trait Transport {
    type Connection: Connection;
    type Response;

    fn pool(&self) -> &Pool<Self::Connection>;

    /// Opens a new connection.
    async fn open(&self, upstream: &Address) -> io::Result<Self::Connection>;

    /// Writes the request, and waits until there is something of a response. The request was not
    /// admitted before it comes here: its first byte must be written without further waiting.
    async fn send(
        &mut self,
        connection: Self::Connection,
        claim: Claim,
        admission: Admission,
    ) -> Sent<Self::Response>;

    fn is_idempotent(&self) -> bool;

    /// Goes back to the start of its body. False if a part of it is gone.
    fn rewind(&self) -> bool;
}

/// What became of a request that was given to a connection.
pub(crate) enum Sent<A> {
    Responded(A),
    /// The connection failed.
    Failed {
        /// Something of the request was written.
        written: bool,
        /// Something of a response was read.
        response_began: bool,
    },
    /// Neither a response nor progress for too long.
    TimedOut,
    /// The client is to blame.
    Rejected(LocalReply),
}

/// One request on its way.
pub(crate) struct Forwarding<'a> {
    thread: &'a Rc<ThreadContext>,
    service: Arc<Service>,
    deadline: Instant,
    /// The next wait for an application that is not there.
    pause: Duration,
    /// What it holds while it waits.
    permit: Permit<'a>,
    held: Held,
    /// How often it was sent again after an application may have seen it.
    resent: u32,
}

/// What a request holds while it waits.
enum Permit<'a> {
    None,
    /// At the gate. Too many of these stop the accepting of connections.
    Held(#[expect(dead_code, reason = "kept for its drop")] HeldPermit<'a>),
    /// For the application. Too many of these and more are refused.
    Waiting(#[expect(dead_code, reason = "kept for its drop")] WaitingPermit),
    /// For a descriptor. Any of these stops the accepting of connections.
    Fd(#[expect(dead_code, reason = "kept for its drop")] FdPermit<'a>),
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
enum Try<A> {
    Done(Result<A, LocalReply>),
    /// The application has not answered: wait for it or for the gate, then look again.
    Wait,
    /// This process has no descriptor left for a connection: wait for one, then try again.
    OutOfDescriptors,
    /// The gate changed under it before anything was sent: look again at once.
    Recalled,
}

impl<'a> Forwarding<'a> {
    pub(crate) fn new(thread: &'a Rc<ThreadContext>, service: Arc<Service>) -> Self {
        Self {
            thread,
            deadline: Instant::now() + service.request_timeout(),
            service,
            pause: FIRST_PAUSE,
            permit: Permit::None,
            held: Held::No,
            resent: 0,
        }
    }

    /// Brings the request to the application. The response is the application's, or a local reply.
    pub(crate) async fn run<T: Transport>(
        mut self,
        transport: &mut T,
    ) -> Result<T::Response, LocalReply> {
        loop {
            let seen = self.gate().route();
            match self.gate().claim() {
                Ok(claim) => match self.forward(claim, seen, transport).await {
                    Try::Done(response) => return response,
                    Try::Wait if !self.take_waiting_permit() => {
                        self.gate().note_failed();
                        let text = "the application is down, and too many requests wait for it\n";
                        return Err(LocalReply::unavailable(text));
                    }
                    Try::Wait => self.wait_for_application(seen).await,
                    Try::OutOfDescriptors => {
                        if !matches!(self.permit, Permit::Fd(_)) {
                            let thread: &'a ThreadContext = self.thread;
                            self.permit = Permit::Fd(thread.fd_permit());
                        }
                        self.wait_for_application(seen).await;
                    }
                    Try::Recalled => Counters::add(&self.gate().counters.recalled),
                },
                Err(NoClaim::Held) => self.wait_at_gate(seen).await,
                Err(NoClaim::Shed) => {
                    Counters::add(&self.gate().counters.shed);
                    let text = "the instance does not know the fleet's decision yet\n";
                    return Err(LocalReply::unavailable(text));
                }
                Err(NoClaim::Closed) => {
                    return Err(LocalReply::unavailable("nothing is deployed here\n"));
                }
            }
            if Instant::now() >= self.deadline {
                self.gate().note_failed();
                let text = "the application could not be reached in time\n";
                return Err(LocalReply::new(StatusCode::GATEWAY_TIMEOUT, text));
            }
        }
    }

    fn gate(&self) -> &Arc<Gate> {
        &self.service.gate
    }

    async fn wait_at_gate(&mut self, seen: Route) {
        if !matches!(self.permit, Permit::Held(_)) {
            let thread: &'a ThreadContext = self.thread;
            self.permit = Permit::Held(thread.held_permit());
        }
        if let Held::No = self.held {
            Counters::add(&self.gate().counters.held);
            self.held = Held::Since(Instant::now());
        }
        // Past the deadline the caller answers; the gate's own deadline usually comes first.
        let _ = timeout_at(self.deadline, self.gate().changed_from(seen)).await;
        self.look_up_again();
    }

    /// An application that was started again may be at another address than before.
    fn look_up_again(&mut self) {
        let table = self.thread.table.load();
        if let Some(service) = table.named(&self.service.name) {
            self.service = service.clone();
        }
    }

    async fn wait_for_application(&mut self, seen: Route) {
        let next = Instant::now() + self.pause;
        tokio::select! {
            () = sleep_until(next.min(self.deadline)) => {
                self.pause = (self.pause * 2).min(LAST_PAUSE);
            }
            () = self.gate().changed_from(seen) => self.pause = FIRST_PAUSE,
        }
        self.look_up_again();
    }

    /// Whether there is room among those that wait for the application.
    fn take_waiting_permit(&mut self) -> bool {
        if !matches!(self.permit, Permit::Waiting(_)) {
            let permit = self.service.waiting_permit(self.thread.limits.max_waiting);
            self.permit = permit.map_or(Permit::None, Permit::Waiting);
        }
        matches!(self.permit, Permit::Waiting(_))
    }

    /// Sends a request for which there is a claim. A recall leaves it unsent.
    async fn forward<T: Transport>(
        &mut self,
        claim: Claim,
        seen: Route,
        transport: &mut T,
    ) -> Try<T::Response> {
        let upstream = self.service.upstream(claim.color());
        let connection = if let Some(connection) = transport.pool().take(upstream) {
            connection
        } else {
            // A hold must not wait for an application that does not take connections.
            tokio::select! {
                biased;
                opened = transport.open(upstream) => match opened {
                    Ok(connection) => connection,
                    Err(error) if is_out_of_descriptors(&error) => {
                        self.thread.close_idle();
                        return Try::OutOfDescriptors;
                    }
                    Err(_) => return Try::Wait,
                },
                () = self.gate().changed_from(seen) => return Try::Recalled,
                () = sleep_until(self.deadline) => return Try::Wait,
            }
        };
        let Some(admission) = claim.admit() else {
            transport.pool().put_back(connection);
            return Try::Recalled;
        };
        self.permit = Permit::None;
        if let Held::Since(since) = self.held {
            self.held = Held::Released;
            let micros = u64::try_from(since.elapsed().as_micros());
            self.gate().waited(micros.unwrap_or(u64::MAX));
        }
        match transport.send(connection, claim, admission).await {
            Sent::Responded(response) => Try::Done(Ok(response)),
            Sent::Failed {
                written,
                response_began,
            } => self.fail(written, response_began, transport),
            Sent::TimedOut => {
                self.gate().note_failed();
                Try::Done(Err(UPSTREAM_TIMED_OUT))
            }
            Sent::Rejected(reply) => Try::Done(Err(reply)),
        }
    }

    /// The connection failed before a response: decides whether the request may be sent again.
    fn fail<T: Transport>(
        &mut self,
        written: bool,
        response_began: bool,
        transport: &mut T,
    ) -> Try<T::Response> {
        let may_have_been_seen = written && (response_began || !transport.is_idempotent());
        if may_have_been_seen || self.resent >= MOST_RESENT || !transport.rewind() {
            self.gate().note_failed();
            return Try::Done(Err(UPSTREAM_GONE));
        }
        if written {
            self.resent += 1;
            Counters::add(&self.gate().counters.retried);
        }
        Try::Wait
    }
}
