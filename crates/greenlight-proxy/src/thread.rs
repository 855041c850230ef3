//! One thread of the data plane: its listeners, its connections, its pool.

use crate::client_io::{ClientIo, InterimResponses};
use crate::grace_period::GracePeriod;
use crate::headers::{ClientInfo, Trust};
use crate::http1::{Buffers, Date, FastPath, Parts, buffers};
use crate::lazy_timer::LazyTimer;
use crate::limits::Limits;
use crate::listener::Listener;
use crate::proxy::Shared;
use crate::request::Client;
use crate::serve::serve;
use crate::socket::Socket;
use crate::upstream::{HyperConnection, Pool, RawConnection};
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The pause after `accept` failed, for example because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// hyper takes no smaller one.
const SMALLEST_BUFFER: usize = 8192;

/// What the tasks of one thread share.
pub(crate) struct ThreadContext {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Limits,
    /// Connections that hyper speaks on.
    pub(crate) pool: Rc<Pool<HyperConnection>>,
    /// Connections that the fast path speaks on.
    pub(crate) raw_pool: Rc<Pool<RawConnection>>,
    pub(crate) small_buffers: Rc<Buffers>,
    pub(crate) large_buffers: Rc<Buffers>,
    /// For a head that is being written.
    pub(crate) scratch: RefCell<Vec<u8>>,
    pub(crate) date: Date,
    held: Cell<usize>,
    out_of_fds: Cell<usize>,
    bound_crossed: Notify,
    /// Connections of clients, tunnels included.
    connections: Cell<usize>,
    connection_closed: Notify,
    /// The response to a client's next request closes its connection.
    pub(crate) closing: Cell<bool>,
}

/// A client's connection or tunnel; the thread does not end before it.
pub(crate) struct ConnectionGuard(Rc<ThreadContext>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.connection_closed.notify_waiters();
    }
}

/// The permit of a held request; past the bound the thread stops accepting.
pub(crate) struct HeldPermit<'a>(&'a ThreadContext);

impl Drop for HeldPermit<'_> {
    fn drop(&mut self) {
        self.0.count(&self.0.held, self.0.held.get() - 1);
    }
}

/// The permit of a request that waits for a descriptor. The thread accepts nothing meanwhile:
/// otherwise new connections would take each descriptor that is given back.
pub(crate) struct FdPermit<'a>(&'a ThreadContext);

impl Drop for FdPermit<'_> {
    fn drop(&mut self) {
        self.0
            .count(&self.0.out_of_fds, self.0.out_of_fds.get() - 1);
    }
}

/// What the thread does with connections. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lifecycle {
    /// Accept nothing yet.
    Starting,
    Serving,
    /// A successor accepts. Every connection continues until the response to its next request,
    /// which closes it; end when nothing is left.
    HandedOver,
    /// Accept nothing more; answer open requests, close idle connections; end when nothing is left,
    /// or the time for that is over.
    Draining,
}

impl ThreadContext {
    pub(crate) fn new(shared: Arc<Shared>, limits: Limits) -> Self {
        let (small_buffers, large_buffers) = buffers();
        Self {
            shared,
            limits,
            pool: Rc::new(Pool::new(limits.max_idle)),
            raw_pool: Rc::new(Pool::new(limits.max_idle)),
            small_buffers,
            large_buffers,
            scratch: RefCell::default(),
            date: Date::default(),
            held: Cell::new(0),
            out_of_fds: Cell::new(0),
            bound_crossed: Notify::new(),
            connections: Cell::new(0),
            connection_closed: Notify::new(),
            closing: Cell::new(false),
        }
    }

