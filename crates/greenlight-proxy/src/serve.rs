//! One request that hyper has read: sent by hyper, answered through hyper.

use crate::answer::forward_answer;
use crate::body::{Exchange, ResponseBody};
use crate::forward::{Forwarding, NO_SERVICE, Sent, Transport};
use crate::gate::{Admission, Claim};
use crate::request::{Client, Outgoing};
use crate::upload::{Failure, Upload};
use crate::upstream::{HyperConnection, Pool};
use crate::words::Words;
use crate::worker::Worker;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::future::{Future as _, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Answered by the gate itself, and only on a unix socket.
pub(crate) const GATE_PATH: &str = "/.greenlight/gate";
/// What the gate answers to a proxy before it that asks for `/.greenlight/gate`.
pub const GATE_ANSWER: &str = "the gate of greenlight\n";

/// Answers one request.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    client: &Client,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let answer = answer(worker, client, request).await;
    answer.unwrap_or_else(Response::from)
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Client,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Words> {
    // Whether another proxy of this machine has found the gate.
    if client.asker.is_proxy() && request.uri().path() == GATE_PATH {
        return Err(Words::new(StatusCode::OK, GATE_ANSWER));
    }
    let outgoing = Outgoing::new(request, client, &worker.limits)?;
    let table = worker.shared.table.load();
    let service = table.find(&outgoing.host, outgoing.path());
    let service = service.cloned().ok_or(NO_SERVICE)?;
    drop(table);
    let mut sending = Sending { worker, outgoing };
    Forwarding::new(worker, service).run(&mut sending).await
}

/// A request on its way through hyper.
struct Sending<'a> {
    worker: &'a Rc<Worker>,
    outgoing: Outgoing,
}

impl Transport for Sending<'_> {
    type Connection = HyperConnection;
    type Answer = Response<ResponseBody>;

    fn pool(&self) -> &Pool<HyperConnection> {
        &self.worker.pool
    }

    async fn send(
        &mut self,
        mut connection: HyperConnection,
        claim: Claim,
        admission: Admission,
    ) -> Sent<Response<ResponseBody>> {
        connection.marker.arm(admission);
        let idle_timeout = self.worker.limits.idle_timeout;
        let outgoing = &mut self.outgoing;
        match wait_for_answer(&mut connection, outgoing, idle_timeout).await {
            Some(Ok(response)) => {
                let exchange = Exchange {
                    claim,
                    connection,
                    upload: outgoing.upload.clone(),
                    is_head: outgoing.is_head(),
                    worker: self.worker.clone(),
                };
                let upgrade = outgoing.upgrade.take();
                Sent::Answered(forward_answer(response, exchange, upgrade))
            }
            Some(Err(())) => {
                let marker = &connection.marker;
                marker.disarm();
                match outgoing.upload.as_ref().and_then(Upload::failure) {
                    Some(failure) => Sent::Refused(refuse_body(failure)),
                    None => Sent::Failed {
                        written: marker.was_written(),
                        answered: marker.was_answered(),
                    },
                }
            }
            None => Sent::Silent,
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
async fn wait_for_answer(
    connection: &mut HyperConnection,
    outgoing: &Outgoing,
    idle_timeout: Duration,
) -> Option<Result<Response<Incoming>, ()>> {
    let HyperConnection {
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
            return Poll::Ready(Some(answer.map_err(|_| ())));
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
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await
}

/// The client is to blame: its body did not come as it said.
fn refuse_body(failure: Failure) -> Words {
    match failure {
        Failure::Broken => Words::new(StatusCode::BAD_REQUEST, "the request's body broke off\n"),
        Failure::Stalled => Words::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request's body did not come\n",
        ),
        Failure::TooLarge => Words::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is too large\n",
        ),
    }
}
