//! Whether a client that has connected has asked for anything yet.

use std::cell::Cell;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a client that has connected and not yet asked keeps a proxy from leaving.
const WITHIN: Duration = Duration::from_secs(1);

/// Whether a connection has brought a request.
#[derive(Debug, Default)]
pub(crate) struct FirstRequest {
    came: Cell<bool>,
    told: Notify,
}

impl FirstRequest {
    /// A request has come.
    pub(crate) fn note(&self) {
        if !self.came.replace(true) {
            self.told.notify_one();
        }
    }

    /// Waits for it a little: whoever has just connected is not idle, its request is on the way.
    pub(crate) async fn in_a_moment(&self) {
        if !self.came.get() {
            // Past that it is idle.
            let _ = timeout(WITHIN, self.told.notified()).await;
        }
    }
}
