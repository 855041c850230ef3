//! Finds the mixed window in what a load saw. Pure.
//!
//! A request is *stale* if it was sent after the new release had answered on any instance, and
//! was answered by the old one. The mixed window is the time from that first answer to the
//! sending of the last stale request.

use super::Sample;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// One change from an old release to a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flip {
    /// Served before; several, if the instances were not of one mind.
    pub old: BTreeSet<String>,
    /// Served after.
    pub new: String,
    /// When it was decided. Of two changes in a row, answers before the second
    /// belong to the first.
    pub decided_ns: u64,
}

/// The part of a recording that belongs to one deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From when, by sending.
    pub from_ns: u64,
    /// Until when, by sending.
    pub until_ns: u64,
}

/// What users saw of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Requests sent.
    pub requests: usize,
    /// Requests without a good answer.
    pub failed: usize,
    /// What went wrong, with how often.
    pub failures: BTreeMap<String, usize>,
    /// By release: the targets on which it answered.
    pub answered: BTreeMap<String, BTreeSet<usize>>,
    /// Stale requests.
    pub stale: usize,
    /// The mixed window, in milliseconds.
    pub mixed_window_ms: f64,
    /// The slowest good answer, in milliseconds.
    pub max_latency_ms: f64,
}

/// Analyses the part of a recording that belongs to one deployment with these flips, in order.
///
/// The first flip is judged from the beginning of the segment and not from its decision: its new
/// release serves nowhere by then, and an answer that comes too early is what is looked for. A
/// later flip may go back to the release that the segment began with, whose answers until then
/// tell nothing; those count from the decision on.
pub fn analyse(samples: &[Sample], segment: Segment, flips: &[Flip]) -> Window {
    let mut window = Window::default();
    let inside = |sample: &&Sample| (segment.from_ns..segment.until_ns).contains(&sample.sent_ns);
    let inside: Vec<_> = samples.iter().filter(inside).collect();
    window.requests = inside.len();
    for sample in &inside {
        match &sample.result {
            Ok(release) => {
                let answered = window.answered.entry(release.clone()).or_default();
                answered.insert(sample.instance);
                let nanos = sample.received_ns.saturating_sub(sample.due_ns);
                window.max_latency_ms = window.max_latency_ms.max(millis(nanos));
            }
            Err(error) => {
                window.failed += 1;
                *window.failures.entry(error.to_string()).or_default() += 1;
            }
        }
    }
    for (number, flip) in flips.iter().enumerate() {
        let until = flips
            .get(number + 1)
            .map_or(u64::MAX, |next| next.decided_ns);
        let since = match number {
            0 => segment.from_ns,
            _ => flip.decided_ns,
        };
        let (stale, nanos) = stale(&inside, flip, since..until);
        window.stale += stale;
        window.mixed_window_ms = window.mixed_window_ms.max(millis(nanos));
    }
    window
}

