//! What agents ask each other: do you know the decision of this epoch?

use super::https::Https;
use super::pki::Role;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use greenlight_protocol::{Epoch, InstanceId, PeerAnswer};
use hyper::Method;
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A peer that takes longer is asked again later.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// Answers a peer's question; `None` if the agent is ending.
pub type Answerer =
    Arc<dyn Fn(InstanceId, Epoch) -> BoxFuture<'static, Option<PeerAnswer>> + Send + Sync>;

/// The route that peers ask on.
pub fn router(answerer: Answerer) -> Router {
    Router::new()
        .route("/v1/decisions/{epoch}", get(decision))
        .with_state(answerer)
}

async fn decision(
    State(answerer): State<Answerer>,
    Extension(role): Extension<Role>,
    Path(epoch): Path<u64>,
) -> Response {
    let Role::Agent(peer) = role else {
        return StatusCode::FORBIDDEN.into_response();
    };
    match answerer(InstanceId(peer), Epoch(epoch)).await {
        Some(answer) => Json(answer).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Asks a peer for the decision of an epoch; `None` if it does not answer.
pub async fn ask(
    address: SocketAddr,
    peer: &InstanceId,
    epoch: Epoch,
    tls: Arc<ClientConfig>,
) -> Option<PeerAnswer> {
    let name = Role::Agent(peer.0.clone()).dns_name();
    let mut https = Https::new(address, name, tls);
    let path = format!("/v1/decisions/{epoch}");
    let asked = https.exchange(Method::GET, &path, Vec::new());
    let (status, body) = tokio::time::timeout(ASK_TIMEOUT, asked).await.ok()?.ok()?;
    status
        .is_success()
        .then(|| serde_json::from_slice(&body).ok())?
}
