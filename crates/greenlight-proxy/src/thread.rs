//! What the tasks of one thread share: pools, buffers, limits, and who waits for what.

use crate::buffer::{Buffers, buffers};
use crate::date::Date;
use crate::limits::Limits;
use crate::routing::SharedTable;
use crate::upstream::{HyperConnection, Pool, RawConnection};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What the tasks of one thread share.
pub(crate) struct ThreadContext {
    pub(crate) table: Arc<SharedTable>,
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

impl ThreadContext {
    pub(crate) fn new(table: Arc<SharedTable>, limits: Limits) -> Self {
        let (small_buffers, large_buffers) = buffers();
        Self {
            table,
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
    pub(crate) fn is_full(&self) -> bool {
        self.held.get() >= self.limits.max_held || self.out_of_fds.get() > 0
    }

    /// Ready when the thread becomes full, or has room again.
    pub(crate) fn bound_crossed(&self) -> Notified<'_> {
        self.bound_crossed.notified()
    }

    /// How many connections and tunnels of clients there are.
    pub(crate) fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Returns when no connection or tunnel of a client is left.
    pub(crate) async fn no_connections(&self) {
        while self.connections.get() > 0 {
            self.connection_closed.notified().await;
        }
    }
}
