//! One request: find its service, get past the gate, send it, bring back the answer.
//!
//! A request is sent again only when that is safe: nothing of it was written; or its method is
//! idempotent, its body is at hand, and no byte of an answer has come. An application that
//! refuses connections is waited for, because the fleet may be about to cut over away from it.

use crate::body::{Forwarded, Idle, RequestBody, ResponseBody};
use crate::gate::{Claim, Gate, Kind, NoClaim, Tally};
use crate::headers::{Trust, forwarded, strip_hop_by_hop};
use crate::limits::Limits;
use crate::route_table::Service;
use crate::upgrade::tunnel;
use crate::upstream::{Connection, Pool};
use crate::worker::Worker;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Waits between two tries to reach an application that refuses connections.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// The client as the listener saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) address: Option<IpAddr>,
    pub(crate) trust: Trust,
}

/// Answers one request.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    client: Client,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let host = match host_of(&request) {
        Ok(host) => host,
        Err(refusal) => return refusal,
    };
    let table = worker.shared.table.load();
    let Some(service) = table.find(&host, request.uri().path()).cloned() else {
        let text = "no service is routed for this host and path\n";
        return own(StatusCode::NOT_FOUND, text);
    };
    drop(table);
    let outgoing = match Outgoing::new(request, &host, client, &worker.limits).await {
        Ok(outgoing) => outgoing,
        Err(refusal) => return refusal,
    };
    Forwarding {
        worker,
        deadline: Instant::now() + service.request_timeout(),
        service,
        waited: None,
    }
    .run(outgoing)
    .await
}

#[expect(
    clippy::result_large_err,
    reason = "the error is the answer to the client"
)]
fn host_of(request: &Request<Incoming>) -> Result<String, Response<ResponseBody>> {
    if request.method() == Method::CONNECT {
        let text = "this is not a forward proxy\n";
        return Err(own(StatusCode::METHOD_NOT_ALLOWED, text));
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.as_str().to_owned());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host
            .to_str()
            .map(ToOwned::to_owned)
            .map_err(|_| own(StatusCode::BAD_REQUEST, "the host is not text\n")),
        (Some(_), Some(_)) => Err(own(StatusCode::BAD_REQUEST, "more than one host\n")),
        (None, _) if request.version() == Version::HTTP_10 => Ok(String::new()),
        (None, _) => Err(own(StatusCode::BAD_REQUEST, "no host\n")),
    }
}

/// A request as it will be sent, perhaps more than once.
struct Outgoing {
    parts: Parts,
    body: OutgoingBody,
    client_upgrade: Option<OnUpgrade>,
}

enum OutgoingBody {
    Empty,
    Kept(Bytes),
    /// Can be sent once; `None` when it was.
    Once(Option<RequestBody>),
}

impl Outgoing {
    async fn new(
        mut request: Request<Incoming>,
        host: &str,
        client: Client,
        limits: &Limits,
    ) -> Result<Self, Response<ResponseBody>> {
        let upgrade = strip_hop_by_hop(request.headers_mut());
        let client_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        forwarded(&mut parts.headers, host, client.address, client.trust);
        if let Some(protocol) = upgrade {
            parts.headers.insert(UPGRADE, protocol);
            parts
                .headers
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        parts.version = Version::HTTP_11;
        if parts.uri.authority().is_some() {
            let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
            parts.uri = path.parse().expect("a part of a valid target is valid");
            if let Ok(host) = HeaderValue::from_str(host) {
                parts.headers.insert(HOST, host);
            }
        }
        let exact = body.size_hint().exact();
        let small = exact.is_some_and(|size| size <= limits.max_replay as u64);
        let body = if body.is_end_stream() || exact == Some(0) {
            OutgoingBody::Empty
        } else if small && is_idempotent(&parts.method) {
            let kept = Limited::new(body, limits.max_replay).collect();
            match tokio::time::timeout(limits.idle_timeout, kept).await {
                Ok(Ok(kept)) => OutgoingBody::Kept(kept.to_bytes()),
                Ok(Err(_)) => return Err(own(StatusCode::BAD_REQUEST, "the body broke off\n")),
                Err(_) => {
                    let text = "the body did not come\n";
                    return Err(own(StatusCode::REQUEST_TIMEOUT, text));
                }
            }
        } else {
            OutgoingBody::Once(Some(RequestBody::streamed(body, limits.idle_timeout)))
        };
        Ok(Self {
            parts,
            body,
            client_upgrade,
        })
    }

    /// The request to send now; `None` if its body is gone.
    fn request(&mut self) -> Option<Request<RequestBody>> {
        let body = match &mut self.body {
            OutgoingBody::Empty => RequestBody::Empty,
            OutgoingBody::Kept(bytes) => RequestBody::kept(bytes.clone()),
            OutgoingBody::Once(body) => body.take()?,
        };
        Some(Request::from_parts(self.parts.clone(), body))
    }

    /// A request that came back unsent: its body can be used again.
    fn restore(&mut self, request: Request<RequestBody>) {
        if let OutgoingBody::Once(body) = &mut self.body {
            *body = Some(request.into_body());
        }
    }

    /// Whether it may be sent again although the application may have seen it.
    fn may_repeat(&self) -> bool {
        is_idempotent(&self.parts.method) && !matches!(self.body, OutgoingBody::Once(_))
    }
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}

/// One request on its way.
struct Forwarding<'a> {
    worker: &'a Rc<Worker>,
    service: Arc<Service>,
    deadline: Instant,
    /// Since when it waits, if it had to.
    waited: Option<Instant>,
}

