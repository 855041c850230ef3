//! How long to wait before a process that ended is started again. No clock.

use std::time::Duration;

/// The first pause is short: a hold must not outlast a crash.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause: one that can never start must not take the machine from the others.
const LAST: Duration = Duration::from_secs(10);
/// A process that has run for so long could start, so its pauses begin anew. A crash now and
/// then, however often, must not keep a gate waiting for its agent.
const WELL: Duration = Duration::from_secs(1);

/// The pauses of one process.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause before the next start of a process that has run for this long. One that was killed
    /// did not end on its own, and so could start.
    pub(super) fn pause_after(&mut self, ran: Duration, killed: bool) -> Duration {
        if killed || ran >= WELL {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LAST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_cannot_start_waits_ever_longer_and_one_that_could_does_not() {
        let mut backoff = Backoff::new();
        let mut pause = |ran| backoff.pause_after(ran, false);
        let pauses: Vec<_> = (0..9).map(|_| pause(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
        assert_eq!(pause(Duration::from_millis(999)), LAST);
        assert_eq!(pause(WELL), FIRST);
        for _ in 0..9 {
            assert_eq!(backoff.pause_after(Duration::ZERO, true), FIRST);
        }
    }
}
