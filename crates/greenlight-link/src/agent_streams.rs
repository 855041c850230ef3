//! The server's side of the agents' link: a stream of directives to each, reports from each.

use super::agent_request::{
    AgentRequest, AgentResponse, AnyRequest, EVENT, NumberedRequest, RequestError,
};
use super::pending_responses::{PendingResponses, response};
use super::role::Role;
use super::telemetry::Telemetry;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::Stream;
use greenlight_protocol::{DirectiveEnvelope, InstanceId, ReportEnvelope};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Directives kept for each agent, so that a cut connection loses none.
const KEPT: usize = 256;
/// The most that an agent may send at once, in bytes: a report, telemetry, a response. It bounds
/// what logs it answers with far below that.
const MOST_FROM_AGENT: usize = 4 * 1024 * 1024;
/// A comment this often keeps NATs and proxies from forgetting the connection.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What happens on the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// An agent's stream is open.
    Connected(InstanceId),
    /// An agent's stream is closed.
    Disconnected(InstanceId),
    /// An agent reported.
    Reported(InstanceId, Box<ReportEnvelope>),
    /// An agent sent what its gates have seen.
    Observed(InstanceId, Box<Telemetry>),
}

/// The streams of all agents.
#[derive(Clone)]
pub struct AgentStreams {
    shared: Arc<Shared>,
}

struct Shared {
    /// The coordinator's incarnation: positions of another one mean nothing here.
    term: u64,
    agents: Mutex<BTreeMap<InstanceId, AgentStream>>,
    pending: Mutex<PendingResponses>,
    events: Box<dyn Fn(LinkEvent) + Send + Sync>,
}

#[derive(Default)]
struct AgentStream {
    next: u64,
    kept: VecDeque<(u64, Bytes)>,
    stream: Option<UnboundedSender<Bytes>>,
    connection: u64,
}

impl AgentStreams {
    /// The streams of a coordinator of this term; `events` receives what happens.
    pub fn new(term: u64, events: impl Fn(LinkEvent) + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                term,
                agents: Mutex::default(),
                pending: Mutex::default(),
                events: Box::new(events),
            }),
        }
    }

    /// Sends directives. Those to an agent that is away wait for it, up to a bound.
    pub fn send(&self, outgoing: &[(InstanceId, DirectiveEnvelope)]) {
        let mut last: Option<(&DirectiveEnvelope, String)> = None;
        for (to, envelope) in outgoing {
            // The same directive goes to many: it is written once.
            let json = match &last {
                Some((known, json)) if *known == envelope => json.clone(),
                Some(_) | None => serde_json::to_string(envelope).expect("directives serialise"),
            };
            let mut agents = self.shared.agents();
            let agent_stream = agents.entry(to.clone()).or_default();
            agent_stream.next += 1;
            let position = agent_stream.next;
            let text = format!("id: {}-{position}\ndata: {json}\n\n", self.shared.term);
            let bytes = Bytes::from(text);
            agent_stream.kept.push_back((position, bytes.clone()));
            if agent_stream.kept.len() > KEPT {
                agent_stream.kept.pop_front();
            }
            if let Some(stream) = &agent_stream.stream {
                // A closed stream is noticed by its own end; the directive is kept.
                let _ = stream.send(bytes);
            }
            last = Some((envelope, json));
        }
    }

    /// Asks these agents at once. One that does not respond within `timeout` has an error.
    pub async fn ask<R: AgentRequest>(
        &self,
        agents: BTreeSet<InstanceId>,
        request: R,
        timeout: Duration,
    ) -> BTreeMap<InstanceId, Result<R::Response, RequestError>> {
        let request: AnyRequest = request.into();
        let asked = agents.into_iter().map(|agent| {
            let (number, pending) = self.shared.pending.lock().register(&agent);
            let request = request.clone();
            let json = serde_json::to_string(&NumberedRequest { number, request });
            let json = json.expect("requests serialise");
            let text = format!("event: {EVENT}\ndata: {json}\n\n");
            let sent = self.send_ephemeral(&agent, Bytes::from(text));
            (agent, sent.then_some(pending))
        });
        let asked: Vec<_> = asked.collect();
        let deadline = tokio::time::Instant::now() + timeout;
        let mut responses = BTreeMap::new();
        for (agent, pending) in asked {
            let read = response(pending, deadline).await.and_then(|bytes| {
                match serde_json::from_slice(&bytes).map_err(RequestError::Unreadable)? {
                    AgentResponse::Done(done) => Ok(done),
                    AgentResponse::Failed(reason) => Err(RequestError::Failed(reason)),
                }
            });
            responses.insert(agent, read);
        }
        responses
    }

    /// The same for one agent.
    pub async fn ask_one<R: AgentRequest>(
        &self,
        agent: InstanceId,
        request: R,
        timeout: Duration,
    ) -> Result<R::Response, RequestError> {
        let mut responses = self.ask([agent].into(), request, timeout).await;
        let (_, response) = responses.pop_first().ok_or(RequestError::NoResponse)?;
        response
    }

    /// Sends an event that is not kept; returns whether the agent is connected.
    fn send_ephemeral(&self, to: &InstanceId, event: Bytes) -> bool {
        let agents = self.shared.agents();
        let stream = agents
            .get(to)
            .and_then(|agent_stream| agent_stream.stream.as_ref());
        stream.is_some_and(|stream| stream.send(event).is_ok())
    }

    fn connect(&self, agent: &InstanceId, last_seen: Option<&str>) -> DirectiveStream {
        let (sender, receiver) = unbounded_channel();
        let seen = last_seen.and_then(|id| {
            let (term, position) = id.split_once('-')?;
            (term.parse() == Ok(self.shared.term)).then(|| position.parse::<u64>().ok())?
        });
        let connection = {
            let mut agents = self.shared.agents();
            let agent_stream = agents.entry(agent.clone()).or_default();
            // Without a position the coordinator prompts again: old directives would only be late.
            if let Some(seen) = seen {
                for (position, bytes) in &agent_stream.kept {
                    if *position > seen {
                        let _ = sender.send(bytes.clone());
                    }
                }
            }
            agent_stream.connection += 1;
            agent_stream.stream = Some(sender.clone());
            agent_stream.connection
        };
        (self.shared.events)(LinkEvent::Connected(agent.clone()));
        tokio::spawn(async move {
            while sender.send(Bytes::from_static(b": alive\n\n")).is_ok() {
                tokio::time::sleep(HEARTBEAT).await;
            }
        });
        DirectiveStream {
            receiver,
            agent: agent.clone(),
            connection,
            shared: self.shared.clone(),
        }
    }
}