/// Stale requests of one flip, among answers that came in this time.
fn stale(samples: &[&Sample], flip: &Flip, time: Range<u64>) -> (usize, u64) {
    let answered = |sample: &&&Sample| time.contains(&sample.received_ns);
    let answered = || samples.iter().filter(answered);
    let new = answered().filter(|sample| sample.result.as_ref() == Ok(&flip.new));
    let Some(first_new) = new.map(|sample| sample.received_ns).min() else {
        return (0, 0);
    };
    let old = answered().filter(|sample| matches!(&sample.result, Ok(by) if flip.old.contains(by)));
    let stale: Vec<_> = old
        .filter(|sample| sample.sent_ns > first_new)
        .map(|sample| sample.sent_ns)
        .collect();
    let last = stale.iter().max().copied().unwrap_or(first_new);
    (stale.len(), last - first_new)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a measured time needs no 64 bits"
)]
fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::RequestError;
    use super::*;

    const ALL: Segment = Segment {
        from_ns: 0,
        until_ns: u64::MAX,
    };

    #[test]
    fn without_overlap_nothing_is_stale() {
        let samples = [answer("v1", 1, 2), answer("v1", 5, 30), answer("v2", 8, 20)];
        let window = analyse(&samples, ALL, &[flip("v1", "v2", 6)]);
        assert_eq!((window.stale, window.failed, window.requests), (0, 0, 3));
        assert!(window.mixed_window_ms < f64::EPSILON);
    }

    #[test]
    fn a_request_sent_after_the_first_new_answer_and_answered_by_old_is_stale() {
        let samples = [
            answer("v2", 8_000_000, 10_000_000),
            answer("v1", 9_000_000, 30_000_000),
            answer("v1", 12_000_000, 13_000_000),
            answer("v1", 25_000_000, 26_000_000),
        ];
        let window = analyse(&samples, ALL, &[flip("v1", "v2", 6)]);
        assert_eq!(window.stale, 2);
        assert!((window.mixed_window_ms - 15.0).abs() < 1e-9);
    }

    #[test]
    fn a_new_release_that_answers_before_the_decision_is_seen_as_well() {
        let samples = [
            answer("v1", 1, 2),
            answer("v2", 3, 5),
            answer("v1", 6, 7),
            answer("v1", 8, 9),
            answer("v2", 21, 22),
        ];
        let window = analyse(&samples, ALL, &[flip("v1", "v2", 20)]);
        assert_eq!(window.stale, 2);
        assert!((window.mixed_window_ms - millis(3)).abs() < 1e-9);
    }

    #[test]
    fn who_answered_is_told_by_release_and_target() {
        let mut there = answer("v2", 3, 4);
        there.instance = 1;
        let mut lost = answer("v3", 5, 6);
        lost.result = Err(RequestError::Status(502));
        let window = analyse(&[answer("v1", 1, 2), there, lost], ALL, &[]);
        let on = |target: usize| BTreeSet::from([target]);
        let told = [("v1".to_owned(), on(0)), ("v2".to_owned(), on(1))];
        assert_eq!(window.answered, BTreeMap::from(told));
    }

    #[test]
    fn after_a_rollback_the_first_release_is_the_new_one() {
        let samples = [
            answer("v1", 1, 2),
            answer("v2", 11, 12),
            answer("v2", 13, 14),
            answer("v1", 15, 25),
            answer("v1", 26, 27),
            answer("v2", 28, 29),
        ];
        let flips = [flip("v1", "v2", 10), flip("v2", "v1", 20)];
        let window = analyse(&samples, ALL, &flips);
        assert_eq!(window.stale, 1);
    }

    #[test]
    fn whatever_was_served_before_on_any_instance_is_old() {
        let samples = [
            answer("v3", 11, 12),
            answer("v1", 14, 15),
            answer("v2", 16, 17),
        ];
        let mut split = flip("v1", "v3", 10);
        split.old.insert("v2".to_owned());
        assert_eq!(analyse(&samples, ALL, &[split]).stale, 2);
    }

    #[test]
    fn failures_are_counted_by_reason_within_the_segment() {
        let mut lost = answer("v1", 5, 6);
        lost.result = Err(RequestError::Status(502));
        let samples = [answer("v1", 1, 2), lost.clone(), lost];
        let segment = Segment {
            from_ns: 3,
            until_ns: 10,
        };
        let window = analyse(&samples, segment, &[]);
        assert_eq!((window.requests, window.failed), (2, 2));
        assert_eq!(window.failures["status 502"], 2);
    }

    fn answer(release: &str, sent_ns: u64, received_ns: u64) -> Sample {
        Sample {
            instance: 0,
            due_ns: sent_ns,
            sent_ns,
            received_ns,
            key: None,
            result: Ok(release.to_owned()),
        }
    }

    fn flip(old: &str, new: &str, decided_ns: u64) -> Flip {
        Flip {
            old: [old.to_owned()].into(),
            new: new.to_owned(),
            decided_ns,
        }
    }
}
