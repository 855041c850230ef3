//! Counts passes and failures in a row, and says when to ask next. No clock, no sockets.

use super::HealthCheck;
use std::time::Duration;

/// The wait before the second probe of a starting application.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// The longest wait while it starts: nobody has to wait for longer once it is ready.
const LAST_INTERVAL: Duration = Duration::from_millis(500);

/// What has changed with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Same,
    /// It has become ready.
    Ready,
    /// It was ready and is not well any more.
    Unhealthy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting { next: Duration },
    Ready,
    Unhealthy,
}

/// An application's pulse.
#[derive(Clone, Debug)]
pub struct Pulse {
    successes: u32,
    failures: u32,
    interval: Duration,
    passed: u32,
    failed: u32,
    state: State,
}

impl Pulse {
    /// The pulse of an application that has just been started.
    pub fn new(check: &HealthCheck) -> Self {
        Self {
            successes: check.successes.max(1),
            failures: check.failures.max(1),
            interval: check.interval,
            passed: 0,
            failed: 0,
            state: State::Starting {
                next: FIRST_INTERVAL.min(check.interval),
            },
        }
    }

    /// Takes an answer.
    pub fn take(&mut self, passed: bool) -> Turn {
        if passed {
            self.passed += 1;
            self.failed = 0;
        } else {
            self.failed += 1;
            self.passed = 0;
        }
        match self.state {
            State::Starting { .. } | State::Unhealthy if self.passed >= self.successes => {
                self.state = State::Ready;
                Turn::Ready
            }
            State::Ready if self.failed >= self.failures => {
                self.state = State::Unhealthy;
                Turn::Unhealthy
            }
            State::Starting { .. } | State::Ready | State::Unhealthy => Turn::Same,
        }
    }

    /// How long to wait before the next probe.
    pub fn wait(&mut self) -> Duration {
        match &mut self.state {
            // The passes that are still missing are asked for quickly.
            State::Starting { .. } if self.passed > 0 => FIRST_INTERVAL.min(self.interval),
            State::Starting { next } => {
                let now = *next;
                *next = (now * 3 / 2).min(LAST_INTERVAL).min(self.interval);
                now
            }
            // One failure is looked into at once; so is the way back to health.
            State::Ready if self.failed > 0 => FIRST_INTERVAL.min(self.interval),
            State::Ready | State::Unhealthy => self.interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_after_enough_passes_in_a_row_and_not_before() {
        let mut pulse = pulse();
        assert_eq!(pulse.take(true), Turn::Same);
        assert_eq!(pulse.take(false), Turn::Same);
        assert_eq!(pulse.take(true), Turn::Same);
        assert_eq!(pulse.take(true), Turn::Ready);
        assert_eq!(pulse.take(true), Turn::Same);
    }

    #[test]
    fn it_is_unhealthy_after_enough_failures_in_a_row_and_can_come_back() {
        let mut pulse = pulse();
        pulse.take(true);
        pulse.take(true);
        assert_eq!(pulse.take(false), Turn::Same);
        assert_eq!(pulse.take(false), Turn::Same);
        assert_eq!(pulse.take(false), Turn::Unhealthy);
        assert_eq!(pulse.take(true), Turn::Same);
        assert_eq!(pulse.take(true), Turn::Ready);
    }

    #[test]
    fn a_starting_application_is_asked_quickly_and_one_that_is_ready_at_the_interval() {
        let mut pulse = pulse();
        let mut waits = Vec::new();
        for _ in 0..20 {
            pulse.take(false);
            waits.push(pulse.wait());
        }
        assert_eq!(waits[0], Duration::from_millis(100));
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(waits[19], Duration::from_millis(500));
        pulse.take(true);
        assert_eq!(pulse.wait(), Duration::from_millis(100));
        pulse.take(true);
        assert_eq!(pulse.wait(), Duration::from_secs(5));
    }

    #[test]
    fn an_interval_below_the_waits_of_a_start_is_kept() {
        let interval = Duration::from_millis(200);
        let mut pulse = Pulse::new(&HealthCheck {
            interval,
            ..HealthCheck::default()
        });
        let waits: Vec<_> = (0..9).map(|_| pulse.wait()).collect();
        assert_eq!(waits[0], Duration::from_millis(100));
        assert_eq!(waits[8], interval);
    }

    fn pulse() -> Pulse {
        Pulse::new(&HealthCheck::default())
    }
}