impl Shared {
    fn agents(&self) -> MutexGuard<'_, BTreeMap<InstanceId, AgentStream>> {
        self.agents.lock()
    }
}

/// One agent's open stream. Its end is the agent's disconnection, unless a newer one is open.
struct DirectiveStream {
    receiver: UnboundedReceiver<Bytes>,
    agent: InstanceId,
    connection: u64,
    shared: Arc<Shared>,
}

impl Stream for DirectiveStream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx).map(|bytes| bytes.map(Ok))
    }
}

impl Drop for DirectiveStream {
    fn drop(&mut self) {
        let mut agents = self.shared.agents();
        let Some(agent_stream) = agents.get_mut(&self.agent) else {
            return;
        };
        if agent_stream.connection == self.connection {
            agent_stream.stream = None;
            drop(agents);
            (self.shared.events)(LinkEvent::Disconnected(self.agent.clone()));
        }
    }
}

/// The agents' routes.
pub fn agent_router(streams: AgentStreams) -> Router {
    Router::new()
        .route("/v1/agents/{id}/directives", get(directives))
        .route("/v1/agents/{id}/reports", post(report))
        .route("/v1/agents/{id}/telemetry", post(telemetry))
        .route("/v1/agents/{id}/responses/{number}", post(receive_response))
        .layer(DefaultBodyLimit::max(MOST_FROM_AGENT))
        .with_state(streams)
}

async fn directives(
    State(streams): State<AgentStreams>,
    Extension(role): Extension<Role>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !role.is_agent_of(&id) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let last_seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let stream = streams.connect(&InstanceId(id), last_seen);
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(stream)).into_response()
}

async fn report(
    State(streams): State<AgentStreams>,
    Extension(role): Extension<Role>,
    Path(id): Path<String>,
    Json(envelope): Json<ReportEnvelope>,
) -> Response {
    if !role.is_agent_of(&id) {
        return StatusCode::FORBIDDEN.into_response();
    }
    // The coordinator takes every report any number of times, so nothing need be remembered here.
    (streams.shared.events)(LinkEvent::Reported(InstanceId(id), Box::new(envelope)));
    StatusCode::NO_CONTENT.into_response()
}

async fn telemetry(
    State(streams): State<AgentStreams>,
    Extension(role): Extension<Role>,
    Path(id): Path<String>,
    Json(telemetry): Json<Telemetry>,
) -> Response {
    if !role.is_agent_of(&id) {
        return StatusCode::FORBIDDEN.into_response();
    }
    (streams.shared.events)(LinkEvent::Observed(InstanceId(id), Box::new(telemetry)));
    StatusCode::NO_CONTENT.into_response()
}

async fn receive_response(
    State(streams): State<AgentStreams>,
    Extension(role): Extension<Role>,
    Path((id, number)): Path<(String, u64)>,
    response: Bytes,
) -> Response {
    if !role.is_agent_of(&id) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut pending = streams.shared.pending.lock();
    pending.received(number, &InstanceId(id), response);
    StatusCode::NO_CONTENT.into_response()
}