    pub(crate) fn held_permit(&self) -> HeldPermit<'_> {
        self.count(&self.held, self.held.get() + 1);
        HeldPermit(self)
    }

    pub(crate) fn fd_permit(&self) -> FdPermit<'_> {
        self.count(&self.out_of_fds, self.out_of_fds.get() + 1);
        FdPermit(self)
    }

    /// Closes every idle connection to an application.
    pub(crate) fn close_idle(&self) {
        self.pool.clear();
        self.raw_pool.clear();
    }

    pub(crate) fn connection_guard(self: &Rc<Self>) -> ConnectionGuard {
        self.connections.set(self.connections.get() + 1);
        ConnectionGuard(self.clone())
    }

    fn count(&self, permits: &Cell<usize>, taken: usize) {
        let was_full = self.is_full();
        permits.set(taken);
        if was_full != self.is_full() {
            self.bound_crossed.notify_waiters();
        }
    }

    /// Whether to leave connections in the kernel's queue.
    fn is_full(&self) -> bool {
        self.held.get() >= self.limits.max_held || self.out_of_fds.get() > 0
    }

    /// Runs until it is draining and nothing is left.
    pub(crate) async fn run(
        self: Rc<Self>,
        listeners: Vec<Listener>,
        mut lifecycle: watch::Receiver<Lifecycle>,
    ) {
        let pool = self.raw_pool.clone();
        tokio::task::spawn_local(async move { pool.sweep().await });
        let mut accepting = Vec::new();
        for listener in listeners {
            let (thread, lifecycle) = (self.clone(), lifecycle.clone());
            accepting.push(tokio::task::spawn_local(thread.accept(listener, lifecycle)));
        }
        for task in accepting {
            // A task that panicked drops its listener; the others continue.
            let _ = task.await;
        }
        self.closing.set(true);
        let nothing_left = async {
            while self.connections.get() > 0 {
                self.connection_closed.notified().await;
            }
        };
        let limit = async {
            // Its sender lives as long as the proxy.
            let _ = lifecycle
                .wait_for(|lifecycle| *lifecycle == Lifecycle::Draining)
                .await;
            tokio::time::sleep(self.limits.stop_timeout).await;
        };
        tokio::select! {
            () = nothing_left => {}
            () = limit => {
                let left = self.connections.get();
                tracing::warn!(left, "connections were still open when the time to stop was over");
            }
        }
    }

    async fn accept(self: Rc<Self>, listener: Listener, mut lifecycle: watch::Receiver<Lifecycle>) {
        let trust = listener.trust();
        let accepted = match listener {
            Listener::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Accept::Tcp),
            Listener::Unix(listener) => {
                tokio::net::UnixListener::from_std(listener).map(Accept::Unix)
            }
        };
        let seen = lifecycle.clone();
        let listener = match accepted {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a listener cannot be used");
                return;
            }
        };
        // The sender lives as long as the proxy.
        let _ = lifecycle
            .wait_for(|lifecycle| *lifecycle > Lifecycle::Starting)
            .await;
        let mut failing = false;
        loop {
            let is_full = self.is_full();
            tokio::select! {
                biased;
                _ = lifecycle.wait_for(|lifecycle| *lifecycle > Lifecycle::Serving) => return,
                // Crossing the bound in either direction changes what is waited for.
                () = self.bound_crossed.notified() => {}
                accepted = listener.accept(), if !is_full => match accepted {
                    Ok((stream, address)) => {
                        failing = false;
                        self.clone().connect(stream, address, trust, &seen);
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(%error, "connections cannot be accepted");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn connect(
        self: Rc<Self>,
        socket: Socket,
        address: Option<IpAddr>,
        trust: Trust,
        lifecycle: &watch::Receiver<Lifecycle>,
    ) {
        let client_info = ClientInfo::new(address, trust);
        let lifecycle = lifecycle.clone();
        let guard = self.connection_guard();
        tokio::task::spawn_local(async move {
            self.serve_connection(socket, client_info, lifecycle).await;
            drop(guard);
        });
    }

    async fn serve_connection(
        self: &Rc<Self>,
        socket: Socket,
        client_info: ClientInfo,
        mut lifecycle: watch::Receiver<Lifecycle>,
    ) {
        let grace_period = GracePeriod::default();
        let mut draining = pin!(async {
            // The sender lives as long as the proxy: an error cannot come first.
            let _ = lifecycle
                .wait_for(|lifecycle| *lifecycle == Lifecycle::Draining)
                .await;
            grace_period.over().await;
        });
        let fast_path = FastPath::new(self, &client_info, &grace_period, socket);
        if let Some(parts) = fast_path.run(draining.as_mut()).await {
            grace_period.request_arrived();
            // Most connections never come here, and need not be as large.
            Box::pin(self.serve_with_hyper(parts, client_info, draining)).await;
        }
    }

    async fn serve_with_hyper(
        self: &Rc<Self>,
        parts: Parts,
        client_info: ClientInfo,
        draining: Pin<&mut impl Future>,
    ) {
        let client = Client {
            info: client_info,
            interim: Arc::new(InterimResponses::default()),
        };
        let io = ClientIo::new(
            parts.socket,
            parts.read_buf,
            client.interim.clone(),
            self.limits.idle_timeout,
        );
        let (thread, client) = (self, &client);
        let service = service_fn(|request| async move {
            let mut response = serve(thread, client, request).await;
            if thread.closing.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        });
        // No half close: a client that is gone must not reach the application, and one that has
        // only stopped writing looks the same.
        let connection = http1::Builder::new()
            .writev(false)
            .timer(LazyTimer::default())
            .header_read_timeout(self.limits.header_timeout)
            .max_header_size(self.limits.max_head)
            .max_buf_size(self.limits.max_head.max(SMALLEST_BUFFER))
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            // Errors when a client closes its connection are ignored.
            _ = &mut connection => return,
            _ = draining => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

enum Accept {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Accept {
    async fn accept(&self) -> io::Result<(Socket, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Latency matters more than the number of packets.
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Some(address.ip())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), None))
            }
        }
    }
}
