//! An exchange as the application's connection sees it: the first byte that goes, the first that
//! comes, and when anything went last.

use crate::clock::monotonic_ns;
use crate::gate::Admission;
use crate::socket::Socket;
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The request that a connection is being given.
///
/// It never leaves its thread, but hyper asks for `Send` because of upgrades: hence the lock,
/// which is never contended, and the flag that avoids it on all writes but the first.
#[derive(Default)]
pub(crate) struct FirstByteTracker {
    armed: AtomicBool,
    admission: Mutex<Option<Admission>>,
    written: AtomicBool,
    response_began: AtomicBool,
    last_write_ns: AtomicU64,
}

impl FirstByteTracker {
    /// A request is about to be written.
    pub(crate) fn arm(&self, admission: Admission) {
        self.written.store(false, Relaxed);
        self.response_began.store(false, Relaxed);
        *self.slot() = Some(admission);
        self.armed.store(true, Relaxed);
    }

    /// Whether anything of the request was written.
    pub(crate) fn was_written(&self) -> bool {
        self.written.load(Relaxed)
    }

    /// Whether anything of a response was read.
    pub(crate) fn response_began(&self) -> bool {
        self.response_began.load(Relaxed)
    }

    /// How long nothing was written.
    pub(crate) fn silence(&self) -> Duration {
        let last = self.last_write_ns.load(Relaxed);
        Duration::from_nanos(monotonic_ns().saturating_sub(last))
    }

    /// Nothing more of the request will be written.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Relaxed);
        self.slot().take();
    }

    fn note_write(&self) {
        let now = monotonic_ns();
        self.last_write_ns.store(now, Relaxed);
        if !self.armed.load(Relaxed) {
            return;
        }
        self.armed.store(false, Relaxed);
        if let Some(admission) = self.slot().take() {
            self.written.store(true, Relaxed);
            admission.written(now);
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Admission>> {
        self.admission.lock()
    }
}

/// A stream that reports its reads and writes to its tracker.
///
/// An application may answer and close before it has read the whole body. Writing on then fails,
/// but the response can still be read: once something of the request was written, failing writes
/// are swallowed, and the reading side finds out how it ended.
pub(super) struct TrackedIo {
    socket: Socket,
    tracker: Arc<FirstByteTracker>,
    broken: bool,
}

impl TrackedIo {
    pub(super) fn new(socket: Socket, tracker: Arc<FirstByteTracker>) -> Self {
        Self {
            socket,
            tracker,
            broken: false,
        }
    }
}

impl AsyncRead for TrackedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.tracker.response_began.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TrackedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, buf));
        match written {
            Ok(n) => {
                if n > 0 {
                    self.tracker.note_write();
                }
                Poll::Ready(Ok(n))
            }
            Err(_) if self.tracker.was_written() => {
                self.broken = true;
                Poll::Ready(Ok(buf.len()))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
