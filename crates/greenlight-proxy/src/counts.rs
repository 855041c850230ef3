//! What a gate of this process has counted, and where a new one goes on.

use crate::gate::{Color, Gate};
use greenlight_gate::{ColorCounts, Counts, ServiceEvidence};
use std::sync::atomic::Ordering::SeqCst;

/// The counts of one gate.
pub(crate) fn counts_of(gate: &Gate) -> Counts {
    let counters = &gate.counters;
    Counts {
        blue: color_counts_of(gate, Color::Blue),
        green: color_counts_of(gate, Color::Green),
        held: counters.held.load(SeqCst),
        max_held_us: counters.max_held_us.load(SeqCst),
        recalled: counters.recalled.load(SeqCst),
        retried: counters.retried.load(SeqCst),
        failed: counters.failed.load(SeqCst),
        shed: counters.shed.load(SeqCst),
        expired: counters.expired.load(SeqCst),
    }
}

fn color_counts_of(gate: &Gate, color: Color) -> ColorCounts {
    ColorCounts {
        in_flight: gate.in_flight(color),
        admitted: gate.admitted(color),
        first_admission_ns: gate.first_admission_ns(color),
        last_admission_ns: gate.last_admission_ns(color),
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
