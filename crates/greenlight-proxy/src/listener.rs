//! Listening sockets: one per thread and TCP address, so that the kernel spreads connections.

use crate::error::ProxyError;
use crate::headers::Trust;
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;

/// The kernel's queue of connections that nobody has accepted yet.
const BACKLOG: i32 = 4096;

/// Where users come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A unix socket, for another proxy on the same machine.
    Unix(PathBuf),
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| format!("`{text}` is neither `address:port` nor `unix:/path`"))
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

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
}

/// Opens every address once for every thread. A unix socket cannot be spread, so the threads
/// share it. Returns the addresses with their ports, and the listeners of each thread.
pub(crate) fn open_all(
    addresses: &[ListenAddr],
    threads: usize,
) -> Result<(Vec<ListenAddr>, Vec<Vec<Listener>>), ProxyError> {
    let mut bound = Vec::new();
    let mut per_thread: Vec<Vec<Listener>> = (0..threads).map(|_| Vec::new()).collect();
    for address in addresses {
        let failed = |source| ProxyError::Listen {
            address: address.to_string(),
            source,
        };
        match address {
            ListenAddr::Tcp(address) => {
                let mut address = *address;
                for listeners in &mut per_thread {
                    let listener = open_tcp(address).map_err(failed)?;
                    address = listener.local_addr().map_err(failed)?;
                    listeners.push(Listener::Tcp(listener));
                }
                bound.push(ListenAddr::Tcp(address));
            }
            ListenAddr::Unix(path) => {
                let listener = open_unix(path).map_err(failed)?;
                for listeners in &mut per_thread {
                    listeners.push(Listener::Unix(listener.try_clone().map_err(failed)?));
                }
                bound.push(ListenAddr::Unix(path.clone()));
            }
        }
    }
    Ok((bound, per_thread))
}

fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    set_socket_reuseaddr(&socket, true)?;
    set_socket_reuseport(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A socket file that nobody answers on is left over from a proxy that died: it is replaced.
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
