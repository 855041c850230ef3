//! How much memory every process below this one has, and the most it was over a time.
//!
//! Proportional set size: a page that several processes share counts for each by its share, so
//! that ten processes of one program are not counted as ten programs.

use crate::cpu_time;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two samples.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Bytes that all processes below this one have now.
pub(crate) fn below_this() -> std::io::Result<u64> {
    let pids = cpu_time::below(std::process::id())?;
    // A process may end while it is sampled.
    let sizes = pids.iter().filter_map(|pid| {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
        parse(&rollup.ok()?)
    });
    Ok(sizes.sum())
}

fn parse(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Samples until it is asked for the maximum.
pub(crate) struct Peak {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Peak {
    /// Begins.
    pub(crate) fn start() -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let told = ending.clone();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !told.load(SeqCst) {
                most = most.max(below_this().unwrap_or(0));
                std::thread::sleep(LOOK_EVERY);
            }
            most
        });
        Self { ending, thread }
    }

    /// The most it saw, in bytes.
    pub(crate) fn end(self) -> u64 {
        self.ending.store(true, SeqCst);
        self.thread.join().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_proportional_size_is_found_among_the_others() {
        let rollup =
            "5000-7fff ---p 0 00:00 0 [rollup]\nRss:  900 kB\nPss:  300 kB\nPss_Dirty: 7 kB\n";
        assert_eq!(super::parse(rollup), Some(300 * 1024));
        assert_eq!(super::parse(""), None);
    }
}
