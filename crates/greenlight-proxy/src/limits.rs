//! What a client may ask of the proxy before it is refused.

use std::time::Duration;

/// Bounds on requests and waiting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that may wait on one thread at closed gates; past it the thread stops accepting
    /// connections, and the kernel's queue holds the rest.
    pub max_held: usize,
    /// Requests that may wait for one service's application that is away, on all threads; past it
    /// that service's requests are refused, so that they do not take the room of the others.
    pub max_waiting: usize,
    /// How long a client may take to send a request's head, from the end of the response before:
    /// so this also bounds how long a connection may stay unused. A load balancer in front must
    /// give up unused connections earlier, or it will send requests into closing ones.
    pub header_timeout: Duration,
    /// How long a request body or a response may make no progress, in either direction.
    pub idle_timeout: Duration,
    /// How long an application may take to answer `Expect: 100-continue` before the client is
    /// asked for the body all the same: the application may not know the expectation.
    pub expect_timeout: Duration,
    /// The largest request head, in bytes.
    pub max_head: usize,
    /// The largest request body, in bytes; any, if `None`.
    pub max_body: Option<u64>,
    /// The largest request body that is kept so that it can be sent again, in bytes.
    pub max_replay: usize,
    /// How long a stopping proxy continues with its connections, including streams.
    pub stop_timeout: Duration,
    /// Idle connections kept to one application on one thread, by the fast path and by hyper each.
    pub max_idle: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_held: 1024,
            max_waiting: 1024,
            // Nginx's `keepalive_timeout`; the usual load balancers keep 60 seconds or less.
            header_timeout: Duration::from_secs(75),
            idle_timeout: Duration::from_mins(1),
            expect_timeout: Duration::from_secs(1),
            max_head: 64 * 1024,
            max_body: None,
            max_replay: 64 * 1024,
            stop_timeout: Duration::from_secs(30),
            max_idle: 256,
        }
    }
}
