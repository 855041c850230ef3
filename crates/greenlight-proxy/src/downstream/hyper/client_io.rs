//! The client's side of a connection: interim responses in their place, and an end to clients that
//! stop reading.
//!
//! hyper's server has no way to send a `103 Early Hints`, which a proxy must pass on (RFC 9110
//! section 15.2). They are put between the responses here: when hyper has flushed everything of its
//! own, the stream is between two messages, and an interim response may be written.

use crate::idle::Idle;
use crate::socket::Socket;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of interim responses that may wait to be written; more are dropped, as they may be.
const MAX_WAITING: usize = 64 * 1024;

/// Interim responses on their way to one client.
///
/// Everything happens on one thread, but hyper requires `Send`: hence the lock, which is never
/// waits for, and the flag that spares it.
#[derive(Default)]
pub(crate) struct InterimResponses {
    waiting: AtomicBool,
    responses: Mutex<Responses>,
}

#[derive(Default)]
struct Responses {
    bytes: Vec<u8>,
    /// Wakes the connection's task, which flushes.
    waker: Option<Waker>,
}

impl InterimResponses {
    /// Adds a response in its wire form.
    pub(crate) fn push(&self, response: &[u8]) {
        let mut responses = self.responses();
        if responses.bytes.len() + response.len() <= MAX_WAITING {
            responses.bytes.extend_from_slice(response);
            self.waiting.store(true, Relaxed);
            if let Some(waker) = responses.waker.take() {
                waker.wake();
            }
        }
    }

    /// Wakes the task of the connection when a response comes, so that it is flushed.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut responses = self.responses();
        match &mut responses.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn discard(&self) {
        self.responses().bytes.clear();
        self.waiting.store(false, Relaxed);
    }

    fn responses(&self) -> MutexGuard<'_, Responses> {
        self.responses.lock()
    }
}

/// A client's stream.
pub(crate) struct ClientIo {
    socket: Socket,
    /// What was read before hyper took over.
    read_buf: Bytes,
    interim: Arc<InterimResponses>,
    /// hyper has written something that it has not flushed yet.
    mid_message: bool,
    idle: Idle,
}

impl ClientIo {
    /// A stream whose writes may make no progress for `limit`.
    pub(crate) fn new(
        socket: Socket,
        read_buf: Bytes,
        interim: Arc<InterimResponses>,
        limit: Duration,
    ) -> Self {
        Self {
            socket,
            read_buf,
            interim,
            mid_message: false,
            idle: Idle::new(limit),
        }
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        if polled.is_ready() {
            self.idle.progressed();
            return polled;
        }
        self.idle
            .poll_expired(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let interim = self.interim.clone();
        if self.mid_message {
            // The response before is not read yet; by then the final response may be behind it.
            interim.discard();
            return Poll::Ready(Ok(()));
        }
        let mut responses = interim.responses();
        while !responses.bytes.is_empty() {
            let written = ready!(self.poll_write_some(cx, &responses.bytes))?;
            responses.bytes.drain(..written);
        }
        interim.waiting.store(false, Relaxed);
        Poll::Ready(Ok(()))
    }

    fn has_interim(&self) -> bool {
        self.interim.waiting.load(Relaxed)
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_buf.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let count = self.read_buf.len().min(buf.remaining());
        buf.put_slice(&self.read_buf.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.has_interim() {
            ready!(self.poll_interim(cx))?;
        }
        let written = ready!(self.poll_write_some(cx, buf))?;
        self.mid_message = true;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mid_message = false;
        if self.has_interim() {
            ready!(self.poll_interim(cx))?;
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
