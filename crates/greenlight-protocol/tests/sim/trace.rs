//! What happened, as a hash over everything and, when asked for, as lines to read.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Lines kept of a run that is told.
const KEPT: usize = 60;

/// Whether a run is also told in words; that takes much longer than the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    Silent,
    /// Keeps the last lines.
    Last,
    /// Prints every line.
    All,
}

/// The record of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    telling: Telling,
    lines: VecDeque<String>,
    pub(crate) steps: u64,
}

impl Trace {
    pub(crate) fn new(telling: Telling) -> Self {
        Self {
            // Its keys are fixed, unlike those of a map's.
            hasher: DefaultHasher::new(),
            telling,
            lines: VecDeque::new(),
            steps: 0,
        }
    }

    /// Notes a step; one of no interest is not told.
    pub(crate) fn step(&mut self, now: u64, what: &(impl Debug + Hash), is_telling: bool) {
        self.steps += 1;
        self.hash_in(now, what);
        if is_telling {
            self.tell(now, what);
        }
    }

    /// Notes what came of a step.
    pub(crate) fn note(&mut self, now: u64, what: &(impl Debug + Hash)) {
        self.hash_in(now, what);
        self.tell(now, what);
    }

    fn hash_in(&mut self, now: u64, what: &impl Hash) {
        now.hash(&mut self.hasher);
        what.hash(&mut self.hasher);
    }

    fn tell(&mut self, now: u64, what: &impl Debug) {
        if self.telling == Telling::Silent {
            return;
        }
        let line = format!("{:>13} {what:?}", Seconds(now));
        if self.telling == Telling::All {
            eprintln!("{line}");
        }
        self.lines.push_back(line);
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter()
    }
}

/// Microseconds, shown as seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.pad(&text)
    }
}
