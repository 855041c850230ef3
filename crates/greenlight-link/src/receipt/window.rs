//! How long two releases may have been served side by side, if a receipt cannot exclude it.
//!
//! Machines have clocks of their own, but messages order events on two of them: what was read was
//! sent before, and what was reported happened before the report came in. So the evidence bounds
//! how far an instance's clock is from the server's, and with that how late an old admission and
//! how early a new one can have been. The result is a bound, not a measurement: the window was not
//! longer.
//!
//! ```text
//!   server    Hold sent ──▶            ◀── Held came in     committed ──▶        ◀── Switched came in
//!   instance      └──▶ read … gate held ──┘                      └──▶ read … gate opened ──┘
//! ```

use super::{CutOverReceipt, InstanceReceipt};
use greenlight_protocol::{InstanceId, ServiceEvidence, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

/// Clocks that are disciplined run at most so much faster or slower than others: one part in this.
const DRIFT: i128 = 1_000;

/// Whether old and new may have been served side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mixed_window", rename_all = "snake_case")]
pub enum MixedWindow {
    /// The evidence excludes it.
    Excluded,
    /// The evidence does not exclude it, and it was not longer than this, in microseconds.
    AtMost { us: u64 },
    /// The evidence neither excludes nor bounds it.
    Unbounded {
        /// Why not.
        because: String,
    },
}

/// What an instance's evidence says of its clock and its admissions.
struct Side<'a> {
    name: &'a InstanceId,
    /// The server's clock is ahead of the instance's by at least and at most this.
    ahead: (i128, i128),
    /// On its own clock: the first moment at which it can have admitted to the new release.
    first_new: i128,
    /// On its own clock: the last moment at which it can have admitted to the old release.
    last_old: i128,
}

impl CutOverReceipt {
    /// Whether old and new may have been served side by side; nothing if nothing was switched, or
    /// if the front is none that excludes it.
    pub fn mixed_window(&self) -> Option<MixedWindow> {
        let checks = self.checks();
        if self.aligned.is_some() || checks.is_empty() {
            return None;
        }
        let mut instances = self.instances.iter();
        if let Some((name, _)) = instances.find(|(_, instance)| !instance.reports_agree()) {
            let because = format!("the reports of `{name}` do not agree with what its gate saw");
            return Some(MixedWindow::Unbounded { because });
        }
        if checks.iter().all(|check| check.holds) {
            return Some(MixedWindow::Excluded);
        }
        Some(match self.longest_window_ns() {
            Ok(ns) => MixedWindow::AtMost {
                us: u64::try_from(ns.max(0) / 1000).unwrap_or(u64::MAX),
            },
            Err(because) => MixedWindow::Unbounded { because },
        })
    }

    /// By instance: how long it served the old release after its hold had run out, at most, in
    /// microseconds. An instance that does so chose `serve_old` while it did not know the decision.
    pub fn served_old(&self) -> BTreeMap<&InstanceId, Option<u64>> {
        let mut served = BTreeMap::new();
        for (name, instance) in &self.instances {
            let services = instance.gate.iter().flat_map(|gate| gate.services.values());
            let expired: Vec<_> = services.filter(|seen| seen.expired).collect();
            if expired.is_empty() {
                continue;
            }
            // The gate's deadline begins when it closes, which is after the agent read the hold.
            let ran_out = instance.readings.and_then(|read| read.hold_ns);
            let ran_out = ran_out.zip(self.max_hold_us);
            let ran_out =
                ran_out.map(|(read, hold)| read.saturating_add(hold.saturating_mul(1000)));
            let last = expired.iter().map(|seen| seen.last_admission_old_ns);
            let last: Option<Vec<_>> = last.collect();
            let last = last.and_then(|last| last.into_iter().max());
            let longest = ran_out.zip(last);
            served.insert(
                name,
                longest.map(|(at, last)| last.saturating_sub(at) / 1000),
            );
        }
        served
    }

