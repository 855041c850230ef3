//! The address of a role.

use std::net::SocketAddr;
use tokio::net::TcpListener;

/// The address of a role cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on `{address}`: {source}; stop what listens there, or choose another `--listen`"
)]
pub(super) struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Listens on a role's address.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let listening = TcpListener::bind(address).await;
    listening.map_err(|source| ListenError { address, source })
}
