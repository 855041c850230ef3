//! A connection that the fast path speaks HTTP on.

use super::pool::Connection;
use crate::address::Address;
use crate::socket::Socket;
use std::io;
use std::task::{Context, Poll};

/// A connection that the fast path speaks HTTP on.
pub(crate) struct RawConnection {
    pub(crate) socket: Socket,
    upstream: Address,
}

impl RawConnection {
    pub(crate) async fn open(upstream: &Address) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::connect(upstream).await?,
            upstream: upstream.clone(),
        })
    }
}

impl Connection for RawConnection {
    fn upstream(&self) -> &Address {
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
