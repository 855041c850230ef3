//! The receipt of a front without a gate: not a proof, but a measurement.
//!
//! The mixed window is from the first answer of the new release on any instance to the last of the
//! old one on any. Each instance says how long before its report it saw either, so both are put on
//! the server's clock, where they are wrong by the time that a report takes. An instance sees
//! answers only as often as it asks, every few milliseconds.

use super::claims::judged;
use super::{Check, CutOverReceipt};
use greenlight_protocol::{AlignedEvidence, Alignment, InstanceId};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::time::Duration;

/// What was measured of a cut-over that was aligned, not gated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlignedReceipt {
    /// From the first answer of the new release anywhere to the last of the old one, in
    /// microseconds; nothing as long as an instance has not changed.
    pub mixed_window_us: Option<u64>,
}

impl CutOverReceipt {
    /// Evaluates what the instances have reported so far.
    pub fn measure(&mut self) {
        let of = |alignment| alignment == Alignment::Aligned;
        let is_aligned = self.instances.values().any(|instance| {
            let held = instance.held.as_ref().is_some_and(|h| of(h.alignment));
            held || instance.aligned().is_some()
        });
        if is_aligned {
            self.aligned = Some(AlignedReceipt {
                mixed_window_us: self.mixed_window_us(),
            });
        }
    }

    fn mixed_window_us(&self) -> Option<u64> {
        let mut first_new = u64::MAX;
        let mut last_old = 0;
        for instance in self.instances.values() {
            let reported_us = instance.switched_ns? / 1000;
            let seen = instance.aligned()?;
            first_new = first_new.min(reported_us.saturating_sub(seen.new_for_us));
            if let Some(old_for) = seen.old_for_us {
                last_old = last_old.max(reported_us.saturating_sub(old_for));
            }
        }
        Some(last_old.saturating_sub(first_new))
    }

    /// The claims without a gate: G5, and that each instance was verified from outside.
    pub(super) fn checks_of_aligned(&self, commit: u64) -> Vec<Check> {
        let mut checks = Vec::new();
        for (name, instance) in &self.instances {
            checks.push(Check::new(
                format!("`{name}` was told to switch after the commit was durable"),
                judged(instance.switch_order.is_some_and(|switch| switch > commit)),
            ));
            // One that did not change has reported it, and the fleet has rolled back.
            if instance.problem.is_none() {
                checks.push(Check::new(
                    format!("`{name}` was verified through its own Nginx"),
                    judged(instance.aligned().is_some()),
                ));
            }
        }
        checks
    }

    /// The sentence for people.
    pub(super) fn aligned_text(&self) -> Option<String> {
        let aligned = self.aligned.as_ref()?;
        let mut text = "aligned, not gated: G1 does not apply".to_owned();
        match aligned.mixed_window_us {
            Some(us) => {
                let window = Duration::from_micros(us).as_secs_f64() * 1e3;
                write!(
                    text,
                    "; old and new answered side by side for {window:.1} ms"
                )
            }
            None if self.committed_ns.is_none() => Ok(()),
            None => {
                let late = self.instances.iter().filter(|(_, i)| i.aligned().is_none());
                let late: Vec<_> = late
                    .map(|(name, _): (&InstanceId, _)| format!("`{name}`"))
                    .collect();
                write!(
                    text,
                    "; for how long old and new answered side by side is not known, because {} did \
                     not change",
                    late.join(", ")
                )
            }
        }
        .expect("a string takes all");
        Some(text)
    }
}

impl super::InstanceReceipt {
    fn aligned(&self) -> Option<AlignedEvidence> {
        self.switched.as_ref()?.aligned
    }
}

#[cfg(test)]
mod tests {
    use super::super::InstanceReceipt;
    use super::*;
    use greenlight_protocol::{Direction, Epoch, HoldEvidence, SwitchEvidence};

    #[test]
    fn the_mixed_window_is_from_the_first_new_answer_anywhere_to_the_last_old_one_anywhere() {
        let mut cut_over = cut_over();
        // Reported at 1000 and 1040 ms: new from 900 and 950 ms on, old until 960 and 930 ms.
        cut_over.instances = [
            ("a".into(), instance(1000, 100, Some(40))),
            ("b".into(), instance(1040, 90, Some(110))),
        ]
        .into();

        cut_over.measure();

        assert_eq!(window(&cut_over), Some(60_000));
        let text = cut_over.aligned_text().expect("it is aligned");
        assert!(text.contains("side by side for 60.0 ms"), "{text}");
    }

    #[test]
    fn where_no_old_release_answered_there_is_no_window() {
        let mut cut_over = cut_over();
        cut_over.instances = [("a".into(), instance(1000, 100, None))].into();

        cut_over.measure();

        assert_eq!(window(&cut_over), Some(0));
    }

    #[test]
    fn an_instance_that_did_not_change_leaves_the_window_open_and_is_named() {
        let mut cut_over = cut_over();
        let stays = InstanceReceipt {
            problem: Some("it kept its configuration".to_owned()),
            ..InstanceReceipt::default()
        };
        cut_over.instances = [
            ("a".into(), instance(1000, 100, Some(40))),
            ("b".into(), stays),
        ]
        .into();
        cut_over.committed_ns = Some(1);

        cut_over.measure();

        assert_eq!(window(&cut_over), None);
        let text = cut_over.aligned_text().expect("it is aligned");
        assert!(text.contains("is not known, because `b`"), "{text}");
    }

    #[test]
    fn a_gated_cut_over_is_not_called_aligned() {
        let mut cut_over = cut_over();
        let gated = InstanceReceipt {
            held: Some(HoldEvidence::default()),
            switched: Some(SwitchEvidence::default()),
            ..InstanceReceipt::default()
        };
        cut_over.instances = [("a".into(), gated)].into();

        cut_over.measure();

        assert_eq!(
            (cut_over.aligned.clone(), cut_over.aligned_text()),
            (None, None)
        );
    }

    fn window(cut_over: &CutOverReceipt) -> Option<u64> {
        cut_over
            .aligned
            .as_ref()
            .expect("it is aligned")
            .mixed_window_us
    }

    fn instance(reported_ms: u64, new_for_ms: u64, old_for_ms: Option<u64>) -> InstanceReceipt {
        InstanceReceipt {
            switched_ns: Some(reported_ms * 1_000_000),
            switched: Some(SwitchEvidence {
                opened_at_ns: 1,
                released: 0,
                aligned: Some(AlignedEvidence {
                    new_for_us: new_for_ms * 1000,
                    old_for_us: old_for_ms.map(|ms| ms * 1000),
                }),
            }),
            ..InstanceReceipt::default()
        }
    }

    fn cut_over() -> CutOverReceipt {
        CutOverReceipt::new(Epoch(1), Direction::Forward)
    }
}
