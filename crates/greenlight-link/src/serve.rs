//! Accepts connections of the fleet, and knows who speaks on each.

use super::role::Role;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection without a certificate may last: joining is one request.
const UNAUTHENTICATED_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` to clients with a certificate of the fleet, until the task is dropped.
/// Handlers find the caller's [`Role`] in the request's extensions.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router) {
    serve_with_optional_client_auth(listener, tls, router, Router::new()).await;
}

/// The same, and clients without a certificate are served `public`, if `tls` admits them.
pub async fn serve_with_optional_client_auth(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    public: Router,
) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let routers = (router.clone(), public.clone());
                tokio::spawn(serve_connection(stream, acceptor.clone(), routers));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    (router, public): (Router, Router),
) {
    // Latency matters more than the number of packets.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            return;
        }
        Err(_) => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| chain.first());
    let (router, limit) = match certificate.map(Role::of) {
        None => (public, UNAUTHENTICATED_TIMEOUT),
        Some(Some(role)) => (router.layer(axum::Extension(role)), Duration::MAX),
        Some(None) => {
            tracing::warn!("a certificate of the fleet has no role");
            return;
        }
    };
    // No half-closed connections: an agent that is gone must be noticed at once, also while its
    // stream is silent.
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Errors when the other side closes its connection are ignored.
    let _ = tokio::time::timeout(limit, served).await;
}
