//! The clock that the shells pass in: `CLOCK_MONOTONIC`, the same for all processes of a machine.

use greenlight_protocol::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds on the monotonic clock of this machine.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock starts at zero");
    let nanos = u64::try_from(now.tv_nsec).expect("nanoseconds are not negative");
    seconds * 1_000_000_000 + nanos
}

/// The same as the protocol takes it.
pub fn now() -> Timestamp {
    Timestamp(monotonic_ns() / 1_000)
}

/// Milliseconds since 1970 on the wall clock: for people to read, never for a decision.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
