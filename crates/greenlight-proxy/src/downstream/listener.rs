//! Listening sockets: one per thread and TCP address, so that the kernel spreads connections.
//!
//! They need not be opened here: a predecessor or the service manager may have passed them. Whoever
//! passes them, every one of them is accepted from, also by fewer threads than opened them: what
//! the kernel queued on a socket is reset when it closes.

use super::client_info::Trust;
use crate::address::Address;
use crate::error::ProxyError;
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

/// The length of the kernel's queue of connections that are not accepted yet.
const BACKLOG: i32 = 4096;

/// A listening socket that a thread accepts from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Whether what connects here may speak for clients.
    pub(crate) fn trust(&self) -> Trust {
        match self {
            Self::Tcp(_) => Trust::Nobody,
            Self::Unix(_) => Trust::Peer,
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// A listening socket and what it was opened for.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    /// The address that was requested; its port may be 0.
    pub(crate) requested: Address,
    /// The address that it is bound to.
    pub(crate) address: Address,
    pub(crate) listener: Listener,
}

impl BoundSocket {
    /// A socket that came from elsewhere as a bare descriptor.
    pub(crate) fn received(requested: Address, address: Address, socket: OwnedFd) -> Self {
        let listener = match address {
            Address::Tcp(_) => Listener::Tcp(socket.into()),
            Address::Unix(_) => Listener::Unix(socket.into()),
        };
        Self {
            requested,
            address,
            listener,
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            requested: self.requested.clone(),
            address: self.address.clone(),
            listener: self.listener.try_clone()?,
        })
    }
}

/// The listening sockets of all addresses: the inherited ones where there are any, new ones for
/// the other addresses. A TCP address is opened once for every thread; a unix socket cannot be
/// spread, so the threads share it.
pub(crate) fn open_all(
    addresses: &[Address],
    threads: usize,
    group: Option<u32>,
    mut inherited: Vec<BoundSocket>,
) -> Result<Vec<BoundSocket>, ProxyError> {
    let mut sockets = Vec::new();
    for address in addresses {
        let (mine, others): (Vec<_>, Vec<_>) =
            inherited.into_iter().partition(|b| b.requested == *address);
        inherited = others;
        if !mine.is_empty() {
            sockets.extend(mine);
            continue;
        }
        let failed = |source| ProxyError::Listen {
            address: address.to_string(),
            source,
        };
        match address {
            Address::Tcp(requested) => {
                let mut bound = *requested;
                for _ in 0..threads {
                    let listener = open_tcp(bound).map_err(failed)?;
                    bound = listener.local_addr().map_err(failed)?;
                    sockets.push(BoundSocket {
                        requested: address.clone(),
                        address: Address::Tcp(bound),
                        listener: Listener::Tcp(listener),
                    });
                }
            }
            Address::Unix(path) => sockets.push(BoundSocket {
                requested: address.clone(),
                address: address.clone(),
                listener: Listener::Unix(open_shared(path, group).map_err(failed)?),
            }),
        }
    }
    for unwanted in inherited {
        let address = unwanted.address.to_string();
        tracing::warn!(address, "no longer listening on an earlier address");
    }
    Ok(sockets)
}

/// Refuses TCP addresses where another process listens: with `SO_REUSEPORT` opening one would
/// succeed, and the kernel would split the users between both.
pub(crate) fn refuse_in_use(addresses: &[Address]) -> Result<(), ProxyError> {
    for address in addresses {
        let Address::Tcp(requested) = address else {
            continue;
        };
        let free =
            socket(*requested).and_then(|free| bind(&free, requested).map_err(io::Error::from));
        match free {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(ProxyError::AddressInUse {
                    address: *requested,
                });
            }
            // Any other error occurs again, and is reported, when the address is opened.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The addresses that are bound, each once.
pub(crate) fn addresses(sockets: &[BoundSocket]) -> Vec<Address> {
    let mut addresses: Vec<_> = sockets.iter().map(|bound| bound.address.clone()).collect();
    addresses.dedup();
    addresses
}

/// Distributes the sockets over the threads: every socket to at least one thread, and every thread
/// at least one socket of each address.
pub(crate) fn distribute(
    sockets: &[BoundSocket],
    threads: usize,
) -> io::Result<Vec<Vec<Listener>>> {
    let mut workers: Vec<Vec<Listener>> = (0..threads).map(|_| Vec::new()).collect();
    for group in sockets.chunk_by(|a, b| a.requested == b.requested) {
        for index in 0..threads.max(group.len()) {
            let socket = &group[index % group.len()];
            workers[index % threads].push(socket.listener.try_clone()?);
        }
    }
    Ok(workers)
}

fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    set_socket_reuseport(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A socket that connections of an earlier process, which are ending, do not keep from its address.
fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

/// A socket file without a listener remains of a proxy that died, and is replaced.
pub(crate) fn open_unix(path: &std::path::Path) -> io::Result<UnixListener> {
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A unix socket for this user and one group: a client there is trusted, so no one else may
/// connect.
fn open_shared(path: &std::path::Path, group: Option<u32>) -> io::Result<UnixListener> {
    let listener = open_unix(path)?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// A unix socket for this user alone.
pub(crate) fn open_private(path: &std::path::Path) -> io::Result<UnixListener> {
    let listener = open_unix(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_where_somebody_listens_is_refused_whatever_that_one_shares() {
        let address = greenlight_ports::reserve_address().expect("a port is free");
        let address = Address::Tcp(address);
        let theirs = open_all(std::slice::from_ref(&address), 1, None, Vec::new());
        let theirs = theirs.expect("a free port");
        let taken = addresses(&theirs);

        let refused = refuse_in_use(&taken);
        assert!(
            matches!(refused, Err(ProxyError::AddressInUse { .. })),
            "{refused:?}"
        );
        drop(theirs);
        refuse_in_use(&taken).expect("no process listens any more");
    }

    #[test]
    fn every_socket_is_distributed_and_no_thread_goes_without() {
        let address: Address = "127.0.0.1:0".parse().expect("an address");
        for (opened_by, threads) in [(4, 1), (4, 3), (1, 4), (2, 2)] {
            let sockets = open_all(std::slice::from_ref(&address), opened_by, None, Vec::new());
            let sockets = sockets.expect("a free port");
            assert_eq!(sockets.len(), opened_by);
            let workers = distribute(&sockets, threads).expect("descriptors");
            assert!(workers.iter().all(|worker| !worker.is_empty()));
            let distributed: usize = workers.iter().map(Vec::len).sum();
            assert_eq!(distributed, opened_by.max(threads));
        }
    }
}
