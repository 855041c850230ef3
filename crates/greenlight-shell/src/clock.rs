//! The clock that the shells pass in: `CLOCK_MONOTONIC`, the same for all processes of a machine.

use greenlight_protocol::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
        .map_or(0, millis)
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A wall-clock time in milliseconds since 1970, for people: `2026-01-31 13:05:59 UTC`.
pub fn utc(ms: u64) -> String {
    let format =
        time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    i64::try_from(ms / 1000)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.format(&format).ok())
        .unwrap_or_else(|| "an unknown time".to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_wall_clock_time_reads_as_utc() {
        assert_eq!(super::utc(1_767_225_599_999), "2025-12-31 23:59:59 UTC");
        assert_eq!(super::utc(u64::MAX), "an unknown time");
    }
}
