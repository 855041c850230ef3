//! Counts passes and failures in a row, and says when to check next. No clock, no sockets.

use super::HealthCheck;
use std::time::Duration;

/// The wait before the second probe of a starting application.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// The longest wait while it starts, and so the longest delay after it is ready.
const LAST_INTERVAL: Duration = Duration::from_millis(500);

/// What has changed with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthChange {
    Same,
    /// It has become ready.
    Ready,
    /// It was ready and is now unhealthy.
    Unhealthy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Starting { next: Duration },
    Ready,
    Unhealthy,
}

/// An application's tracker.
#[derive(Clone, Debug)]
pub struct HealthTracker {
    successes: u32,
    failures: u32,
    interval: Duration,
    passed: u32,
    failed: u32,
    state: Health,
}

impl HealthTracker {
    /// The tracker of an application that has just been started.
    pub fn new(check: &HealthCheck) -> Self {
        Self {
            successes: check.successes.max(1),
            failures: check.failures.max(1),
            interval: check.interval,
            passed: 0,
            failed: 0,
            state: Health::Starting {
                next: FIRST_INTERVAL.min(check.interval),
            },
        }
    }

    /// Takes an answer.
    pub fn take(&mut self, passed: bool) -> HealthChange {
        if passed {
            self.passed += 1;
            self.failed = 0;
        } else {
            self.failed += 1;
            self.passed = 0;
        }
        match self.state {
            Health::Starting { .. } | Health::Unhealthy if self.passed >= self.successes => {
                self.state = Health::Ready;
                HealthChange::Ready
            }
            Health::Ready if self.failed >= self.failures => {
                self.state = Health::Unhealthy;
                HealthChange::Unhealthy
            }
            Health::Starting { .. } | Health::Ready | Health::Unhealthy => HealthChange::Same,
        }
    }

    /// How long to wait before the next probe.
    pub fn wait(&mut self) -> Duration {
        match &mut self.state {
            // The passes that are still missing are asked for quickly.
            Health::Starting { .. } if self.passed > 0 => FIRST_INTERVAL.min(self.interval),
            Health::Starting { next } => {
                let now = *next;
                *next = (now * 3 / 2).min(LAST_INTERVAL).min(self.interval);
                now
            }
            // After a failure the next check comes soon, to confirm it or to clear it.
            Health::Ready if self.failed > 0 => FIRST_INTERVAL.min(self.interval),
            Health::Ready | Health::Unhealthy => self.interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_after_enough_passes_in_a_row_and_not_before() {
        let mut tracker = tracker();
        assert_eq!(tracker.take(true), HealthChange::Same);
        assert_eq!(tracker.take(false), HealthChange::Same);
        assert_eq!(tracker.take(true), HealthChange::Same);
        assert_eq!(tracker.take(true), HealthChange::Ready);
        assert_eq!(tracker.take(true), HealthChange::Same);
    }

    #[test]
    fn it_is_unhealthy_after_enough_failures_in_a_row_and_can_come_back() {
        let mut tracker = tracker();
        tracker.take(true);
        tracker.take(true);
        assert_eq!(tracker.take(false), HealthChange::Same);
        assert_eq!(tracker.take(false), HealthChange::Same);
        assert_eq!(tracker.take(false), HealthChange::Unhealthy);
        assert_eq!(tracker.take(true), HealthChange::Same);
        assert_eq!(tracker.take(true), HealthChange::Ready);
    }

    #[test]
    fn a_starting_application_is_asked_quickly_and_one_that_is_ready_at_the_interval() {
        let mut tracker = tracker();
        let mut waits = Vec::new();
        for _ in 0..20 {
            tracker.take(false);
            waits.push(tracker.wait());
        }
        assert_eq!(waits[0], Duration::from_millis(100));
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(waits[19], Duration::from_millis(500));
        tracker.take(true);
        assert_eq!(tracker.wait(), Duration::from_millis(100));
        tracker.take(true);
        assert_eq!(tracker.wait(), Duration::from_secs(5));
    }

    #[test]
    fn an_interval_below_the_waits_of_a_start_is_kept() {
        let interval = Duration::from_millis(200);
        let mut tracker = HealthTracker::new(&HealthCheck {
            interval,
            ..HealthCheck::default()
        });
        let waits: Vec<_> = (0..9).map(|_| tracker.wait()).collect();
        assert_eq!(waits[0], Duration::from_millis(100));
        assert_eq!(waits[8], interval);
    }

    fn tracker() -> HealthTracker {
        HealthTracker::new(&HealthCheck::default())
    }
}
