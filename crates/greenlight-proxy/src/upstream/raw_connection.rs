//! A connection that the fast path speaks HTTP on.

use super::Connection;
use crate::route_table::Upstream;
use crate::socket::Socket;
use crate::thread::ThreadContext;
use std::io;
use std::task::{Context, Poll};

/// A connection that the fast path speaks HTTP on.
pub(crate) struct RawConnection {
    pub(crate) socket: Socket,
    upstream: Upstream,
}

impl Connection for RawConnection {
    async fn open(upstream: &Upstream, _: &ThreadContext) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::connect(upstream).await?,
            upstream: upstream.clone(),
        })
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Between two requests nothing is due: what comes is an end, or nothing that anyone asked
    /// for. A system call is made only if something did come.
    fn is_good(&self) -> bool {
        let read = self.socket.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn poll_spoiled(&self, cx: &mut Context<'_>) -> Poll<()> {
        while self.socket.poll_read_ready(cx).is_ready() {
            if !self.is_good() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
