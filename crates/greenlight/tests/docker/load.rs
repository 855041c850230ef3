//! Users who ask all the time, and what became of it.

use crate::shop::{self, Shop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Requests to every instance, one after the other, until it ends.
pub(crate) struct Load {
    ending: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    pub(crate) fn on(shop: &Shop) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let threads = shop.public().map(|address| {
            let ending = ending.clone();
            std::thread::spawn(move || {
                let (mut answered, mut failures) = (0, Vec::new());
                while !ending.load(SeqCst) {
                    let answer = shop::ask(address, "/");
                    let answer = answer.unwrap_or_else(|error| format!("{address}: {error}"));
                    if answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200") {
                        answered += 1;
                    } else {
                        failures.push(answer);
                    }
                }
                (answered, failures)
            })
        });
        Self {
            ending,
            threads: threads.into_iter().collect(),
        }
    }

    /// How many were answered well, and what the others were told.
    pub(crate) fn end(self) -> (usize, Vec<String>) {
        self.ending.store(true, SeqCst);
        let (mut answered, mut failures) = (0, Vec::new());
        for thread in self.threads {
            let (well, not) = thread.join().expect("a user does not panic");
            answered += well;
            failures.extend(not);
        }
        (answered, failures)
    }
}
