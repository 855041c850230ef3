//! Connections to applications: a pool per thread, and the moment of the first written byte.

mod marker;

use crate::idle::Idle;
use crate::route_table::Upstream;
use crate::upload::RequestBody;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use marker::{MarkedIo, Stream};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;

pub(crate) use marker::Marker;

/// Nanoseconds on the monotonic clock.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock starts at zero");
    let nanos = u64::try_from(now.tv_nsec).expect("nanoseconds are not negative");
    seconds * 1_000_000_000 + nanos
}

/// One connection to an application, ready for a request.
pub(crate) struct Connection {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    pub(crate) marker: Arc<Marker>,
    /// The wait for an answer. It stays with the connection, so that a request does not cost a
    /// timer.
    pub(crate) idle: Idle,
    upstream: Upstream,
    task: AbortHandle,
}

/// The idle connections of one thread.
pub(crate) struct Pool {
    idle: RefCell<HashMap<Upstream, Vec<Connection>>>,
    max_idle: usize,
}

impl Pool {
    pub(crate) fn new(max_idle: usize) -> Self {
        Self {
            idle: RefCell::default(),
            max_idle,
        }
    }

    /// A connection that was used before and still seems good. The last one used comes first: it
    /// is the least likely to be closed by the application just now.
    pub(crate) fn take(&self, upstream: &Upstream) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(upstream)?;
        std::iter::from_fn(|| kept.pop()).find(Connection::is_ready)
    }

    /// Keeps a connection for the next request, if it can take one.
    pub(crate) fn put_back(&self, connection: Connection) {
        if !connection.is_ready() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if let Some(kept) = idle.get_mut(&connection.upstream) {
            if kept.len() < self.max_idle {
                kept.push(connection);
            }
        } else {
            idle.insert(connection.upstream.clone(), vec![connection]);
        }
    }

    /// Closes every idle connection.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}

/// Whether a connection could not be opened because this process, or the machine, has no
/// descriptor left. It says nothing about the application.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

impl Connection {
    pub(crate) async fn open(upstream: &Upstream, idle_timeout: Duration) -> io::Result<Self> {
        let stream = match upstream {
            Upstream::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Upstream::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        };
        let marker = Arc::new(Marker::default());
        let io = TokioIo::new(MarkedIo::new(stream, marker.clone()));
        let (sender, connection) = http1::Builder::new()
            .writev(false)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        let watched = marker.clone();
        let task = tokio::task::spawn_local(async move {
            // Its error reaches whoever waits for the answer.
            let _ = connection.with_upgrades().await;
            watched.disarm();
        });
        let mut opened = Self {
            sender,
            marker,
            idle: Idle::new(idle_timeout),
            upstream: upstream.clone(),
            task: task.abort_handle(),
        };
        // The task has to run once before it takes a request.
        opened.sender.ready().await.map_err(io::Error::other)?;
        Ok(opened)
    }

    /// Closes the connection at once, whatever it is doing.
    pub(crate) fn abort(self) {
        self.task.abort();
    }

    fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }
}
