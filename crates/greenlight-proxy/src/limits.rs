//! What a client may ask of the proxy before it is refused.

use std::time::Duration;

/// Bounds on requests and waiting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that may wait at closed gates on one thread; past it the thread stops accepting
    /// connections, and the kernel's queue holds the rest.
    pub max_held: usize,
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a request body or an answer may make no progress.
    pub idle_timeout: Duration,
    /// The largest request head, in bytes.
    pub max_head: usize,
    /// The largest request body that is kept so that it can be sent again, in bytes.
    pub max_replay: usize,
    /// How long a proxy that was told to stop goes on with what it has, streams included.
    pub stop_timeout: Duration,
    /// Idle connections kept to one application on one thread.
    pub max_idle: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_held: 1024,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(1),
            max_head: 64 * 1024,
            max_replay: 64 * 1024,
            stop_timeout: Duration::from_secs(30),
            max_idle: 256,
        }
    }
}
