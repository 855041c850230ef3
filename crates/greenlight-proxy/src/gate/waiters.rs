//! The tasks that wait at a gate. Each is woken by a change that comes after its last look.

use greenlight_gate::Wake;
use tokio::sync::Notify;

/// The tasks that wait at one gate.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// Requests that wait for the word to change.
    changed: Notify,
    /// Holds and drains that wait for a count to fall.
    settled: Notify,
}

impl Wake for Waiters {
    fn changed(&self) {
        self.changed.notify_waiters();
    }

    fn settled(&self) {
        self.settled.notify_waiters();
    }
}

impl Waiters {
    /// Waits for a change, unless there was one already.
    pub(crate) async fn changed_unless(&self, has_changed: impl Fn() -> bool) {
        let notified = self.changed.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !has_changed() {
            notified.await;
        }
    }

    /// Waits until this is so.
    pub(crate) async fn settled_until(&self, is_reached: impl Fn() -> bool) {
        loop {
            let notified = self.settled.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if is_reached() {
                return;
            }
            notified.await;
        }
    }
}
