//! Whether every thread of the proxy is responsive: what a watchdog asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How often a thread beats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// The heartbeats of all threads. A thread that has not beaten is reported as stuck.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    counters: Vec<Arc<AtomicU64>>,
    seen: Vec<u64>,
}

impl Heartbeat {
    /// The heartbeat counter of one more thread.
    pub(crate) fn add_thread(&mut self) -> Arc<AtomicU64> {
        let counter = Arc::<AtomicU64>::default();
        self.counters.push(counter.clone());
        self.seen.push(0);
        counter
    }

    /// Whether every thread has beaten since this was last asked. Ask at most once a second.
    pub fn is_responsive(&mut self) -> bool {
        let counters = self.counters.iter().zip(&mut self.seen);
        counters.fold(true, |all, (counter, seen)| {
            let before = std::mem::replace(seen, counter.load(Relaxed));
            all && *seen != before
        })
    }
}

/// Beats on the thread that this runs on, for as long as its event loop runs.
pub(crate) async fn beat(counter: Arc<AtomicU64>) {
    loop {
        counter.fetch_add(1, Relaxed);
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stuck_thread_is_noticed_among_responsive_ones() {
        let mut heartbeat = Heartbeat::default();
        let (responsive, stuck) = (heartbeat.add_thread(), heartbeat.add_thread());
        responsive.fetch_add(1, Relaxed);
        stuck.fetch_add(1, Relaxed);
        assert!(heartbeat.is_responsive());
        responsive.fetch_add(1, Relaxed);
        assert!(!heartbeat.is_responsive());
        responsive.fetch_add(1, Relaxed);
        stuck.fetch_add(1, Relaxed);
        assert!(heartbeat.is_responsive());
    }
}