    /// The sentences for people: how long old and new may have been mixed, and who served the old
    /// release while it did not know better.
    pub(super) fn window_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.mixed_window() {
            None => {}
            Some(MixedWindow::Excluded) => {
                lines.push("no request reached the old release after one had reached the new one".to_owned());
            }
            Some(MixedWindow::AtMost { us }) => lines.push(format!(
                "old and new may have been served side by side, for at most {}",
                shown(us)
            )),
            Some(MixedWindow::Unbounded { because }) => lines.push(format!(
                "old and new may have been served side by side; for how long is not known: {because}"
            )),
        }
        for (name, us) in self.served_old() {
            let mut line = format!("`{name}` did not know the decision when its hold ran out");
            match us {
                Some(0) => write!(line, ", and admitted nothing to the old release after it"),
                Some(us) => write!(
                    line,
                    ", and served the old release after it for at most {}",
                    shown(us)
                ),
                None => write!(
                    line,
                    "; for how long it served the old release is not known"
                ),
            }
            .expect("a string takes all");
            lines.push(line);
        }
        lines
    }

    /// From the earliest moment at which any instance can have admitted to the new release to the
    /// latest at which any can have admitted to the old one, in nanoseconds.
    fn longest_window_ns(&self) -> Result<i128, String> {
        if self.recovered {
            return Err("the server was restarted meanwhile".to_owned());
        }
        let (Some(began), Some(committed)) = (self.hold_sent_ns, self.committed_ns) else {
            return Err("the server's times are missing".to_owned());
        };
        if !self.times_in_order() {
            return Err(
                "the server's times do not agree with the order of its messages".to_owned(),
            );
        }
        let services = self.services();
        let sides = self.instances.iter().map(|(name, instance)| {
            let side = instance.side(name, &services, (began, committed));
            side.ok_or_else(|| format!("evidence of `{name}` is missing"))
        });
        let sides: Vec<Side<'_>> = sides.collect::<Result<_, _>>()?;
        let ends = self.instances.values().filter_map(|i| i.switched_ns).max();
        let took = ends.unwrap_or(committed).saturating_sub(began);
        let drift = i128::from(took) / DRIFT;
        let mut longest = 0;
        for new in &sides {
            for old in &sides {
                let (first_new, last_old) = (new.first_new, old.last_old);
                let apart = match new.name == old.name {
                    true => last_old - first_new,
                    false => (last_old + old.ahead.1) - (first_new + new.ahead.0) + drift,
                };
                longest = longest.max(apart);
            }
        }
        Ok(longest)
    }
}

impl InstanceReceipt {
    /// Nothing if a piece is missing: an instance that is left out would make the window shorter.
    fn side<'a>(
        &self,
        name: &'a InstanceId,
        services: &BTreeSet<&ServiceName>,
        (began, committed): (u64, u64),
    ) -> Option<Side<'a>> {
        let readings = self.readings?;
        let seen = self.seen_of(services).ok()?;
        let ahead = |server: u64, here: u64| i128::from(server) - i128::from(here);
        let read = [(began, readings.hold_ns), (committed, readings.commit_ns)];
        let read = read.into_iter();
        let least = read
            .filter_map(|(sent, read)| Some(ahead(sent, read?)))
            .max()?;
        let held = self.held.as_ref().map(|held| held.held_at_ns);
        let opened = self.switched.as_ref().map(|switched| switched.opened_at_ns);
        let told = [(self.held_ns, held), (self.switched_ns, opened)].into_iter();
        let most = told
            .filter_map(|(came, did)| Some(ahead(came?, did?)))
            .min()?;
        // Before its opening it admitted nothing to the new release.
        let began = |seen: &ServiceEvidence| seen.first_admission_new_ns.or(seen.opened_at_ns);
        let first_new: Option<Vec<_>> = seen.iter().map(|seen| began(seen)).collect();
        // A gate without users has admitted nothing; it was closed from its hold on.
        let ended = |seen: &ServiceEvidence| {
            let closed = seen.held_at_ns.filter(|_| !seen.expired);
            seen.last_admission_old_ns.or(closed)
        };
        let last_old: Option<Vec<_>> = seen.iter().map(|seen| ended(seen)).collect();
        Some(Side {
            name,
            ahead: (least, most),
            first_new: first_new?.into_iter().min()?.into(),
            last_old: last_old?.into_iter().max()?.into(),
        })
    }
}

