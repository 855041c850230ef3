//! Listening sockets that the service manager opened and passed: `LISTEN_FDS` of systemd.
//!
//! They outlive this process: while it is started again, the kernel queues users on them. Each is
//! identified by the address it is bound to, so the same `--listen` works with and without them;
//! several of one address (`ReusePort=yes`) are distributed over the threads like our own.
//!
//! Its name in `LISTEN_FDNAMES` decides nothing; it identifies the socket in the log.

use super::listener::{BoundSocket, Listener};
use crate::address::Address;
use crate::error::ProxyError;
use listenfd::ListenFd;
use std::io;
use std::net::SocketAddr;

/// Takes every socket that was passed to this process; none the second time.
pub(crate) fn take_all() -> Result<Vec<BoundSocket>, ProxyError> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    (0..passed.len())
        .map(|index| {
            let name = names.next().filter(|name| !name.is_empty());
            let name = name.map_or_else(|| format!("number {index}"), ToOwned::to_owned);
            take(&mut passed, index)
                .inspect(|bound| {
                    let address = bound.address.to_string();
                    tracing::info!(name, address, "the service manager passed a socket");
                })
                .map_err(|source| ProxyError::Passed { name, source })
        })
        .collect()
}

/// Takes those that belong to one TCP address.
pub(crate) fn take_at(sockets: &mut Vec<BoundSocket>, address: SocketAddr) -> Vec<BoundSocket> {
    let address = Address::Tcp(address);
    sockets
        .extract_if(.., |bound| bound.requested == address)
        .collect()
}

fn take(passed: &mut ListenFd, index: usize) -> io::Result<BoundSocket> {
    if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
        listener.set_nonblocking(true)?;
        let address = Address::Tcp(listener.local_addr()?);
        return Ok(bound(address, Listener::Tcp(listener)));
    }
    let gone = || io::Error::other("it was passed twice");
    let listener = passed.take_unix_listener(index)?.ok_or_else(gone)?;
    listener.set_nonblocking(true)?;
    let path = listener.local_addr()?.as_pathname().map(ToOwned::to_owned);
    let path = path.ok_or_else(|| io::Error::other("it has no path"))?;
    Ok(bound(Address::Unix(path), Listener::Unix(listener)))
}

fn bound(address: Address, listener: Listener) -> BoundSocket {
    BoundSocket {
        requested: address.clone(),
        address,
        listener,
    }
}
