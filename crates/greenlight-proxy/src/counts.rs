//! A gate's counts, as one process sends them to another.
//!
//! After a handover a service has a gate in each process that still has connections. What is
//! reported for the service is the sum of the counts of all of them.

use crate::admin::ServiceEvidence;
use crate::gate::{Color, Gate, InFlight};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

/// The counts of one gate, or of one service's gates together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) blue: ColorCounts,
    pub(crate) green: ColorCounts,
    pub(crate) held: u64,
    pub(crate) max_held_us: u64,
    pub(crate) recalled: u64,
    pub(crate) retried: u64,
    pub(crate) failed: u64,
    pub(crate) shed: u64,
    pub(crate) expired: u64,
}

/// By service.
pub(crate) type CountsByService = BTreeMap<String, Counts>;

/// The counts of one color. Times are nanoseconds on the monotonic clock, which all processes of
/// a machine share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ColorCounts {
    pub(crate) in_flight: InFlight,
    pub(crate) admitted: u64,
    pub(crate) first_admission_ns: Option<u64>,
    pub(crate) last_admission_ns: Option<u64>,
}

impl Counts {
    pub(crate) fn of(gate: &Gate) -> Self {
        let counters = &gate.counters;
        Self {
            blue: ColorCounts::of(gate, Color::Blue),
            green: ColorCounts::of(gate, Color::Green),
            held: counters.held.load(SeqCst),
            max_held_us: counters.max_held_us.load(SeqCst),
            recalled: counters.recalled.load(SeqCst),
            retried: counters.retried.load(SeqCst),
            failed: counters.failed.load(SeqCst),
            shed: counters.shed.load(SeqCst),
            expired: counters.expired.load(SeqCst),
        }
    }

    /// A gate continues with the counts of a process that has ended.
    pub(crate) fn resume(gate: &Gate, seen: &ServiceEvidence) {
        let counters = &gate.counters;
        counters.held.store(seen.held, SeqCst);
        counters.max_held_us.store(seen.max_held_us, SeqCst);
        counters.recalled.store(seen.recalled, SeqCst);
        counters.retried.store(seen.retried, SeqCst);
        counters.failed.store(seen.failed, SeqCst);
        counters.shed.store(seen.shed, SeqCst);
    }

    pub(crate) fn color(&self, color: Color) -> &ColorCounts {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.blue.add(&other.blue);
        self.green.add(&other.green);
        self.held += other.held;
        self.max_held_us = self.max_held_us.max(other.max_held_us);
        self.recalled += other.recalled;
        self.retried += other.retried;
        self.failed += other.failed;
        self.shed += other.shed;
        self.expired += other.expired;
    }

    /// A new cut-over starts: its totals begin at nothing.
    pub(crate) fn reset_counters(&mut self) {
        let Self { blue, green, .. } = *self;
        *self = Self {
            blue,
            green,
            ..Self::default()
        };
    }

    /// A color was opened: its first admission is still to come.
    pub(crate) fn opened(&mut self, color: Color) {
        let color = match color {
            Color::Blue => &mut self.blue,
            Color::Green => &mut self.green,
        };
        color.first_admission_ns = None;
    }

    /// Writes the totals of a cut-over into its evidence.
    pub(crate) fn complete(&self, seen: &mut ServiceEvidence) {
        self.complete_first_admission(seen);
        seen.held = self.held;
        seen.max_held_us = self.max_held_us;
        seen.recalled = self.recalled;
        seen.retried = self.retried;
        seen.failed = self.failed;
        seen.shed = self.shed;
        // It is noted where it happened as well, and does not cease to be true.
        seen.expired |= self.expired > 0;
    }

    /// Admissions to the old color belong to the cut-over until the gate opens, and after it has
    /// opened to the other color, when there must be none; not after it was opened to the old one
    /// again.
    pub(crate) fn complete_last_admission(&self, seen: &mut ServiceEvidence) {
        if let Some(old) = seen.old
            && seen.new != Some(old)
        {
            let last = self.color(old).last_admission_ns;
            // A process that was started since has not seen any.
            seen.last_admission_old_ns = seen.last_admission_old_ns.max(last);
        }
    }

    /// The first admission after opening stays the first, also when the color is opened again.
    pub(crate) fn complete_first_admission(&self, seen: &mut ServiceEvidence) {
        if let (Some(new), Some(_), None) =
            (seen.new, seen.opened_at_ns, seen.first_admission_new_ns)
        {
            seen.first_admission_new_ns = self.color(new).first_admission_ns;
        }
    }
}

impl ColorCounts {
    fn of(gate: &Gate, color: Color) -> Self {
        Self {
            in_flight: gate.in_flight(color),
            admitted: gate.admitted(color),
            first_admission_ns: gate.first_admission_ns(color),
            last_admission_ns: gate.last_admission_ns(color),
        }
    }

    fn add(&mut self, other: &Self) {
        self.in_flight.requests += other.in_flight.requests;
        self.in_flight.streams += other.in_flight.streams;
        self.in_flight.upgrades += other.in_flight.upgrades;
        self.admitted += other.admitted;
        self.first_admission_ns = match (self.first_admission_ns, other.first_admission_ns) {
            (Some(mine), Some(other)) => Some(mine.min(other)),
            (mine, other) => mine.or(other),
        };
        self.last_admission_ns = self.last_admission_ns.max(other.last_admission_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_two_processes_are_told_as_one() {
        let mut mine = counts(2, Some(50), Some(90));
        mine.add(&counts(3, Some(40), Some(80)));
        assert_eq!(mine, counts(5, Some(40), Some(90)));
        let mut mine = counts(2, None, None);
        mine.add(&counts(3, Some(40), Some(80)));
        assert_eq!(mine, counts(5, Some(40), Some(80)));
    }

    fn counts(n: u64, first: Option<u64>, last: Option<u64>) -> Counts {
        let blue = ColorCounts {
            in_flight: InFlight {
                requests: n,
                streams: n,
                upgrades: n,
            },
            admitted: n,
            first_admission_ns: first,
            last_admission_ns: last,
        };
        Counts {
            blue,
            held: n,
            recalled: n,
            retried: n,
            failed: n,
            shed: n,
            expired: n,
            ..Counts::default()
        }
    }
}
