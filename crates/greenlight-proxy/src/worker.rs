//! One thread of the data plane: its listeners, its connections, its pool.

use crate::client_io::{ClientIo, Interim};
use crate::first_request::FirstRequest;
use crate::headers::{Asker, Trust};
use crate::lazy_timer::LazyTimer;
use crate::limits::Limits;
use crate::listener::Listener;
use crate::proxy::Shared;
use crate::relay::{Buffers, Date, Relay, Rest, buffers};
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
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Limits,
    /// Connections that hyper speaks on.
    pub(crate) pool: Rc<Pool<HyperConnection>>,
    /// Connections that the relay speaks on.
    pub(crate) raw_pool: Rc<Pool<RawConnection>>,
    pub(crate) small_buffers: Rc<Buffers>,
    pub(crate) large_buffers: Rc<Buffers>,
    /// For a head that is being written.
    pub(crate) scratch: RefCell<Vec<u8>>,
    pub(crate) date: Date,
    held: Cell<usize>,
    starving: Cell<usize>,
    bound_crossed: Notify,
    /// Connections of clients, tunnels included.
    conversations: Cell<usize>,
    fewer_conversations: Notify,
    /// The answer to a client's next request closes its connection.
    pub(crate) closing: Cell<bool>,
}

/// A client's connection or tunnel; the thread does not end before it.
pub(crate) struct Conversation(Rc<Worker>);

impl Drop for Conversation {
    fn drop(&mut self) {
        self.0.conversations.set(self.0.conversations.get() - 1);
        self.0.fewer_conversations.notify_waiters();
    }
}

/// A held request's place; past the bound the thread stops accepting.
pub(crate) struct HeldPlace<'a>(&'a Worker);

impl Drop for HeldPlace<'_> {
    fn drop(&mut self) {
        self.0.count(&self.0.held, self.0.held.get() - 1);
    }
}

/// The place of a request that waits for a descriptor. The thread accepts nothing meanwhile: who
/// is in comes first, or newcomers would take each descriptor that is given back.
pub(crate) struct StarvingPlace<'a>(&'a Worker);

impl Drop for StarvingPlace<'_> {
    fn drop(&mut self) {
        self.0.count(&self.0.starving, self.0.starving.get() - 1);
    }
}

/// What the thread does with connections. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Accept nothing yet.
    Starting,
    Serving,
    /// A successor accepts. Let every connection go on until the answer to its next request,
    /// which closes it; end when nothing is left.
    HandedOver,
    /// Accept nothing more; answer what is there, close what is idle; end when nothing is left,
    /// or the time for that is over.
    Leaving,
}

impl Worker {
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
            starving: Cell::new(0),
            bound_crossed: Notify::new(),
            conversations: Cell::new(0),
            fewer_conversations: Notify::new(),
            closing: Cell::new(false),
        }
    }

    pub(crate) fn hold_place(&self) -> HeldPlace<'_> {
        self.count(&self.held, self.held.get() + 1);
        HeldPlace(self)
    }

    pub(crate) fn starving_place(&self) -> StarvingPlace<'_> {
        self.count(&self.starving, self.starving.get() + 1);
        StarvingPlace(self)
    }

    /// Closes every connection to an application that nobody uses.
    pub(crate) fn close_idle(&self) {
        self.pool.clear();
        self.raw_pool.clear();
    }

    pub(crate) fn conversation(self: &Rc<Self>) -> Conversation {
        self.conversations.set(self.conversations.get() + 1);
        Conversation(self.clone())
    }

    fn count(&self, places: &Cell<usize>, taken: usize) {
        let was_full = self.is_full();
        places.set(taken);
        if was_full != self.is_full() {
            self.bound_crossed.notify_waiters();
        }
    }

    /// Whether to leave connections in the kernel's queue.
    fn is_full(&self) -> bool {
        self.held.get() >= self.limits.max_held || self.starving.get() > 0
    }

    /// Runs until told to leave and nothing is left.
    pub(crate) async fn run(
        self: Rc<Self>,
        listeners: Vec<Listener>,
        mut stage: watch::Receiver<Stage>,
    ) {
        let pool = self.raw_pool.clone();
        tokio::task::spawn_local(async move { pool.sweep().await });
        let mut accepting = Vec::new();
        for listener in listeners {
            let (worker, stage) = (self.clone(), stage.clone());
            accepting.push(tokio::task::spawn_local(worker.accept(listener, stage)));
        }
        for task in accepting {
            // A task that panicked takes its listener with it; the others go on.
            let _ = task.await;
        }
        self.closing.set(true);
        let nothing_left = async {
            while self.conversations.get() > 0 {
                self.fewer_conversations.notified().await;
            }
        };
        let limit = async {
            // Its sender lives as long as the proxy.
            let _ = stage.wait_for(|stage| *stage == Stage::Leaving).await;
            tokio::time::sleep(self.limits.stop_timeout).await;
        };
        tokio::select! {
            () = nothing_left => {}
            () = limit => {
                let left = self.conversations.get();
                tracing::warn!(left, "connections were still open when the time to stop was over");
            }
        }
    }

    async fn accept(self: Rc<Self>, listener: Listener, mut stage: watch::Receiver<Stage>) {
        let trust = listener.trust();
        let accepted = match listener {
            Listener::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Accept::Tcp),
            Listener::Unix(listener) => {
                tokio::net::UnixListener::from_std(listener).map(Accept::Unix)
            }
        };
        let seen = stage.clone();
        let listener = match accepted {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a listener cannot be used");
                return;
            }
        };
        // The sender lives as long as the proxy.
        let _ = stage.wait_for(|stage| *stage > Stage::Starting).await;
        let mut failing = false;
        loop {
            let is_full = self.is_full();
            tokio::select! {
                biased;
                _ = stage.wait_for(|stage| *stage > Stage::Serving) => return,
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
        stage: &watch::Receiver<Stage>,
    ) {
        let asker = Asker::new(address, trust);
        let stage = stage.clone();
        let conversation = self.conversation();
        tokio::task::spawn_local(async move {
            self.converse(socket, asker, stage).await;
            drop(conversation);
        });
    }

    async fn converse(
        self: &Rc<Self>,
        socket: Socket,
        asker: Asker,
        mut stage: watch::Receiver<Stage>,
    ) {
        let first = FirstRequest::default();
        let mut leaving = pin!(async {
            // The sender lives as long as the proxy: an error cannot come first.
            let _ = stage.wait_for(|stage| *stage == Stage::Leaving).await;
            first.in_a_moment().await;
        });
        let relay = Relay::new(self, &asker, &first, socket);
        if let Some(rest) = relay.run(leaving.as_mut()).await {
            first.note();
            // Most connections never come here, and need not be as large.
            Box::pin(self.converse_through_hyper(rest, asker, leaving)).await;
        }
    }

    async fn converse_through_hyper(
        self: &Rc<Self>,
        rest: Rest,
        asker: Asker,
        leaving: Pin<&mut impl Future>,
    ) {
        let client = Client {
            asker,
            interim: Arc::new(Interim::default()),
        };
        let io = ClientIo::new(
            rest.socket,
            rest.front,
            client.interim.clone(),
            self.limits.idle_timeout,
        );
        let (worker, client) = (self, &client);
        let service = service_fn(|request| async move {
            let mut response = serve(worker, client, request).await;
            if worker.closing.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
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
            // How a client's connection ends is the client's business.
            _ = &mut connection => return,
            _ = leaving => connection.as_mut().graceful_shutdown(),
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
