//! The gate under the interleavings that a scheduler chooses: claim, hold, recall, release, drain.
//!
//! `gate.rs` is compiled here against atomics that shuttle schedules. To show that the checks
//! would notice, each of the two second looks is also taken away: a *stale* look sees what the
//! look before it saw, which is as good as no look at all.

use gate::{Gate as AnyGate, Kind, NoClaim, Wake};
use greenlight_gate::{Color, Route};
use shuttle::sync::atomic::{AtomicBool, AtomicUsize};
use shuttle::{future::block_on, thread};
use std::panic::catch_unwind;
use std::sync::Arc;
use tokio::sync::Notify;

#[expect(
    dead_code,
    unreachable_pub,
    reason = "the races need a part of the gate"
)]
#[path = "../src/gate.rs"]
mod gate;

// What `gate.rs` uses of its crate.
mod color {
    pub(crate) use greenlight_gate::{Color, Route};
}
mod counts {
    pub(crate) use greenlight_gate::{ColorCounts, Counts, InFlight};
}
mod evidence {
    pub(crate) use greenlight_gate::ServiceEvidence;
}

/// What `crate::atomic` is there, with shuttle's atomics, and looks that can be stale.
mod atomic {
    pub(crate) use shuttle::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};
    use shuttle::sync::atomic::{AtomicU64 as Scheduled, Ordering};
    use std::cell::Cell;

    shuttle::thread_local! {
        static LAST_SEEN: Cell<u64> = Cell::new(0);
        static STALE_FROM: Cell<Option<u32>> = Cell::new(None);
    }

    /// Runs with every look of this thread stale, after the first `fresh` ones.
    pub(crate) fn with_stale_looks<T>(fresh: u32, what: impl FnOnce() -> T) -> T {
        STALE_FROM.with(|from| from.set(Some(fresh)));
        let value = what();
        STALE_FROM.with(|from| from.set(None));
        value
    }

    #[derive(Debug, Default)]
    pub(crate) struct AtomicU64(Scheduled);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            Self(Scheduled::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            match STALE_FROM.with(Cell::get) {
                Some(0) => return LAST_SEEN.with(Cell::get),
                Some(fresh) => STALE_FROM.with(|from| from.set(Some(fresh - 1))),
                None => {}
            }
            let seen = self.0.load(order);
            LAST_SEEN.with(|last| last.set(seen));
            seen
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            self.0.store(value, order);
        }

        pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            self.0.fetch_add(value, order)
        }

        pub(crate) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            self.0.fetch_max(value, order)
        }

        pub(crate) fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.0.compare_exchange(current, new, success, failure)
        }
    }
}

use atomic::{SeqCst, with_stale_looks};

/// Interleavings tried for each race.
const TRIES: usize = 3_000;

/// Which of the gate's second looks is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Nothing,
    LookInClaim,
    LookInAdmit,
}

// G1
#[test]
fn nothing_reaches_the_old_release_after_a_hold_is_acknowledged() {
    shuttle::check_random(|| hold_race(Missing::Nothing), TRIES);
    shuttle::check_pct(|| hold_race(Missing::Nothing), TRIES, 3);
}

#[test]
fn without_the_second_look_in_admit_a_request_slips_past_a_hold() {
    assert!(is_found(Missing::LookInAdmit, hold_race));
}

// G7
#[test]
fn a_drain_ends_only_when_no_claim_is_left_and_none_can_come() {
    shuttle::check_random(|| drain_race(Missing::Nothing), TRIES);
    shuttle::check_pct(|| drain_race(Missing::Nothing), TRIES, 3);
}

#[test]
fn without_the_second_look_in_claim_a_request_slips_past_a_drain() {
    assert!(is_found(Missing::LookInClaim, drain_race));
}

#[test]
fn a_request_that_turns_into_a_stream_is_never_missed_by_a_drain() {
    shuttle::check_random(
        || {
            let gate = open_blue();
            let is_stopped = Arc::new(AtomicBool::new(false));
            let streaming = {
                let (gate, is_stopped) = (gate.clone(), is_stopped.clone());
                thread::spawn(move || {
                    let Ok(mut claim) = gate.claim() else { return };
                    if claim.color() == Color::Blue {
                        claim.reclassify(Kind::Stream);
                        claim.reclassify(Kind::Upgrade);
                        assert!(!is_stopped.load(SeqCst), "stopped under a stream");
                    }
                })
            };
            gate.set(Route::Open(Color::Green));
            drained(&gate, Color::Blue);
            is_stopped.store(true, SeqCst);
            streaming.join().expect("a good thread");
        },
        TRIES,
    );
}

#[test]
fn a_held_request_is_woken_by_the_release_and_goes_to_the_new_release() {
    shuttle::check_random(
        || {
            let gate = Arc::new(Gate::new(Route::Held(Some(Color::Blue))));
            let admitted = Arc::new(AtomicUsize::new(0));
            let mut waiting = Vec::new();
            for _ in 0..2 {
                let (gate, admitted) = (gate.clone(), admitted.clone());
                waiting.push(thread::spawn(move || {
                    assert_eq!(request(&gate, Missing::Nothing, |_| {}), Color::Green);
                    admitted.fetch_add(1, SeqCst);
                }));
            }
            gate.set(Route::Open(Color::Green));
            for request in waiting {
                request.join().expect("a good thread");
            }
            assert_eq!(admitted.load(SeqCst), 2);
        },
        TRIES,
    );
}

