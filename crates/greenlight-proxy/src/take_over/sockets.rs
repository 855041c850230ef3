//! All listening sockets of a proxy, wherever they come from.

use super::Offered;
use crate::activation;
use crate::error::ProxyError;
use crate::listener::{Bound, ListenAddr, Listener, open_all, open_private, refuse_taken};
use crate::proxy::ProxyOptions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;

/// All listening sockets of a proxy.
pub(crate) struct Sockets {
    pub(crate) admin: UnixListener,
    pub(crate) status: Option<StatusSocket>,
    pub(crate) users: Vec<Bound>,
}

/// The separate address for status, metrics and health.
pub(crate) struct StatusSocket {
    pub(crate) asked: SocketAddr,
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
        // Whoever is succeeded listens still, perhaps at more than it passed on.
        if !succeeds {
            let opened = |address: &ListenAddr| users.iter().any(|user| user.asked == *address);
            let own: Vec<_> = options
                .listen
                .iter()
                .filter(|a| !opened(a))
                .cloned()
                .collect();
            refuse_taken(&own)?;
        }
        let status = status.filter(|status| Some(status.asked) == options.status);
        let status = match (status, options.status) {
            (Some(status), _) => Some(status),
            (None, Some(asked)) => Some(StatusSocket::open(asked)?),
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
        let users = self.users.iter().map(Bound::try_clone);
        Ok(Self {
            admin: self.admin.try_clone()?,
            status: status.transpose()?,
            users: users.collect::<io::Result<_>>()?,
        })
    }

    /// Every socket, and what it is for.
    pub(super) fn each(&self) -> Vec<(Offered, BorrowedFd<'_>)> {
        let mut each = vec![(Offered::Admin, self.admin.as_fd())];
        if let Some(StatusSocket { asked, socket }) = &self.status {
            each.push((Offered::Status { asked: *asked }, socket.as_fd()));
        }
        for bound in &self.users {
            let (asked, taken) = (bound.asked.clone(), bound.taken.clone());
            each.push((Offered::Users { asked, taken }, bound.listener.as_fd()));
        }
        each
    }
}

impl StatusSocket {
    /// The one that the service manager passed.
    fn passed(asked: Option<SocketAddr>, passed: &mut Vec<Bound>) -> Option<Self> {
        let asked = asked?;
        let mut bound = activation::take_at(passed, asked).into_iter();
        match bound.next()?.listener {
            Listener::Tcp(socket) => Some(Self { asked, socket }),
            Listener::Unix(_) => None,
        }
    }

    fn open(asked: SocketAddr) -> Result<Self, ProxyError> {
        let listening = TcpListener::bind(asked).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(Self { asked, socket })
        });
        listening.map_err(|source| ProxyError::Listen {
            address: asked.to_string(),
            source,
        })
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            asked: self.asked,
            socket: self.socket.try_clone()?,
        })
    }
}
