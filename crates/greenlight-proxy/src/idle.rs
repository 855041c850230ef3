//! Ends what makes no progress: one wait after another, each with the same limit.
//!
//! Only waiting counts. A client that reads a response slowly does not make the application look
//! idle, because no response is expected meanwhile. The timer exists only once something
//! was waited for, and is moved, not made anew, for later waits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The limit of one wait, and the wait that is going on.
pub(crate) struct Idle {
    limit: Option<Duration>,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit: Some(limit),
            waiting_since: None,
            timer: None,
        }
    }

    /// For streams, whose silence means nothing.
    pub(crate) fn never() -> Self {
        Self {
            limit: None,
            waiting_since: None,
            timer: None,
        }
    }

    /// What was waited for has come.
    pub(crate) fn progressed(&mut self) {
        self.waiting_since = None;
    }

    /// Something came this long ago, while it was waited for.
    pub(crate) fn progressed_before(&mut self, ago: Duration) {
        let now = Instant::now();
        self.waiting_since = Some(now.checked_sub(ago).unwrap_or(now));
    }

    /// Whether it is waited for.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// Nothing has come; ready when that has lasted for the limit.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        let due = *self.waiting_since.get_or_insert_with(Instant::now) + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            // It was set for an earlier wait.
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn only_the_time_spent_waiting_counts() {
        let limit = Duration::from_mins(1);
        let mut idle = Idle::new(limit);
        let first = poll_fn(|cx| Poll::Ready(idle.poll_expired(cx))).await;
        assert!(first.is_pending());
        idle.progressed();
        // A task may be dropped within two minutes, as when the other side reads slowly.
        sleep(limit * 2).await;
        let later = poll_fn(|cx| Poll::Ready(idle.poll_expired(cx))).await;
        assert!(later.is_pending());
        let before = Instant::now();
        poll_fn(|cx| idle.poll_expired(cx)).await;
        assert_eq!(before.elapsed().as_secs(), limit.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_be_silent_for_ever() {
        let mut idle = Idle::never();
        let silent = poll_fn(|cx| idle.poll_expired(cx));
        let waited = tokio::time::timeout(Duration::from_hours(24), silent).await;
        assert!(waited.is_err());
    }
}
