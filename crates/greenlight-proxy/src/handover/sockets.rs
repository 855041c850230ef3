//! All listening sockets of a proxy, wherever they come from.

use super::Offered;
use crate::address::Address;
use crate::downstream::activation;
use crate::downstream::listener::{BoundSocket, Listener, open_all, open_private, refuse_in_use};
use crate::error::ProxyError;
use crate::options::ProxyOptions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;

/// All listening sockets of a proxy.
pub(crate) struct Sockets {
    pub(crate) admin: UnixListener,
    pub(crate) status: Option<StatusSocket>,
    pub(crate) users: Vec<BoundSocket>,
}

/// The separate address for status, metrics and health.
pub(crate) struct StatusSocket {
    pub(crate) requested: SocketAddr,
    pub(crate) socket: TcpListener,
}

impl Sockets {
    /// Opens what was neither inherited nor passed by the service manager.
    pub(crate) fn open(
        options: &ProxyOptions,
        inherited: Option<Self>,
    ) -> Result<Self, ProxyError> {
        let succeeds = inherited.is_some();
        let (admin, status, users) = if let Some(inherited) = inherited {
            (Some(inherited.admin), inherited.status, inherited.users)
        } else {
            let mut passed = activation::take_all()?;
            let status = StatusSocket::passed(options.status, &mut passed);
            (None, status, passed)
        };
        ProxyError::need_folder(&options.admin, "--admin")?;
        let admin = match admin {
            Some(admin) => admin,
            None => open_private(&options.admin).map_err(|source| {
                let path = options.admin.clone();
                if source.kind() == io::ErrorKind::AddrInUse {
                    return ProxyError::AdminInUse { path };
                }
                let address = path.display().to_string();
                ProxyError::Listen { address, source }
            })?,
        };
        // The predecessor still listens, perhaps at more addresses than it passed on.
        if !succeeds {
            let opened = |address: &Address| users.iter().any(|user| user.requested == *address);
            let own: Vec<_> = options
                .listen
                .iter()
                .filter(|a| !opened(a))
                .cloned()
                .collect();
            refuse_in_use(&own)?;
        }
        let status = status.filter(|status| Some(status.requested) == options.status);
        let status = match (status, options.status) {
            (Some(status), _) => Some(status),
            (None, Some(requested)) => Some(StatusSocket::open(requested)?),
            (None, None) => None,
        };
        Ok(Self {
            admin,
            status,
            users: open_all(
                &options.listen,
                options.threads.max(1),
                options.socket_group,
                users,
            )?,
        })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let status = self.status.as_ref().map(StatusSocket::try_clone);
        let users = self.users.iter().map(BoundSocket::try_clone);
        Ok(Self {
            admin: self.admin.try_clone()?,
            status: status.transpose()?,
            users: users.collect::<io::Result<_>>()?,
        })
    }

    /// Every socket, and what it is for.
    pub(super) fn each(&self) -> Vec<(Offered, BorrowedFd<'_>)> {
        let mut each = vec![(Offered::Admin, self.admin.as_fd())];
        if let Some(StatusSocket { requested, socket }) = &self.status {
            each.push((
                Offered::Status {
                    requested: *requested,
                },
                socket.as_fd(),
            ));
        }
        for bound in &self.users {
            let (requested, address) = (bound.requested.clone(), bound.address.clone());
            each.push((
                Offered::Users { requested, address },
                bound.listener.as_fd(),
            ));
        }
        each
    }
}

impl StatusSocket {
    /// The one that the service manager passed.
    fn passed(requested: Option<SocketAddr>, passed: &mut Vec<BoundSocket>) -> Option<Self> {
        let requested = requested?;
        let mut bound = activation::take_at(passed, requested).into_iter();
        match bound.next()?.listener {
            Listener::Tcp(socket) => Some(Self { requested, socket }),
            Listener::Unix(_) => None,
        }
    }

    fn open(requested: SocketAddr) -> Result<Self, ProxyError> {
        let listening = TcpListener::bind(requested).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(Self { requested, socket })
        });
        listening.map_err(|source| ProxyError::Listen {
            address: requested.to_string(),
            source,
        })
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            requested: self.requested,
            socket: self.socket.try_clone()?,
        })
    }
}
