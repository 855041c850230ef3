//! What the gates of one service have counted, in one process or in several together.
//!
//! After a handover a service has a gate in each process that still has connections. What is
//! reported for the service is the sum of the counts of all of them.
//!
//! Totals are those of one cut-over. A process that has not heard of a new one still has the
//! totals of the one before, so what one process says to another names the cut-over, and totals of
//! another are left out.

use crate::color::Color;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// In-flight work of one color, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InFlight {
    /// Requests whose response is not complete.
    pub requests: u64,
    /// Responses without a foreseeable end (server-sent events).
    pub streams: u64,
    /// Connections that have left HTTP (WebSocket and others).
    pub upgrades: u64,
}

impl InFlight {
    /// Everything together.
    pub fn total(&self) -> u64 {
        self.requests + self.streams + self.upgrades
    }
}

/// The counts of one gate, or of one service's gates together. All but those by color begin anew
/// with each cut-over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counts {
    pub blue: ColorCounts,
    pub green: ColorCounts,
    /// Requests that waited.
    pub held: u64,
    /// The longest wait, in microseconds.
    pub max_held_us: u64,
    /// Requests picked but not yet sent that were taken back.
    pub recalled: u64,
    /// Requests sent again because the application died under them.
    pub retried: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests answered 503 by the gate.
    pub shed: u64,
    /// How often a deadline ended the hold.
    pub expired: u64,
}

/// By service.
pub type CountsByService = BTreeMap<String, Counts>;

/// The counts of one color. Times are nanoseconds on the monotonic clock, which all processes of
/// a machine share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ColorCounts {
    pub in_flight: InFlight,
    /// Requests ever admitted.
    pub admitted: u64,
    /// The first admission since the color was last opened.
    pub first_admission_ns: Option<u64>,
    pub last_admission_ns: Option<u64>,
}

impl Counts {
    /// The counts of one color.
    pub fn color(&self, color: Color) -> &ColorCounts {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    /// Adds what another process has counted.
    pub fn add(&mut self, other: &Self) {
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
    pub fn reset_totals(&mut self) {
        let Self { blue, green, .. } = *self;
        *self = Self {
            blue,
            green,
            ..Self::default()
        };
    }

    /// A color was opened: its first admission is still to come.
    pub fn opened(&mut self, color: Color) {
        let color = match color {
            Color::Blue => &mut self.blue,
            Color::Green => &mut self.green,
        };
        color.first_admission_ns = None;
    }
}

impl ColorCounts {
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

/// What processes have counted: by service, and by the cut-over whose totals these are (0 before the
/// service was held for the first time).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CountsByCutOver(BTreeMap<String, BTreeMap<u64, Counts>>);

impl CountsByCutOver {
    /// Adds what one process has counted of one service.
    pub fn add(&mut self, service: &str, cut_over: u64, counts: &Counts) {
        let of_service = self.0.entry(service.to_owned()).or_default();
        of_service.entry(cut_over).or_default().add(counts);
    }

    /// Adds what other processes have counted.
    pub fn add_all(&mut self, others: &Self) {
        for (service, by_cut_over) in &others.0 {
            for (cut_over, counts) in by_cut_over {
                self.add(service, *cut_over, counts);
            }
        }
    }

    /// The counts of a service: those by color of all processes, and the totals of those that
    /// count this cut-over.
    pub fn of(&self, service: &str, cut_over: u64) -> Counts {
        let mut sum = Counts::default();
        for (of, counts) in self.0.get(service).into_iter().flatten() {
            let mut counts = counts.clone();
            if *of != cut_over {
                counts.reset_totals();
            }
            sum.add(&counts);
        }
        sum
    }

    /// What a service has in flight to a color.
    pub fn in_flight(&self, service: &str, color: Color) -> InFlight {
        self.of(service, 0).color(color).in_flight
    }

    /// A new cut-over of a service starts: totals of earlier ones are forgotten.
    pub(crate) fn begin(&mut self, service: &str, cut_over: u64) {
        let counts = self.of(service, cut_over);
        if let Some(of_service) = self.0.get_mut(service) {
            *of_service = [(cut_over, counts)].into();
        }
    }

    /// A service was opened to this color: its first admission is still to come.
    pub(crate) fn opened(&mut self, service: &str, color: Color) {
        for counts in self.0.get_mut(service).into_iter().flatten() {
            counts.1.opened(color);
        }
    }

    /// The service is gone, and one that gets its name begins at nothing.
    pub(crate) fn forget(&mut self, service: &str) {
        self.0.remove(service);
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

    #[test]
    fn totals_of_another_cut_over_are_left_out_and_counts_by_color_are_not() {
        let mut told = CountsByCutOver::default();
        told.add("shop", 1, &counts(2, None, None));
        told.add("shop", 2, &counts(3, None, None));

        let seen = told.of("shop", 2);

        assert_eq!((seen.held, seen.expired, seen.blue.admitted), (3, 3, 5));
        assert_eq!(told.in_flight("shop", Color::Blue).requests, 5);
        told.begin("shop", 2);
        assert_eq!(told.of("shop", 2), seen);
        assert_eq!(told.of("shop", 1).held, 0);
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