/// What one try led to.
enum Try {
    Answered(Response<ResponseBody>),
    /// Nothing was sent: wait for the gate or the application, then look again.
    Wait,
    /// The gate changed under it: look again at once.
    Again,
}

impl Forwarding<'_> {
    async fn run(mut self, mut outgoing: Outgoing) -> Response<ResponseBody> {
        let mut pause = FIRST_PAUSE;
        loop {
            let seen = self.gate().route();
            let outcome = match self.gate().claim() {
                Ok(claim) => self.try_once(claim, &mut outgoing).await,
                Err(NoClaim::Held) => {
                    self.wait_at_gate(seen).await;
                    Try::Again
                }
                Err(NoClaim::Shed) => {
                    Tally::add(&self.gate().tally.shed);
                    return unavailable("the instance does not know the fleet's decision yet\n");
                }
                Err(NoClaim::Closed) => return unavailable("nothing is deployed here yet\n"),
            };
            match outcome {
                Try::Answered(response) => {
                    if let Some(since) = self.waited {
                        let micros = u64::try_from(since.elapsed().as_micros());
                        self.gate().waited(micros.unwrap_or(u64::MAX));
                    }
                    return response;
                }
                Try::Again => {}
                Try::Wait => {
                    self.waited.get_or_insert_with(Instant::now);
                    tokio::select! {
                        () = sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
                        () = self.gate().changed_from(seen) => pause = FIRST_PAUSE,
                    }
                }
            }
            if Instant::now() >= self.deadline {
                Tally::add(&self.gate().tally.failed);
                return own(
                    StatusCode::BAD_GATEWAY,
                    "the application cannot be reached\n",
                );
            }
        }
    }

    fn gate(&self) -> &Arc<Gate> {
        &self.service.gate
    }

    async fn wait_at_gate(&mut self, seen: crate::gate::Route) {
        if self.waited.is_none() {
            self.waited = Some(Instant::now());
            Tally::add(&self.gate().tally.held);
        }
        let _place = self.worker.hold_place();
        // Past the deadline the caller answers; the gate's own deadline usually comes first.
        let _ = timeout_at(self.deadline, self.gate().changed_from(seen)).await;
    }

    async fn try_once(&mut self, claim: Claim, outgoing: &mut Outgoing) -> Try {
        let upstream = self.service.upstream(claim.color());
        let Ok(mut connection) = self.worker.pool.get(upstream).await else {
            return Try::Wait;
        };
        // A connection refused above or a recall here leaves the request unsent.
        let Some(admission) = claim.admit() else {
            Tally::add(&self.gate().tally.recalled);
            self.worker.pool.put_back(connection);
            return Try::Again;
        };
        let Some(request) = outgoing.request() else {
            return self.fail("the application went away under the request\n");
        };
        connection.marker.arm(admission);
        match connection.sender.try_send_request(request).await {
            Ok(response) => Try::Answered(self.answer(response, claim, connection, outgoing)),
            Err(mut error) => {
                connection.marker.disarm();
                if let Some(request) = error.take_message() {
                    outgoing.restore(request);
                } else if connection.marker.was_written() {
                    if !outgoing.may_repeat() {
                        return self.fail("the application went away under the request\n");
                    }
                    Tally::add(&self.gate().tally.retried);
                } else if matches!(outgoing.body, OutgoingBody::Once(None)) {
                    return self.fail("the application went away before the request\n");
                }
                Try::Wait
            }
        }
    }

    fn fail(&self, text: &'static str) -> Try {
        Tally::add(&self.gate().tally.failed);
        Try::Answered(own(StatusCode::BAD_GATEWAY, text))
    }

    fn answer(
        &self,
        mut response: Response<Incoming>,
        mut claim: Claim,
        connection: Connection,
        outgoing: &mut Outgoing,
    ) -> Response<ResponseBody> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switch_protocols(self.worker, response, claim, outgoing.client_upgrade.take());
        }
        strip_hop_by_hop(response.headers_mut());
        let is_stream = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let idle = if is_stream {
            claim.turn_into(Kind::Stream);
            Idle::never()
        } else {
            Idle::new(self.worker.limits.idle_timeout)
        };
        let pool: Rc<Pool> = self.worker.pool.clone();
        response.map(|inner| {
            if inner.is_end_stream() {
                drop(claim);
                pool.put_back(connection);
                return ResponseBody::Own(None);
            }
            ResponseBody::Forwarded(Box::new(Forwarded {
                inner,
                idle,
                claim: Some(claim),
                connection: Some(connection),
                pool,
            }))
        })
    }
}

fn switch_protocols(
    worker: &Rc<Worker>,
    mut response: Response<Incoming>,
    claim: Claim,
    client: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    let Some(client) = client else {
        let text = "the application switched protocols without being asked\n";
        return own(StatusCode::BAD_GATEWAY, text);
    };
    let application = hyper::upgrade::on(&mut response);
    let protocol = strip_hop_by_hop(response.headers_mut());
    if let Some(protocol) = protocol {
        response.headers_mut().insert(UPGRADE, protocol);
    }
    let upgrade = HeaderValue::from_static("upgrade");
    response.headers_mut().insert(CONNECTION, upgrade);
    tunnel(worker, client, application, claim);
    response.map(|_| ResponseBody::Own(None))
}

/// An answer in the proxy's own words.
fn own(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Own(Some(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn unavailable(text: &'static str) -> Response<ResponseBody> {
    let mut response = own(StatusCode::SERVICE_UNAVAILABLE, text);
    let soon = HeaderValue::from_static("1");
    response.headers_mut().insert(RETRY_AFTER, soon);
    response
}
