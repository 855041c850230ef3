//! Users who ask all the time, and what became of it.

use crate::shop::{self, Shop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// Requests to every instance, one after the other, until it ends.
pub(crate) struct Load {
    ending: Arc<AtomicBool>,
    counts: Arc<[AtomicUsize; 2]>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn on(shop: &Shop) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let threads = shop.public().map(|address| {
            let (ending, counts) = (ending.clone(), counts.clone());
            std::thread::spawn(move || {
                while !ending.load(SeqCst) {
                    let answer = shop::ask(address, "/").unwrap_or_default();
                    let good =
                        answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200");
                    counts[usize::from(!good)].fetch_add(1, SeqCst);
                }
            })
        });
        Self {
            ending,
            counts,
            threads: threads.into_iter().collect(),
        }
    }

    /// How many were answered well, and how many were not.
    pub(crate) fn end(self) -> (usize, usize) {
        self.ending.store(true, SeqCst);
        for thread in self.threads {
            thread.join().expect("a user does not panic");
        }
        (self.counts[0].load(SeqCst), self.counts[1].load(SeqCst))
    }
}
