//! A connection that hyper speaks HTTP on, in a task of its own.

use super::first_byte::{FirstByteTracker, TrackedIo};
use super::pool::{Connection, Pool};
use super::raw_connection::RawConnection;
use super::upload::RequestBody;
use crate::address::Address;
use crate::idle::Idle;
use crate::socket::Socket;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::AbortHandle;

/// A connection that hyper speaks HTTP on.
pub(crate) struct HyperConnection {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    pub(crate) tracker: Arc<FirstByteTracker>,
    /// The wait for a response. It stays with the connection, so that a request does not cost a
    /// timer.
    pub(crate) idle: Idle,
    upstream: Address,
    task: AbortHandle,
}

impl HyperConnection {
    /// A new connection, over a socket of `spare` if there is one. `idle_timeout` bounds the wait
    /// for a response.
    pub(crate) async fn open(
        upstream: &Address,
        spare: &Pool<RawConnection>,
        idle_timeout: Duration,
    ) -> io::Result<Self> {
        // What the fast path has left over is as good as new.
        let socket = match spare.take(upstream) {
            Some(RawConnection { socket, .. }) => socket,
            None => Socket::connect(upstream).await?,
        };
        let tracker = Arc::new(FirstByteTracker::default());
        let io = TokioIo::new(TrackedIo::new(socket, tracker.clone()));
        let (sender, connection) = http1::Builder::new()
            .writev(false)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        let watched = tracker.clone();
        let task = tokio::task::spawn_local(async move {
            // Its error reaches the task that waits for the response.
            let _ = connection.with_upgrades().await;
            watched.disarm();
        });
        let mut opened = Self {
            sender,
            tracker,
            idle: Idle::new(idle_timeout),
            upstream: upstream.clone(),
            task: task.abort_handle(),
        };
        // The task has to run once before it takes a request.
        opened.sender.ready().await.map_err(io::Error::other)?;
        Ok(opened)
    }

    /// Closes the connection at once.
    pub(crate) fn abort(self) {
        self.task.abort();
    }
}

impl Connection for HyperConnection {
    fn upstream(&self) -> &Address {
        &self.upstream
    }

    fn is_good(&self) -> bool {
        self.sender.is_ready()
    }

    /// Its task closes it, so no waker is needed.
    fn poll_spoiled(&self, _: &mut Context<'_>) -> Poll<()> {
        match self.is_good() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}
