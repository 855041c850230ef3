//! The agent's side of the link: it dials out, takes directives, and sends reports in order.

use super::agent_request::{AgentResponse, EVENT, NumberedRequest};
use super::https::Https;
use super::telemetry::Telemetry;
use greenlight_protocol::{DirectiveEnvelope, ReportEnvelope};
use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use serde::Serialize;
use sse_stream::SseStream;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Waits between two tries to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A connection without even a heartbeat for this long counts as dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server may take to accept a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// What comes over the link.
#[derive(Debug)]
pub enum ServerLinkEvent {
    /// The stream is open.
    Connected,
    /// A directive.
    Directed(Box<DirectiveEnvelope>),
    /// A request beside the protocol.
    Requested(Box<NumberedRequest>),
}

/// How an agent reaches its server.
#[derive(Clone)]
pub struct ServerLink {
    pub server: SocketAddr,
    /// The agent's credentials.
    pub tls: Arc<ClientConfig>,
    /// The agent's name.
    pub name: String,
    /// Every message is this late, both ways: a barrier shows its worth when something is late.
    pub injected_delay: Duration,
}

impl ServerLink {
    /// Receives directives and passes them to `events`. Never returns.
    pub async fn listen(self, events: UnboundedSender<ServerLinkEvent>) {
        let mut pause = FIRST_PAUSE;
        let mut position: Option<String> = None;
        let (delayed, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        let injected_delay = self.injected_delay;
        tokio::spawn(async move {
            while let Some((arrived, event)) = arrivals.recv().await {
                wait_injected_delay(arrived, injected_delay).await;
                if events.send(event).is_err() {
                    return;
                }
            }
        });
        loop {
            if self.listen_once(&mut position, &delayed).await {
                pause = FIRST_PAUSE;
            }
            if delayed.is_closed() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Returns whether the stream was open.
    async fn listen_once(
        &self,
        position: &mut Option<String>,
        arrivals: &UnboundedSender<(Instant, ServerLinkEvent)>,
    ) -> bool {
        let mut https = Https::to_server(self.server, self.tls.clone());
        let path = format!("/v1/agents/{}/directives", self.name);
        let seen = position.clone();
        let headers: Vec<_> = seen
            .iter()
            .map(|id| ("last-event-id", id.as_str()))
            .collect();
        let response = match https.send(Method::GET, &path, &headers, Vec::new()).await {
            Ok(response) if response.status() == StatusCode::OK => response,
            Ok(response) => {
                tracing::warn!(status = %response.status(), "the server refused the stream");
                return false;
            }
            Err(error) => {
                tracing::debug!(%error, "the server cannot be reached");
                return false;
            }
        };
        let arrive = |event| {
            // If the receiver of events is gone, the agent is ending.
            let _ = arrivals.send((Instant::now(), event));
        };
        arrive(ServerLinkEvent::Connected);
        let mut stream = SseStream::new(response.into_body());
        loop {
            let next = futures_util::future::poll_fn(|cx| {
                futures_util::Stream::poll_next(std::pin::Pin::new(&mut stream), cx)
            });
            let Ok(Some(Ok(event))) = timeout(IDLE_TIMEOUT, next).await else {
                return true;
            };
            let Some(data) = event.data else { continue };
            if event.event.as_deref() == Some(EVENT) {
                if let Ok(request) = serde_json::from_str(&data) {
                    arrive(ServerLinkEvent::Requested(Box::new(request)));
                }
                continue;
            }
            match serde_json::from_str(&data) {
                Ok(envelope) => {
                    *position = event.id;
                    arrive(ServerLinkEvent::Directed(Box::new(envelope)));
                }
                Err(error) => tracing::warn!(%error, "a directive could not be read"),
            }
        }
    }

    /// Responds to a request.
    pub async fn respond<T: Serialize>(&self, number: u64, response: &AgentResponse<T>) {
        let mut https = Https::to_server(self.server, self.tls.clone());
        let path = format!("/v1/agents/{}/responses/{number}", self.name);
        let body = serde_json::to_vec(response).expect("responses serialise");
        if let Err(error) = https.exchange(Method::POST, &path, body).await {
            tracing::debug!(%error, "a response could not be sent");
        }
    }

    /// Sends reports in order, each until the server has accepted it. Never returns.
    pub async fn report(self, reports: UnboundedReceiver<(Instant, ReportEnvelope)>) {
        self.deliver("reports", reports).await;
    }

    /// The same with telemetry, beside the reports: it delays none of them.
    pub async fn send_telemetry(self, telemetry: UnboundedReceiver<(Instant, Telemetry)>) {
        self.deliver("telemetry", telemetry).await;
    }

    async fn deliver<T: Serialize>(
        self,
        what: &'static str,
        mut messages: UnboundedReceiver<(Instant, T)>,
    ) {
        let mut https = Https::to_server(self.server, self.tls.clone());
        let path = format!("/v1/agents/{}/{what}", self.name);
        while let Some((made, message)) = messages.recv().await {
            wait_injected_delay(made, self.injected_delay).await;
            let body = serde_json::to_vec(&message).expect("plain data serialises");
            let mut pause = FIRST_PAUSE;
            loop {
                let sent = https.exchange(Method::POST, &path, body.clone());
                match timeout(REPORT_TIMEOUT, sent).await {
                    Ok(Ok((status, _))) if status.is_success() => break,
                    Ok(Ok((status, _))) => {
                        tracing::warn!(%status, what, "the server did not take a message");
                        if status.is_client_error() {
                            break;
                        }
                    }
                    Ok(Err(error)) => tracing::debug!(%error, what, "a message could not be sent"),
                    Err(_) => tracing::debug!(what, "a message got no answer"),
                }
                sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// Even a sleep that is already over takes the timer's next millisecond: it is not begun.
async fn wait_injected_delay(since: Instant, injected_delay: Duration) {
    if !injected_delay.is_zero() {
        sleep_until(since + injected_delay).await;
    }
}
