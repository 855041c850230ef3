//! Waiting under the interleavings that a scheduler chooses: no task sleeps through a change.
//!
//! `waiters.rs` is compiled here with looks at what it waits for that shuttle schedules. What it
//! waits for has races of its own: `greenlight-gate/tests/gate_races.rs`.

use greenlight_gate::Wake as _;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use shuttle::{future::block_on, thread};
use std::sync::Arc;
use waiters::Waiters;

#[path = "../src/gate/waiters.rs"]
mod waiters;

/// Interleavings tried for each race.
const TRIES: usize = 3_000;

#[test]
fn a_request_that_waits_is_woken_by_a_change_whenever_it_comes() {
    shuttle::check_random(
        || {
            let waiters = Arc::new(Waiters::default());
            let has_changed = Arc::new(AtomicBool::new(false));
            let mut waiting = Vec::new();
            for _ in 0..2 {
                let (waiters, has_changed) = (waiters.clone(), has_changed.clone());
                waiting.push(thread::spawn(move || {
                    block_on(waiters.changed_unless(|| has_changed.load(SeqCst)));
                    assert!(has_changed.load(SeqCst));
                }));
            }
            has_changed.store(true, SeqCst);
            waiters.changed();
            for request in waiting {
                request.join().expect("a good thread");
            }
        },
        TRIES,
    );
}

#[test]
fn a_hold_is_woken_by_the_last_count_that_falls() {
    shuttle::check_random(
        || {
            let waiters = Arc::new(Waiters::default());
            let count = Arc::new(AtomicUsize::new(2));
            let mut requests = Vec::new();
            for _ in 0..2 {
                let (waiters, count) = (waiters.clone(), count.clone());
                requests.push(thread::spawn(move || {
                    count.fetch_sub(1, SeqCst);
                    waiters.settled();
                }));
            }
            block_on(waiters.settled_until(|| count.load(SeqCst) == 0));
            assert_eq!(count.load(SeqCst), 0);
            for request in requests {
                request.join().expect("a good thread");
            }
        },
        TRIES,
    );
}
