//! Connections to applications: a pool per thread, and the moment of the first written byte.

use crate::body::RequestBody;
use crate::gate::Admission;
use crate::route_table::Upstream;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::net::{TcpStream, UnixStream};

/// Nanoseconds on the monotonic clock.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock starts at zero");
    let nanos = u64::try_from(now.tv_nsec).expect("nanoseconds are not negative");
    seconds * 1_000_000_000 + nanos
}

/// The request that a connection is being given, seen from the connection's writes.
///
/// It never leaves its thread, but hyper asks for `Send` because of upgrades: hence the lock,
/// which nobody ever waits for, and the flag that spares it on all writes but the first.
#[derive(Default)]
pub(crate) struct Marker {
    armed: AtomicBool,
    admission: Mutex<Option<Admission>>,
    written: AtomicBool,
}

impl Marker {
    /// A request is about to be written.
    pub(crate) fn arm(&self, admission: Admission) {
        self.written.store(false, Relaxed);
        *self.slot() = Some(admission);
        self.armed.store(true, Relaxed);
    }

    /// Whether anything of the request was written.
    pub(crate) fn was_written(&self) -> bool {
        self.written.load(Relaxed)
    }

    /// Nothing more of the request will be written.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Relaxed);
        self.slot().take();
    }

    fn note_write(&self) {
        if !self.armed.load(Relaxed) {
            return;
        }
        self.armed.store(false, Relaxed);
        if let Some(admission) = self.slot().take() {
            self.written.store(true, Relaxed);
            admission.written(monotonic_ns());
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Admission>> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection to an application, ready for a request.
pub(crate) struct Connection {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    pub(crate) marker: Arc<Marker>,
    upstream: Upstream,
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

    /// A connection that was used before and still seems good, or a new one.
    pub(crate) async fn get(&self, upstream: &Upstream) -> io::Result<Connection> {
        while let Some(mut connection) = self.take(upstream) {
            if !connection.sender.is_closed() && connection.sender.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        Connection::open(upstream).await
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put_back(&self, connection: Connection) {
        if connection.sender.is_closed() {
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

    fn take(&self, upstream: &Upstream) -> Option<Connection> {
        self.idle.borrow_mut().get_mut(upstream)?.pop()
    }
}

impl Connection {
    async fn open(upstream: &Upstream) -> io::Result<Self> {
        let marker = Arc::new(Marker::default());
        let stream = match upstream {
            Upstream::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(TokioIo::new(stream))
            }
            Upstream::Unix(path) => Stream::Unix(TokioIo::new(UnixStream::connect(path).await?)),
        };
        let io = MarkedIo {
            stream,
            marker: marker.clone(),
            broken: false,
        };
        let (sender, connection) = http1::Builder::new()
            .writev(false)
            .preserve_header_case(false)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        let watched = marker.clone();
        tokio::task::spawn_local(async move {
            // Its error reaches whoever waits for the answer.
            let _ = connection.with_upgrades().await;
            watched.disarm();
        });
        Ok(Self {
            sender,
            marker,
            upstream: upstream.clone(),
        })
    }
}

enum Stream {
    Tcp(TokioIo<TcpStream>),
    Unix(TokioIo<UnixStream>),
}

/// A stream that tells its marker of the first write of a request.
///
/// An application may answer and close before it has read the whole body. Writing on then fails,
/// but the answer is there to be read: once something of the request was written, failing writes
/// are swallowed, and the reading side finds out how it ended.
struct MarkedIo {
    stream: Stream,
    marker: Arc<Marker>,
    broken: bool,
}

impl Read for MarkedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Unix(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl Write for MarkedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = match &mut self.stream {
            Stream::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Stream::Unix(io) => Pin::new(io).poll_write(cx, buf),
        };
        match &polled {
            Poll::Ready(Ok(n)) if *n > 0 => {
                self.marker.note_write();
                polled
            }
            Poll::Ready(Err(_)) if self.marker.was_written() => {
                self.broken = true;
                Poll::Ready(Ok(buf.len()))
            }
            Poll::Ready(_) | Poll::Pending => polled,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Tcp(io) => Pin::new(io).poll_flush(cx),
            Stream::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Stream::Unix(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
