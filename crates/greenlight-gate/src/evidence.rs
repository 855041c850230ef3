//! What one gate saw of one cut-over: the one form in which it is counted, kept, sent and
//! written into receipts.

use crate::color::Color;
use crate::counts::Counts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The evidence of the last cut-overs, by epoch and service.
pub type EvidenceByEpoch = BTreeMap<u64, BTreeMap<String, ServiceEvidence>>;

/// What one gate saw of one cut-over. Times are nanoseconds on the machine's monotonic clock:
/// they are compared with each other only on the same machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceEvidence {
    /// The color served before.
    #[serde(default)]
    pub old: Option<Color>,
    /// The color served after.
    #[serde(default)]
    pub new: Option<Color>,
    /// When the hold was complete.
    pub held_at_ns: Option<u64>,
    /// When the last request was admitted to the old color: before the hold was complete, or the
    /// gate did not stay closed.
    pub last_admission_old_ns: Option<u64>,
    /// When the gate opened again.
    pub opened_at_ns: Option<u64>,
    /// When the first request was admitted after that.
    pub first_admission_new_ns: Option<u64>,
    /// Requests that waited.
    pub held: u64,
    /// The longest wait, in microseconds.
    pub max_held_us: u64,
    /// Requests picked but not yet sent that were taken back.
    pub recalled: u64,
    /// Requests sent again because the application died under them.
    pub retried: u64,
    /// Requests that failed and could not be sent again: answered 502 or 504, broken off in the
    /// middle of their answer, or answered 503 because too many waited for the application.
    pub failed: u64,
    /// Requests answered 503 by the gate.
    pub shed: u64,
    /// Whether the deadline ended the hold: then G1 is not claimed.
    pub expired: bool,
}

impl ServiceEvidence {
    /// Takes over what was counted for the cut-over.
    pub(crate) fn take_totals(&mut self, counts: &Counts) {
        self.take_first_admission(counts);
        self.held = counts.held;
        self.max_held_us = counts.max_held_us;
        self.recalled = counts.recalled;
        self.retried = counts.retried;
        self.failed = counts.failed;
        self.shed = counts.shed;
        // The deadline is noted here when it passes as well, and does not cease to be true.
        self.expired |= counts.expired > 0;
    }

    /// The first admission after opening stays the first, also when the color is opened again.
    pub(crate) fn take_first_admission(&mut self, counts: &Counts) {
        if let (Some(new), Some(_), None) =
            (self.new, self.opened_at_ns, self.first_admission_new_ns)
        {
            self.first_admission_new_ns = counts.color(new).first_admission_ns;
        }
    }

    /// Admissions to the old color belong to the cut-over until the gate opens, and after it has
    /// opened to the other color, when there must be none; not after the gate was opened to the
    /// old color again.
    pub(crate) fn take_last_admission(&mut self, counts: &Counts) {
        if let Some(old) = self.old
            && self.new != Some(old)
        {
            let last = counts.color(old).last_admission_ns;
            // A process that was started since has not seen any.
            self.last_admission_old_ns = self.last_admission_old_ns.max(last);
        }
    }

    /// Without the times that are still to come: those were read before the machine was
    /// restarted.
    pub(crate) fn before(&self, now_ns: u64) -> Self {
        let past = |time: Option<u64>| time.filter(|time| *time <= now_ns);
        Self {
            held_at_ns: past(self.held_at_ns),
            last_admission_old_ns: past(self.last_admission_old_ns),
            opened_at_ns: past(self.opened_at_ns),
            first_admission_new_ns: past(self.first_admission_new_ns),
            ..self.clone()
        }
    }
}
