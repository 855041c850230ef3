//! A connection that notes when its bytes went out and came in.
//!
//! What a user experiences begins when the request is on the wire and not when it was planned, and
//! ends when the answer is there and not when a task gets to read it. So both times are taken at
//! the socket, around the system call. The kernel's own time stamps would leave out how late this
//! thread is woken; reading them needs code that this program forbids itself, so the load measures
//! how late it is instead and says so.

use greenlight_shell::clock::monotonic_ns;
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// When the bytes of the latest request and its answer passed the socket.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    /// When the request's first bytes had been written.
    pub(super) sent_ns: Cell<Option<u64>>,
    /// When the answer's first bytes had been read.
    pub(super) received_ns: Cell<Option<u64>>,
}

impl Stamps {
    /// Another request begins.
    pub(super) fn reset(&self) {
        self.sent_ns.set(None);
        self.received_ns.set(None);
    }
}

/// A connection with its stamps.
pub(super) struct Stamped {
    pub(super) stream: TcpStream,
    pub(super) stamps: Rc<Stamps>,
}

impl Stamped {
    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            note(&self.stamps.sent_ns);
        }
    }
}

/// The first time counts.
fn note(stamp: &Cell<Option<u64>>) {
    if stamp.get().is_none() {
        stamp.set(Some(monotonic_ns()));
    }
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        // An end of the stream is no answer; the connection says what it is.
        if buffer.filled().len() > before && self.stamps.sent_ns.get().is_some() {
            note(&self.stamps.received_ns);
        }
        read
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
