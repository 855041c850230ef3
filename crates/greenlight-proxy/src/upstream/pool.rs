//! The idle connections of one thread, and what a pool needs to know of them.

use crate::address::Address;
use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A connection to an application that takes one request after another.
pub(crate) trait Connection: Sized {
    /// Where it leads.
    fn upstream(&self) -> &Address;

    /// Whether it can take a request: it is neither closed nor busy.
    fn is_good(&self) -> bool;

    /// Ready when it cannot take a request. Wakes when it becomes unusable, if no other task
    /// notices that.
    fn poll_spoiled(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// The idle connections of one thread.
pub(crate) struct Pool<C> {
    /// By application: there are few, so a list is quicker than a map.
    idle: RefCell<Vec<(Address, Vec<C>)>>,
    max_idle: usize,
    /// Wakes who drops what is spoiled.
    sweeper: RefCell<Waker>,
}

impl<C: Connection> Pool<C> {
    pub(crate) fn new(max_idle: usize) -> Self {
        Self {
            idle: RefCell::default(),
            max_idle,
            sweeper: RefCell::new(Waker::noop().clone()),
        }
    }

    /// A connection that was used before and still seems good. The last one used comes first: it
    /// is the least likely to be closed by the application just now.
    pub(crate) fn take(&self, upstream: &Address) -> Option<C> {
        let mut idle = self.idle.borrow_mut();
        let (_, kept) = idle.iter_mut().find(|(other, _)| other == upstream)?;
        std::iter::from_fn(|| kept.pop()).find(Connection::is_good)
    }

    /// Keeps a connection for the next request, if it can take one.
    pub(crate) fn put_back(&self, connection: C) {
        let sweeper = self.sweeper.borrow();
        let mut cx = Context::from_waker(&sweeper);
        if connection.poll_spoiled(&mut cx).is_ready() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let upstream = connection.upstream();
        if let Some((_, kept)) = idle.iter_mut().find(|(other, _)| other == upstream) {
            if kept.len() < self.max_idle {
                kept.push(connection);
            }
        } else {
            // Those that are gone for good are left behind here.
            idle.retain(|(_, kept)| !kept.is_empty());
            idle.push((upstream.clone(), vec![connection]));
        }
    }

    /// Closes every idle connection.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Closes connections that applications have closed: they may wait for that before they end.
    pub(crate) async fn sweep(&self) {
        poll_fn(|cx| {
            self.sweeper.borrow_mut().clone_from(cx.waker());
            for (_, kept) in &mut *self.idle.borrow_mut() {
                kept.retain(|connection| connection.poll_spoiled(cx).is_pending());
            }
            Poll::<()>::Pending
        })
        .await;
    }
}
