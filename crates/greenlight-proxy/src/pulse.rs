//! Whether every thread of the proxy still turns: what a watchdog asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How often a thread shows that it turns.
const BEAT: Duration = Duration::from_millis(500);

/// The hearts of all threads.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    hearts: Vec<Arc<AtomicU64>>,
    heard: Vec<u64>,
}

impl Pulse {
    /// A heart for one more thread.
    pub(crate) fn heart(&mut self) -> Arc<AtomicU64> {
        let heart = Arc::<AtomicU64>::default();
        self.hearts.push(heart.clone());
        self.heard.push(0);
        heart
    }

    /// Whether every thread has turned since this was last asked. Ask at most once a second.
    pub fn beats(&mut self) -> bool {
        let hearts = self.hearts.iter().zip(&mut self.heard);
        hearts.fold(true, |all, (heart, heard)| {
            let before = std::mem::replace(heard, heart.load(Relaxed));
            all && *heard != before
        })
    }
}

/// Beats on the thread that this runs on, for as long as its loop turns.
pub(crate) async fn beat(heart: Arc<AtomicU64>) {
    loop {
        heart.fetch_add(1, Relaxed);
        tokio::time::sleep(BEAT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_that_stands_still_is_noticed_among_those_that_turn() {
        let mut pulse = Pulse::default();
        let (turns, stands) = (pulse.heart(), pulse.heart());
        turns.fetch_add(1, Relaxed);
        stands.fetch_add(1, Relaxed);
        assert!(pulse.beats());
        turns.fetch_add(1, Relaxed);
        assert!(!pulse.beats());
        turns.fetch_add(1, Relaxed);
        stands.fetch_add(1, Relaxed);
        assert!(pulse.beats());
    }
}
