//! The grace period of a new connection: a proxy that drains waits a little for its first
//! request.

use std::cell::Cell;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a connection without a request keeps a proxy that drains alive.
const GRACE_PERIOD: Duration = Duration::from_secs(1);

/// Whether a connection has brought a request.
#[derive(Debug, Default)]
pub(crate) struct GracePeriod {
    came: Cell<bool>,
    arrived: Notify,
}

impl GracePeriod {
    /// A request has come.
    pub(crate) fn request_arrived(&self) {
        if !self.came.replace(true) {
            self.arrived.notify_one();
        }
    }

    /// Waits for the first request, at most for the grace period: a client that has just
    /// connected is not idle, its request is on the way.
    pub(crate) async fn over(&self) {
        if !self.came.get() {
            // Past that it is idle.
            let _ = timeout(GRACE_PERIOD, self.arrived.notified()).await;
        }
    }
}
