//! The client's side of a connection: interim answers in their place, and an end to clients that
//! stop reading.
//!
//! hyper's server has no way to send a `103 Early Hints`, which a proxy must pass on (RFC 9110
//! section 15.2). They are put between the answers here: when hyper has flushed everything of its
//! own, the stream stands between two messages, and an interim answer may be written.

use crate::idle::Idle;
use crate::socket::Socket;
use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of interim answers that may wait to be written; more are dropped, as they may be.
const MAX_WAITING: usize = 64 * 1024;

/// Interim answers on their way to one client.
///
/// Everything happens on one thread, but hyper asks for `Send`: hence the lock, which nobody ever
/// waits for, and the flag that spares it.
#[derive(Default)]
pub(crate) struct Interim {
    waiting: AtomicBool,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
    /// Wakes the connection's task, which flushes.
    waker: Option<Waker>,
}

impl Interim {
    /// Adds an answer, as it is to be written.
    pub(crate) fn push(&self, answer: &[u8]) {
        let mut answers = self.answers();
        if answers.bytes.len() + answer.len() <= MAX_WAITING {
            answers.bytes.extend_from_slice(answer);
            self.waiting.store(true, Relaxed);
            if let Some(waker) = answers.waker.take() {
                waker.wake();
            }
        }
    }

    /// Wakes the task of the connection when an answer comes, so that it is flushed.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut answers = self.answers();
        match &mut answers.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn discard(&self) {
        self.answers().bytes.clear();
        self.waiting.store(false, Relaxed);
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's stream.
pub(crate) struct ClientIo {
    socket: Socket,
    /// What was read before hyper took over.
    front: Bytes,
    interim: Arc<Interim>,
    /// hyper has written something that it has not flushed yet.
    mid_message: bool,
    idle: Idle,
}

impl ClientIo {
    /// A stream whose writes may make no progress for `limit`.
    pub(crate) fn new(
        socket: Socket,
        front: Bytes,
        interim: Arc<Interim>,
        limit: Duration,
    ) -> Self {
        Self {
            socket,
            front,
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
            // The answer before is not read yet; by then the final answer may be behind it.
            interim.discard();
            return Poll::Ready(Ok(()));
        }
        let mut answers = interim.answers();
        while !answers.bytes.is_empty() {
            let written = ready!(self.poll_write_some(cx, &answers.bytes))?;
            answers.bytes.drain(..written);
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
        if self.front.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let count = self.front.len().min(buf.remaining());
        buf.put_slice(&self.front.split_to(count));
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