#[test]
fn an_exclusive_hold_ends_only_when_no_request_runs() {
    shuttle::check_random(
        || {
            let gate = open_blue();
            let running = Arc::new(AtomicUsize::new(0));
            let mut requests = Vec::new();
            for _ in 0..2 {
                let (gate, running) = (gate.clone(), running.clone());
                requests.push(thread::spawn(move || {
                    request(&gate, Missing::Nothing, |color| {
                        if color == Color::Blue {
                            running.fetch_add(1, SeqCst);
                            running.fetch_sub(1, SeqCst);
                        }
                    });
                }));
            }
            gate.set(Route::Held(Some(Color::Blue)));
            none_admitting(&gate, Color::Blue);
            no_requests(&gate, Color::Blue);
            assert_eq!(running.load(SeqCst), 0, "two releases run at the same time");
            gate.set(Route::Open(Color::Green));
            for request in requests {
                request.join().expect("a good thread");
            }
            assert_eq!(gate.in_flight(Color::Blue).total(), 0);
            assert_eq!(gate.in_flight(Color::Green).total(), 0);
        },
        TRIES,
    );
}

/// Two requests against a hold: none may be written to blue after the acknowledgement.
fn hold_race(missing: Missing) {
    let gate = open_blue();
    let is_acknowledged = Arc::new(AtomicBool::new(false));
    let mut requests = Vec::new();
    for _ in 0..2 {
        let (gate, is_acknowledged) = (gate.clone(), is_acknowledged.clone());
        requests.push(thread::spawn(move || {
            request(&gate, missing, |color| {
                let is_late = color == Color::Blue && is_acknowledged.load(SeqCst);
                assert!(!is_late, "admitted after the acknowledgement");
            });
        }));
    }
    gate.set(Route::Held(Some(Color::Blue)));
    none_admitting(&gate, Color::Blue);
    is_acknowledged.store(true, SeqCst);
    gate.set(Route::Open(Color::Green));
    for request in requests {
        request.join().expect("a good thread");
    }
}

/// A claim against a drain: the release may be stopped only when nobody holds a claim.
fn drain_race(missing: Missing) {
    let gate = open_blue();
    let is_stopped = Arc::new(AtomicBool::new(false));
    let claiming = {
        let (gate, is_stopped) = (gate.clone(), is_stopped.clone());
        thread::spawn(move || {
            let claim = match missing {
                Missing::LookInClaim => with_stale_looks(1, || gate.claim()),
                Missing::Nothing | Missing::LookInAdmit => gate.claim(),
            };
            let claim = claim.expect("the gate is open to one or the other");
            let is_gone = claim.color() == Color::Blue && is_stopped.load(SeqCst);
            assert!(!is_gone, "claimed a release that was stopped");
        })
    };
    gate.set(Route::Open(Color::Green));
    drained(&gate, Color::Blue);
    is_stopped.store(true, SeqCst);
    claiming.join().expect("a good thread");
}

/// One request as the proxy sends it. Returns where it was admitted.
fn request(gate: &Arc<Gate>, missing: Missing, at_first_byte: impl Fn(Color)) -> Color {
    loop {
        let seen = gate.route();
        let claim = match gate.claim() {
            Ok(claim) => claim,
            Err(NoClaim::Held) => {
                changed_from(gate, seen);
                continue;
            }
            Err(refusal @ (NoClaim::Shed | NoClaim::Closed)) => panic!("{refusal:?}"),
        };
        let admission = match missing {
            Missing::LookInAdmit => with_stale_looks(0, || claim.admit()),
            Missing::Nothing | Missing::LookInClaim => claim.admit(),
        };
        if let Some(admission) = admission {
            at_first_byte(claim.color());
            admission.written(1);
            return claim.color();
        }
    }
}

/// Those who wait at a gate, as in the proxy.
#[derive(Debug, Default)]
struct Waiters {
    changed: Notify,
    settled: Notify,
}

impl Wake for Waiters {
    fn changed(&self) {
        self.changed.notify_waiters();
    }

    fn settled(&self) {
        self.settled.notify_waiters();
    }
}

type Gate = AnyGate<Waiters>;

fn changed_from(gate: &Gate, seen: Route) {
    sleep_until(&gate.waiters().changed, || gate.route() != seen);
}

fn none_admitting(gate: &Gate, color: Color) {
    let _watching = gate.watch();
    sleep_until(&gate.waiters().settled, || gate.admits_none(color));
}

fn no_requests(gate: &Gate, color: Color) {
    let _watching = gate.watch();
    sleep_until(&gate.waiters().settled, || {
        gate.in_flight(color).requests == 0
    });
}

fn drained(gate: &Gate, color: Color) {
    let _watching = gate.watch();
    sleep_until(&gate.waiters().settled, || {
        gate.in_flight(color).total() == 0
    });
}

fn sleep_until(woken: &Notify, is_reached: impl Fn() -> bool) {
    block_on(async {
        loop {
            let notified = woken.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if is_reached() {
                return;
            }
            notified.await;
        }
    });
}

fn open_blue() -> Arc<Gate> {
    Arc::new(Gate::new(Route::Open(Color::Blue)))
}

fn is_found(missing: Missing, race: fn(Missing)) -> bool {
    catch_unwind(|| shuttle::check_random(move || race(missing), TRIES)).is_err()
}
