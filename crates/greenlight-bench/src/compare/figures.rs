//! From what the balancer saw of one deployment to the figures of the table. Pure.

use greenlight::load::{Flip, Sample, Segment, analyse};
use serde::Serialize;
use std::collections::BTreeMap;

/// The share of the busiest machine is taken over this, at every place.
const SHARE_OVER_NS: u64 = 1_000_000_000;
const SHARE_STEP_NS: u64 = 100_000_000;

/// One deployment: from when to when, from what to what, and the memory meanwhile, in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    pub(super) began_ns: u64,
    pub(super) ended_ns: u64,
    pub(super) old: String,
    pub(super) new: String,
    pub(super) memory_before: u64,
    pub(super) memory_peak: u64,
}

impl Span {
    /// Whether a request was sent in it.
    pub(super) fn has(&self, sample: &Sample) -> bool {
        (self.began_ns..self.ended_ns).contains(&sample.sent_ns)
    }
}

/// What one deployment did to users and machines.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    pub(super) requests: usize,
    pub(super) failed: f64,
    pub(super) failures: BTreeMap<String, usize>,
    /// The longest time in which every request that was sent failed; of a single one it is 0.
    pub(super) outage_ms: f64,
    pub(super) stale: usize,
    pub(super) mixed_window_ms: f64,
    /// The largest share of requests that one machine got within a second; 1 is all.
    pub(super) busiest_share: f64,
    /// From the command until every machine had answered with the new release.
    pub(super) duration_ms: f64,
    pub(super) memory_before_mb: f64,
    pub(super) extra_memory_mb: f64,
    pub(super) slowest_ms: f64,
}

impl Figures {
    pub(super) fn of(samples: &[Sample], span: &Span) -> Self {
        let segment = Segment {
            from_ns: span.began_ns,
            until_ns: span.ended_ns,
        };
        let flip = Flip {
            old: [span.old.clone()].into(),
            new: span.new.clone(),
            decided_ns: span.began_ns,
        };
        let window = analyse(samples, segment, &[flip]);
        let mut inside: Vec<_> = samples.iter().filter(|sample| span.has(sample)).collect();
        inside.sort_by_key(|sample| sample.sent_ns);
        let extra = span.memory_peak.saturating_sub(span.memory_before);
        Self {
            requests: window.requests,
            failed: float(window.failed as u64),
            failures: window.failures,
            outage_ms: millis(outage(&inside)),
            stale: window.stale,
            mixed_window_ms: window.mixed_window_ms,
            busiest_share: busiest_share(&inside, span),
            duration_ms: duration(&inside, span).map_or(f64::NAN, millis),
            memory_before_mb: float(span.memory_before) / 1e6,
            extra_memory_mb: float(extra) / 1e6,
            slowest_ms: window.max_latency_ms,
        }
    }
}

/// From the first to the last of a row of failed requests, by sending. That the client itself
/// was late with the one after them is no outage.
fn outage(in_order: &[&Sample]) -> u64 {
    let (mut longest, mut since) = (0, None);
    for sample in in_order {
        if sample.result.is_err() {
            let since = *since.get_or_insert(sample.sent_ns);
            longest = longest.max(sample.sent_ns - since);
        } else {
            since = None;
        }
    }
    longest
}

fn busiest_share(in_order: &[&Sample], span: &Span) -> f64 {
    let mut most: f64 = 0.0;
    let mut from = span.began_ns;
    while from + SHARE_OVER_NS <= span.ended_ns {
        let begin = in_order.partition_point(|sample| sample.sent_ns < from);
        let end = in_order.partition_point(|sample| sample.sent_ns < from + SHARE_OVER_NS);
        let mut by_machine = BTreeMap::<usize, u64>::new();
        for sample in &in_order[begin..end] {
            *by_machine.entry(sample.instance).or_default() += 1;
        }
        let busiest = by_machine.values().max().copied().unwrap_or(0);
        if end > begin {
            most = most.max(float(busiest) / float((end - begin) as u64));
        }
        from += SHARE_STEP_NS;
    }
    most
}

/// Nothing if a machine never answered with the new release.
fn duration(in_order: &[&Sample], span: &Span) -> Option<u64> {
    let mut first = BTreeMap::<usize, Option<u64>>::new();
    for sample in in_order {
        let first = first.entry(sample.instance).or_default();
        if sample.result.as_ref() == Ok(&span.new) {
            let at = sample.received_ns;
            *first = Some(first.map_or(at, |known| known.min(at)));
        }
    }
    let all: Option<Vec<_>> = first.into_values().collect();
    let last = all?.into_iter().max()?;
    Some(last.saturating_sub(span.began_ns))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a measured figure needs no 64 bits"
)]
fn float(number: u64) -> f64 {
    number as f64
}

fn millis(nanos: u64) -> f64 {
    float(nanos) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight::load::RequestError;

    const MS: u64 = 1_000_000;

    #[test]
    fn an_outage_lasts_while_nobody_gets_an_answer() {
        let samples = [
            sample(0, 0, Some("old")),
            sample(0, 10, None),
            sample(1, 20, None),
            sample(0, 30, Some("new")),
            sample(1, 40, None),
            sample(0, 50, Some("new")),
            sample(1, 60, Some("new")),
        ];
        let figures = Figures::of(&samples, &span(100));
        assert!((figures.outage_ms - 10.0).abs() < 1e-9, "{figures:?}");
        assert!((figures.failed - 3.0).abs() < 1e-9);
        assert!((figures.duration_ms - 61.0).abs() < 1e-9);
    }

    #[test]
    fn a_machine_that_gets_everything_for_a_second_has_all_of_the_traffic() {
        let balanced = (0..20).map(|n| sample(n % 2, n as u64 * 100, Some("old")));
        let piled = (20..40).map(|n| sample(0, n * 100, Some("old")));
        let half: Vec<_> = balanced.clone().collect();
        let all: Vec<_> = balanced.chain(piled).collect();
        let share = |samples: &[Sample], until| Figures::of(samples, &span(until)).busiest_share;
        assert!((share(&half, 2_000) - 0.5).abs() < 1e-9);
        assert!((share(&all, 4_000) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_deployment_that_does_not_reach_a_machine_has_no_duration() {
        let samples = [sample(0, 10, Some("new")), sample(1, 20, Some("old"))];
        assert!(Figures::of(&samples, &span(100)).duration_ms.is_nan());
    }

    fn span(until_ms: u64) -> Span {
        Span {
            began_ns: 0,
            ended_ns: until_ms * MS,
            old: "old".to_owned(),
            new: "new".to_owned(),
            ..Span::default()
        }
    }

    fn sample(instance: usize, sent_ms: u64, by: Option<&str>) -> Sample {
        Sample {
            instance,
            due_ns: sent_ms * MS,
            sent_ns: sent_ms * MS,
            received_ns: (sent_ms + 1) * MS,
            key: None,
            result: by.map(ToOwned::to_owned).ok_or(RequestError::Status(502)),
        }
    }
}
