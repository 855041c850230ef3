//! The client's end of the fast path.

use crate::buffer::Buffer;
use crate::idle::Idle;
use crate::socket::Socket;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite as _;

/// A client and its bytes that are not parsed yet.
pub(super) struct Client {
    pub(super) socket: Socket,
    pub(super) unread: Buffer,
}

impl Client {
    /// Reads some more. Zero bytes are the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.unread.poll_fill(cx, &mut self.socket)
    }

    /// What a future brings, unless the client leaves before: `None`. A client that has sent more
    /// than there is room for cannot be seen to leave.
    pub(super) async fn unless_gone<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            while !self.unread.is_full() {
                match self.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                    Poll::Pending => break,
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Writes the first bytes of a buffer.
    pub(super) async fn write(
        &mut self,
        buffer: &mut Buffer,
        mut count: usize,
        idle: &mut Idle,
    ) -> io::Result<()> {
        idle.progressed();
        poll_fn(|cx| {
            while count > 0 {
                let bytes = &buffer.bytes()[..count];
                match Pin::new(&mut self.socket).poll_write(cx, bytes)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(written) => {
                        buffer.consume(written);
                        count -= written;
                        idle.progressed();
                    }
                    Poll::Pending => {
                        ready!(idle.poll_expired(cx));
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}