fn shown(us: u64) -> String {
    format!("{:.1} ms", Duration::from_micros(us).as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::super::example::{AHEAD, MS, cut_over};
    use super::*;

    #[test]
    fn a_chain_that_is_complete_excludes_a_mixed_window() {
        let cut_over = cut_over();
        assert!(cut_over.checks().iter().all(|check| check.holds));
        assert_eq!(cut_over.mixed_window(), Some(MixedWindow::Excluded)); // G1
        assert!(cut_over.served_old().is_empty());
    }

    #[test]
    fn an_instance_that_served_old_in_doubt_is_named_with_how_long() {
        let mut cut_over = cut_over();
        in_doubt(&mut cut_over);

        // The first admission to new was at 31 ms on `a`, the last to old at 2900 ms on `b`. Each
        // message took up to 2 ms, and the clocks may have drifted by 3 ms.
        let Some(MixedWindow::AtMost { us }) = cut_over.mixed_window() else {
            panic!("{:?}", cut_over.mixed_window());
        };
        assert!((2_869_000..2_880_000).contains(&us), "{us}");
        // It read the hold at 1 ms and might hold for 2 s.
        let served = cut_over.served_old();
        assert_eq!(served, [(&InstanceId::from("b"), Some(899_000))].into());
        let text = cut_over.window_lines().join("\n");
        assert!(text.contains("for at most 287"), "{text}");
        assert!(text.contains("`b` did not know"), "{text}");
        assert!(text.contains("after it for at most 899.0 ms"), "{text}");
    }

    #[test]
    fn without_the_evidence_of_an_instance_there_is_no_bound_and_it_is_named() {
        let mut cut_over = cut_over();
        in_doubt(&mut cut_over);
        cut_over
            .instances
            .get_mut(&"a".into())
            .expect("it is there")
            .gate = None;

        let text = cut_over.window_lines().join("\n");
        assert!(
            text.contains("is not known: evidence of `a` is missing"),
            "{text}"
        );
        let checks = cut_over.checks();
        let missing = checks.iter().filter(|check| check.missing.is_some());
        assert_eq!(missing.count(), 2, "{checks:?}");
    }

    #[test]
    fn a_gate_that_opened_before_its_agent_had_read_the_decision_is_found() {
        let mut cut_over = cut_over();
        let a = cut_over
            .instances
            .get_mut(&"a".into())
            .expect("it is there");
        let read = a.readings.as_mut().expect("it has told").commit_ns.as_mut();
        *read.expect("it has told") += 10 * MS;

        let checks = cut_over.checks();
        let broken: Vec<_> = checks.iter().filter(|check| !check.holds).collect();
        assert_eq!(broken.len(), 1, "{checks:?}");
        assert!(broken[0].claim.starts_with("`a` opened its gate after"));
        assert_eq!(broken[0].missing, None);
    }

    #[test]
    fn an_agent_that_was_restarted_after_its_gate_opened_leaves_a_line_and_no_accusation() {
        let mut cut_over = cut_over();
        let a = cut_over
            .instances
            .get_mut(&"a".into())
            .expect("it is there");
        let readings = a.readings.as_mut().expect("it has told");
        readings.since_ns = AHEAD[0] + 1_000 * MS;
        readings.commit_ns = Some(readings.since_ns + 1);

        let checks = cut_over.checks();
        let broken: Vec<_> = checks.iter().filter(|check| !check.holds).collect();
        assert_eq!(broken.len(), 1, "{checks:?}");
        let missing = broken[0].missing.as_deref().expect("it is missing");
        assert!(missing.contains("the agent was restarted"), "{missing}");
    }

    #[test]
    fn a_hold_that_ran_out_without_a_last_admission_told_is_not_said_to_have_admitted_nothing() {
        let mut cut_over = cut_over();
        in_doubt(&mut cut_over);
        seen_by(&mut cut_over, "b").last_admission_old_ns = None;
        let b = cut_over.instances.get_mut(&"b".into());
        let held = b.expect("it is there").held.as_mut();
        held.expect("it has told").last_admission_ns.clear();

        assert_eq!(
            cut_over.served_old(),
            [(&InstanceId::from("b"), None)].into()
        );
        let text = cut_over.window_lines().join("\n");
        assert!(text.contains("for how long it served the old release is not known"));
        assert!(
            text.contains("is not known: evidence of `b` is missing"),
            "{text}"
        );
    }

    #[test]
    fn a_gate_that_told_nothing_of_its_opening_or_of_a_service_leaves_no_bound() {
        for part in ["opening", "service"] {
            let mut cut_over = cut_over();
            in_doubt(&mut cut_over);
            let seen = seen_by(&mut cut_over, "a");
            (seen.opened_at_ns, seen.first_admission_new_ns) = (None, None);
            if part == "service" {
                let a = cut_over.instances.get_mut(&"a".into());
                let gate = a.expect("it is there").gate.as_mut();
                gate.expect("it has told").services.clear();
            }

            let because = "evidence of `a` is missing".to_owned();
            let unbounded = MixedWindow::Unbounded { because };
            assert_eq!(cut_over.mixed_window(), Some(unbounded), "{part}");
        }
    }

    #[test]
    fn reports_that_contradict_the_gate_exclude_and_bound_nothing() {
        let mut cut_over = cut_over();
        let a = cut_over.instances.get_mut(&"a".into());
        let switched = a.expect("it is there").switched.as_mut();
        switched.expect("it has told").opened_at_ns -= 10 * MS;

        let window = cut_over.mixed_window();
        let Some(MixedWindow::Unbounded { because }) = window else {
            panic!("{window:?}");
        };
        assert!(
            because.contains("the reports of `a` do not agree"),
            "{because}"
        );
    }

    fn seen_by<'a>(cut_over: &'a mut CutOverReceipt, name: &str) -> &'a mut ServiceEvidence {
        let instance = cut_over.instances.get_mut(&name.into());
        let gate = instance.expect("it is there").gate.as_mut();
        let seen = gate.expect("it has told").services.get_mut(&"shop".into());
        seen.expect("it is there")
    }

    /// `b` hears of the commit 3 s late, and has served the old release from 2 s on.
    fn in_doubt(cut_over: &mut CutOverReceipt) {
        let b = cut_over
            .instances
            .get_mut(&"b".into())
            .expect("it is there");
        let late = |at: u64| AHEAD[1] + at * MS;
        b.readings.as_mut().expect("it has told").commit_ns = Some(late(2_950));
        b.switched.as_mut().expect("it has").opened_at_ns = late(2_951);
        b.switched_ns = Some(1_000 * MS + 2_952 * MS);
        let gate = b.gate.as_mut().expect("it has told");
        let seen = gate.services.get_mut(&"shop".into()).expect("it is there");
        seen.expired = true;
        seen.last_admission_old_ns = Some(late(2_900));
        seen.opened_at_ns = Some(late(2_951));
        seen.first_admission_new_ns = Some(late(2_953));
    }
}
