//! Timers as a list of deadlines, for a loop that waits for the next one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is due, by when. Setting a timer that is already set moves it.
#[derive(Debug)]
pub struct Timers<T> {
    due: BTreeMap<T, Instant>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
        }
    }
}

impl<T: Ord + Clone> Timers<T> {
    /// Makes `timer` due after `after`.
    pub fn set(&mut self, timer: T, after: Duration) {
        self.due.insert(timer, Instant::now() + after);
    }

    /// How long until something is due; `None` if nothing is set.
    pub fn next_in(&self) -> Option<Duration> {
        let first = self.due.values().min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    /// Takes what is due, the earliest first.
    pub fn take_due(&mut self) -> Vec<T> {
        let now = Instant::now();
        let mut due: Vec<_> = self
            .due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(timer, at)| (*at, timer.clone()))
            .collect();
        due.sort();
        for (_, timer) in &due {
            self.due.remove(timer);
        }
        due.into_iter().map(|(_, timer)| timer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_once_and_earliest_first() {
        let mut timers = Timers::default();
        timers.set("late", Duration::from_hours(1));
        timers.set("first", Duration::ZERO);
        timers.set("second", Duration::from_nanos(1));
        while timers
            .due
            .values()
            .filter(|at| **at <= Instant::now())
            .count()
            < 2
        {}
        assert_eq!(timers.next_in(), Some(Duration::ZERO));
        assert_eq!(timers.take_due(), ["first", "second"]);
        assert_eq!(timers.take_due(), Vec::<&str>::new());
    }

    #[test]
    fn setting_a_timer_again_moves_it() {
        let mut timers = Timers::default();
        timers.set("a", Duration::ZERO);
        timers.set("a", Duration::from_hours(1));
        assert_eq!(timers.take_due(), Vec::<&str>::new());
        assert!(timers.next_in().is_some());
    }
}
