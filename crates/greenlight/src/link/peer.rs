//! What agents ask each other: do you know the decision of this epoch, and is what you have
//! prepared for it ready?

use super::https::Https;
use super::pki::Role;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use greenlight_protocol::{Epoch, InstanceId, PeerAnswer, ServiceName};
use hyper::Method;
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a peer may take to answer; it is asked again later.
const DECISION_WITHIN: Duration = Duration::from_millis(500);
/// How long a peer may take to check what it has prepared, the way there included.
const READINESS_WITHIN: Duration = Duration::from_secs(8);

/// By service: the present result of its health check.
pub type Readiness = BTreeMap<ServiceName, Result<String, String>>;

/// What answers the questions of peers.
pub trait Peer: Send + Sync {
    /// The decision of an epoch; `None` if the agent is ending.
    fn decision(&self, from: InstanceId, epoch: Epoch) -> BoxFuture<'static, Option<PeerAnswer>>;
    /// How what is prepared for an epoch is; `None` if nothing is.
    fn readiness(&self, epoch: Epoch) -> BoxFuture<'static, Option<Readiness>>;
}

/// The routes that peers ask on.
pub fn router(peer: Arc<dyn Peer>) -> Router {
    Router::new()
        .route("/v1/decisions/{epoch}", get(decision))
        .route("/v1/readiness/{epoch}", get(readiness))
        .with_state(peer)
}

async fn decision(
    State(peer): State<Arc<dyn Peer>>,
    Extension(role): Extension<Role>,
    Path(epoch): Path<u64>,
) -> Response {
    let Role::Agent(from) = role else {
        return StatusCode::FORBIDDEN.into_response();
    };
    match peer.decision(InstanceId(from), Epoch(epoch)).await {
        Some(answer) => Json(answer).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn readiness(
    State(peer): State<Arc<dyn Peer>>,
    Extension(role): Extension<Role>,
    Path(epoch): Path<u64>,
) -> Response {
    let Role::Agent(_) = role else {
        return StatusCode::FORBIDDEN.into_response();
    };
    match peer.readiness(Epoch(epoch)).await {
        Some(readiness) => Json(readiness).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Asks a peer for the decision of an epoch; `None` if it does not answer.
pub async fn ask_decision(
    address: SocketAddr,
    peer: &InstanceId,
    epoch: Epoch,
    tls: Arc<ClientConfig>,
) -> Option<PeerAnswer> {
    let mut https = dial(address, peer, tls);
    let path = format!("/v1/decisions/{epoch}");
    let asked = https.exchange(Method::GET, &path, Vec::new());
    let (status, body) = tokio::time::timeout(DECISION_WITHIN, asked)
        .await
        .ok()?
        .ok()?;
    status
        .is_success()
        .then(|| serde_json::from_slice(&body).ok())?
}

/// Asks a peer how what it has prepared for an epoch is; or why it did not say.
pub async fn ask_readiness(
    address: SocketAddr,
    peer: &InstanceId,
    epoch: Epoch,
    tls: Arc<ClientConfig>,
) -> Result<Readiness, String> {
    let mut https = dial(address, peer, tls);
    let path = format!("/v1/readiness/{epoch}");
    let asked = https.exchange(Method::GET, &path, Vec::new());
    let (status, body) = match tokio::time::timeout(READINESS_WITHIN, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("nothing answers at {address}")),
    };
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map_err(|error| error.to_string()),
        StatusCode::NOT_FOUND => Err("it has prepared nothing".to_owned()),
        other => Err(format!("it answers {other}")),
    }
}

fn dial(address: SocketAddr, peer: &InstanceId, tls: Arc<ClientConfig>) -> Https {
    Https::new(address, Role::Agent(peer.0.clone()).dns_name(), tls)
}
