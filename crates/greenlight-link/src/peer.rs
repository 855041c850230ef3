//! What agents ask each other: do you know the decision of this epoch, and is what you have
//! prepared for it ready?

use super::https::{Https, HttpsError};
use super::role::Role;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use greenlight_protocol::{Epoch, InstanceId, PeerAnswer, ServiceName};
use hyper::Method;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a peer may take to answer; it is asked again later.
const DECISION_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a peer may take to check what it has prepared, the way there included.
const READINESS_TIMEOUT: Duration = Duration::from_secs(8);

/// Whether what an instance has prepared is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// By service: the present result of its health check.
    pub services: BTreeMap<ServiceName, CheckAnswer>,
    /// The public address of its front, `host:port`, where peers look whether it can be reached;
    /// none where they do not look.
    pub front: Option<String>,
}

/// The result of a prepared release's health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckAnswer {
    /// It passes.
    Healthy,
    /// It does not pass; what a person should read.
    Unhealthy(String),
}

/// Why a peer did not say how what it has prepared is.
#[derive(Debug, thiserror::Error)]
pub enum ReadinessError {
    /// The connection.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// It takes too long.
    #[error("nothing answers at {0}")]
    Timeout(SocketAddr),
    /// It has prepared nothing for the cut-over.
    #[error("it has prepared nothing")]
    NothingPrepared,
    /// It refused.
    #[error("it answers {0}")]
    Refused(StatusCode),
    /// Its answer is not what it should be.
    #[error(transparent)]
    Unreadable(#[from] serde_json::Error),
}

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
    let Some(from) = role.into_agent() else {
        return StatusCode::FORBIDDEN.into_response();
    };
    match peer.decision(from, Epoch(epoch)).await {
        Some(answer) => Json(answer).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn readiness(
    State(peer): State<Arc<dyn Peer>>,
    Extension(role): Extension<Role>,
    Path(epoch): Path<u64>,
) -> Response {
    if role.into_agent().is_none() {
        return StatusCode::FORBIDDEN.into_response();
    }
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
    let (status, body) = tokio::time::timeout(DECISION_TIMEOUT, asked)
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
) -> Result<Readiness, ReadinessError> {
    let mut https = dial(address, peer, tls);
    let path = format!("/v1/readiness/{epoch}");
    let asked = https.exchange(Method::GET, &path, Vec::new());
    let (status, body) = match tokio::time::timeout(READINESS_TIMEOUT, asked).await {
        Ok(answer) => answer?,
        Err(_) => return Err(ReadinessError::Timeout(address)),
    };
    match status {
        StatusCode::OK => Ok(serde_json::from_slice(&body)?),
        StatusCode::NOT_FOUND => Err(ReadinessError::NothingPrepared),
        other => Err(ReadinessError::Refused(other)),
    }
}

fn dial(address: SocketAddr, peer: &InstanceId, tls: Arc<ClientConfig>) -> Https {
    Https::new(address, Role::Agent(peer.0.clone()).dns_name(), tls)
}
