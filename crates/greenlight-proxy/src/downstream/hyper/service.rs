//! One request that hyper has read: sent by hyper, answered through hyper.

use super::body::{Exchange, ResponseBody};
use super::request::{Client, Outgoing};
use super::response::forward_response;
use crate::address::Address;
use crate::forward::{Forwarding, Sent, Transport};
use crate::gate::{Admission, Claim};
use crate::local_reply::{LocalReply, NO_SERVICE};
use crate::thread::ThreadContext;
use crate::upstream::{Failure, HyperConnection, Pool, Upload};
use greenlight_admin::{GATE_PATH, GATE_RESPONSE};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::future::{Future as _, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Answers one request.
pub(super) async fn serve(
    thread: &Rc<ThreadContext>,
    client: &Client,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let response = respond(thread, client, request).await;
    response.unwrap_or_else(Response::from)
}

async fn respond(
    thread: &Rc<ThreadContext>,
    client: &Client,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, LocalReply> {
    // Whether another proxy of this machine has found the gate.
    if client.info.is_proxy() && request.uri().path() == GATE_PATH {
        return Err(LocalReply::new(StatusCode::OK, GATE_RESPONSE));
    }
    let outgoing = Outgoing::new(request, client, &thread.limits)?;
    let table = thread.table.load();
    let service = table.find(&outgoing.host, outgoing.path());
    let service = service.cloned().ok_or(NO_SERVICE)?;
    drop(table);
    let mut sending = Sending { thread, outgoing };
    Forwarding::new(thread, service).run(&mut sending).await
}

/// A request on its way through hyper.
struct Sending<'a> {
    thread: &'a Rc<ThreadContext>,
    outgoing: Outgoing,
}

impl Transport for Sending<'_> {
    type Connection = HyperConnection;
    type Response = Response<ResponseBody>;

    fn pool(&self) -> &Pool<HyperConnection> {
        &self.thread.pool
    }

    async fn open(&self, upstream: &Address) -> io::Result<HyperConnection> {
        let idle_timeout = self.thread.limits.idle_timeout;
        HyperConnection::open(upstream, &self.thread.raw_pool, idle_timeout).await
    }

    async fn send(
        &mut self,
        mut connection: HyperConnection,
        claim: Claim,
        admission: Admission,
    ) -> Sent<Response<ResponseBody>> {
        connection.tracker.arm(admission);
        let idle_timeout = self.thread.limits.idle_timeout;
        let outgoing = &mut self.outgoing;
        match wait_for_response(&mut connection, outgoing, idle_timeout).await {
            Some(Ok(response)) => {
                let exchange = Exchange {
                    claim,
                    connection,
                    upload: outgoing.upload.clone(),
                    is_head: outgoing.is_head(),
                    thread: self.thread.clone(),
                };
                let upgrade = outgoing.upgrade.take();
                Sent::Responded(forward_response(response, exchange, upgrade))
            }
            Some(Err(())) => {
                let tracker = &connection.tracker;
                tracker.disarm();
                match outgoing.upload.as_ref().and_then(Upload::failure) {
                    Some(failure) => Sent::Rejected(refuse_body(failure)),
                    None => Sent::Failed {
                        written: tracker.was_written(),
                        response_began: tracker.response_began(),
                    },
                }
            }
            None => Sent::TimedOut,
        }
    }

    fn is_idempotent(&self) -> bool {
        self.outgoing.is_idempotent()
    }

    fn rewind(&self) -> bool {
        self.outgoing.rewind()
    }
}

/// `None` if the application is silent for too long; an error if the connection failed.
async fn wait_for_response(
    connection: &mut HyperConnection,
    outgoing: &Outgoing,
    idle_timeout: Duration,
) -> Option<Result<Response<Incoming>, ()>> {
    let HyperConnection {
        sender,
        tracker,
        idle,
        ..
    } = connection;
    let response = sender.try_send_request(outgoing.request(tracker));
    tokio::pin!(response);
    idle.progressed();
    poll_fn(|cx| {
        if let Poll::Ready(response) = response.as_mut().poll(cx) {
            return Poll::Ready(Some(response.map_err(|_| ())));
        }
        outgoing.register_for_interim(cx);
        while idle.poll_expired(cx).is_ready() {
            let is_clients_turn = outgoing
                .upload
                .as_ref()
                .is_some_and(Upload::waits_for_client);
            let silence = tracker.silence();
            if is_clients_turn {
                idle.progressed();
            } else if silence < idle_timeout {
                idle.progressed_before(silence);
            } else {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await
}

/// The client caused it: its body did not match its declaration.
fn refuse_body(failure: Failure) -> LocalReply {
    match failure {
        Failure::Broken => LocalReply::new(
            StatusCode::BAD_REQUEST,
            "the request's body is incomplete\n",
        ),
        Failure::Stalled => LocalReply::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request's body did not arrive in time\n",
        ),
        Failure::TooLarge => LocalReply::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is too large\n",
        ),
    }
}
