//! The demo's findings, as one document and as text.

use super::scenario::ObservedDeployment;
use super::{Barrier, DemoOptions};
use crate::load::Window;
use greenlight_link::receipt::{Check, CutOverReceipt, InstanceReceipt};
use greenlight_protocol::{Alignment, InstanceId, Outcome};
use greenlight_release::front::FrontKind;
use greenlight_release::runtime::RuntimeKind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::mem::discriminant;

/// How the deployments of the demo must end, in order.
const ENDINGS: [&str; 5] = ["promoted", "aborted", "rolled back", "promoted", "promoted"];
/// What to make of a run without the barrier.
const WITHOUT_BARRIER: &str = "\
this is what is left when each instance switches on its own: stale answers while one is ahead of
the other, and a split fleet when a release fails on one of them; without `--without-barrier`
the fleet switches together";

/// What to make of a run with a front that has no gate.
const ALIGNED: &str = "\
the fleet changed at the same time, each instance verified through its own Nginx, and ended whole;
this front is aligned, not gated: G1 does not apply, and what is stale or failed above is what a
reload leaves; `--front nginx` keeps the same Nginx and leaves nothing";

/// Everything that the demo found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DemoReport {
    /// How late the control messages of the second instance were, in milliseconds.
    pub injected_delay_ms: u128,
    /// What received user traffic.
    #[serde(default)]
    pub front: FrontKind,
    /// What ran the application.
    #[serde(default)]
    pub runtime: RuntimeKind,
    /// What switched together.
    pub barrier: Barrier,
    /// Whether everything held that this front claims, and was seen to.
    pub held_up: bool,
    /// What did not, in sentences.
    pub faults: Vec<String>,
    /// How fine the load saw.
    pub resolution: Resolution,
    /// Each deployment, in order.
    pub deployments: Vec<DeploymentReport>,
}

/// How fine a load saw: what is shorter than this may have been missed, and a window of 0 says that
/// none of at least this length was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// From one request to the next at each instance, in milliseconds.
    pub every_ms: f64,
    /// How much later than at its socket the load may have noted a time, in milliseconds.
    pub late_ms: f64,
}

impl Resolution {
    /// That of a load with so many requests a second, whose thread was at most so late.
    pub(super) fn of(per_second: u32, lateness_ns: u64) -> Self {
        Self {
            every_ms: 1e3 / f64::from(per_second.max(1)),
            late_ms: millis(lateness_ns),
        }
    }
}

/// What was found of one deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentReport {
    /// What it was to show.
    pub title: String,
    /// The version of the release that it brought.
    pub release: String,
    /// How it ended; nothing if it did not end the same way everywhere.
    pub outcome: Option<Outcome>,
    /// By instance, how it ended there, if it did not end the same way everywhere.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub split: BTreeMap<InstanceId, Outcome>,
    /// Requests sent while it went on.
    pub requests: usize,
    /// Requests without a good answer.
    pub failed: usize,
    /// Requests that waited at a gate.
    pub held: u64,
    /// The longest wait at a gate, in milliseconds.
    pub max_held_ms: f64,
    /// The longest hold: from the first `Hold` to the last opening, in milliseconds.
    pub hold_ms: f64,
    /// Requests sent after the new release had answered anywhere, and answered by the old one.
    pub stale: usize,
    /// From that first answer to the sending of the last stale request, in milliseconds.
    pub mixed_window_ms: f64,
    /// What went wrong, with how often.
    pub failures: BTreeMap<String, usize>,
    /// By release: the instances on which it answered while this went on.
    pub answered: BTreeMap<String, BTreeSet<InstanceId>>,
    /// The slowest good answer, in milliseconds.
    pub max_latency_ms: f64,
    /// The claims, each checked against the evidence.
    pub checks: Vec<Check>,
    /// By cut-over and instance: the causal evidence.
    pub instances: Vec<BTreeMap<InstanceId, InstanceReceipt>>,
}

impl DeploymentReport {
    /// Joins what the receipts say with what the load saw through these instances.
    pub(super) fn new(seen: &ObservedDeployment, window: Window, instances: &[InstanceId]) -> Self {
        let receipts = || seen.receipts.values();
        let cut_overs = || receipts().flat_map(|receipt| &receipt.cut_overs);
        let hold = |cut_over: &CutOverReceipt| {
            let instances = cut_over.instances.values();
            let opened = instances
                .filter_map(|i| Some(i.switched.as_ref()?.opened_at_ns))
                .max()?;
            Some(opened.saturating_sub(cut_over.hold_sent_ns?))
        };
        let mut releases = receipts().flat_map(|receipt| receipt.releases.values());
        let outcomes: BTreeMap<_, _> = seen
            .receipts
            .iter()
            .filter_map(|(name, receipt)| Some((name.clone(), receipt.outcome.clone()?)))
            .collect();
        let first = outcomes.values().next().cloned();
        let alike = outcomes
            .values()
            .all(|outcome| Some(discriminant(outcome)) == first.as_ref().map(discriminant));
        let (outcome, split) = match alike {
            true => (first, BTreeMap::new()),
            false => (None, outcomes),
        };
        let answered = window.answered.into_iter().map(|(release, targets)| {
            let on = targets.into_iter().map(|target| instances[target].clone());
            (release, on.collect())
        });
        Self {
            title: seen.title.to_owned(),
            release: releases.next().cloned().unwrap_or_default(),
            outcome,
            split,
            requests: window.requests,
            failed: window.failed,
            held: cut_overs().map(CutOverReceipt::held).sum(),
            max_held_ms: cut_overs()
                .map(|c| millis(c.max_held_us() * 1000))
                .fold(0.0, f64::max),
            hold_ms: cut_overs().filter_map(hold).map(millis).fold(0.0, f64::max),
            stale: window.stale,
            mixed_window_ms: window.mixed_window_ms,
            failures: window.failures,
            answered: answered.collect(),
            max_latency_ms: window.max_latency_ms,
            checks: cut_overs().flat_map(CutOverReceipt::checks).collect(),
            instances: cut_overs().map(|c| c.instances.clone()).collect(),
        }
    }

    /// What did not hold in this deployment, or was not seen to, of what such a front claims on
    /// these instances: without a gate neither G1 nor all of G3.
    fn faults(&self, alignment: Alignment, instances: &[InstanceId]) -> Vec<String> {
        let gated = alignment == Alignment::Gated;
        let mut faults = Vec::new();
        let mut require = |holds: bool, fault: String| {
            if !holds {
                faults.push(format!("{}: {fault}", self.title));
            }
        };
        require(
            self.failed == 0 || !gated,
            format!("failed requests: {}", self.failed), // G3
        );
        require(
            self.stale == 0 || !gated,
            format!("stale requests: {}", self.stale), // G1
        );
        require(self.split.is_empty(), "the fleet is split".to_owned()); // G2
        for check in &self.checks {
            let missing = check.missing.as_ref();
            let missing = missing.map_or_else(String::new, |what| format!("; missing: {what}"));
            require(check.holds, format!("{}{missing}", check.claim));
        }
        // Where nothing was seen, nothing was proved.
        require(self.requests > 0, "nothing was asked".to_owned());
        let release = &self.release;
        let answered = self.answered.get(release).map_or(0, BTreeSet::len);
        let all = instances.len();
        let (due, cut_overs) = match &self.outcome {
            Some(Outcome::Promoted) => (all..=all, 1),
            // It may be gone again before anybody has asked everywhere.
            Some(Outcome::RolledBack { .. }) => (1..=all, 2),
            Some(Outcome::Aborted { .. }) => (0..=0, 0),
            Some(Outcome::Stuck { .. }) | None => (0..=all, 0),
        };
        require(
            due.contains(&answered),
            format!("`{release}` answered on {answered} instances, and {due:?} are right"),
        );
        let least = cut_overs * instances.len() * if gated { 4 } else { 1 };
        let made = self.checks.len();
        require(
            made >= least,
            format!("the receipts claim {made} things and not {least}"),
        );
        faults
    }

    fn ending(&self) -> &'static str {
        match &self.outcome {
            Some(Outcome::Promoted) => "promoted",
            Some(Outcome::Aborted { .. }) => "aborted",
            Some(Outcome::RolledBack { .. }) => "rolled back",
            Some(Outcome::Stuck { .. }) => "stuck",
            None if self.split.is_empty() => "unknown",
            None => "SPLIT",
        }
    }
}

impl DemoReport {
    /// The whole report; it holds up if each deployment does and ended as it should.
    pub(super) fn new(
        options: &DemoOptions,
        instances: &[InstanceId],
        resolution: Resolution,
        deployments: Vec<DeploymentReport>,
    ) -> Self {
        let endings: Vec<_> = deployments.iter().map(DeploymentReport::ending).collect();
        let alignment = options.front.alignment();
        let faults = deployments.iter();
        let mut faults: Vec<_> = faults
            .flat_map(|deployment| deployment.faults(alignment, instances))
            .collect();
        if endings != ENDINGS {
            faults.push(format!("they ended {endings:?} and not {ENDINGS:?}"));
        }
        Self {
            injected_delay_ms: options.injected_delay.as_millis(),
            front: options.front,
            runtime: options.runtime,
            barrier: options.barrier,
            held_up: faults.is_empty(),
            faults,
            resolution,
            deployments,
        }
    }

    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let rows = self.deployments.iter().map(|d| {
            format!(
                "{:<33} {:<8} {:<12} {:>8} {:>7} {:>6} {:>9.1} {:>8.1} {:>6} {:>9.1}\n",
                d.title,
                d.release,
                d.ending(),
                d.requests,
                d.failed,
                d.held,
                d.max_held_ms,
                d.hold_ms,
                d.stale,
                d.mixed_window_ms
            )
        });
        let rows: String = rows.collect();
        let head = format!(
            "{:<33} {:<8} {:<12} {:>8} {:>7} {:>6} {:>9} {:>8} {:>6} {:>9}",
            "deployment",
            "release",
            "outcome",
            "requests",
            "failed",
            "held",
            "max held",
            "hold",
            "stale",
            "window"
        );
        let line = "-".repeat(head.len());
        write!(text, "{head}\n{line}\n{rows}").expect("writing to a string does not fail");
        writeln!(
            text,
            "\nthe load asked each instance every {:.1} ms, stamped at its sockets, and was at most {:.1} ms \
             late: what is shorter than both together may have been missed",
            self.resolution.every_ms, self.resolution.late_ms
        )
        .expect("writing to a string does not fail");
        let checks = self.deployments.iter().map(|d| d.checks.len());
        let checked: usize = checks.sum();
        writeln!(text, "{checked} claims of the receipts checked")
            .expect("writing to a string does not fail");
        for fault in &self.faults {
            writeln!(text, "NOT BORNE OUT: {fault}").expect("writing to a string does not fail");
        }
        let verdict = match (self.held_up, self.barrier) {
            (true, _) if self.front.alignment() == Alignment::Aligned => ALIGNED,
            (true, _) => "every guarantee held: no request failed, no mixed window",
            (false, Barrier::Fleet) => "A GUARANTEE DID NOT HOLD, OR WAS NOT SEEN TO HOLD",
            (false, Barrier::None) => WITHOUT_BARRIER,
        };
        writeln!(text, "{verdict}").expect("writing to a string does not fail");
        text
    }
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
    use super::*;
    use std::time::Duration;

    const GATED: FrontKind = FrontKind::Builtin;
    const RELOADED: FrontKind = FrontKind::NginxReload;

    #[test]
    fn what_ended_as_it_should_and_was_seen_to_holds_up() {
        for front in [GATED, RELOADED] {
            let report = report(front, |_| {});
            assert!(report.held_up, "{:?}", report.faults);
        }
    }

    #[test]
    fn each_guarantee_that_does_not_hold_is_enough_by_itself() {
        let one_thing = |spoil: fn(&mut [DeploymentReport; 5])| {
            let report = report(GATED, spoil);
            assert!(!report.held_up);
            let [fault] = &report.faults[..] else {
                panic!("{:?}", report.faults);
            };
            fault.clone()
        };
        assert_eq!(one_thing(|d| d[0].failed = 1), "v2: failed requests: 1"); // G3
        assert_eq!(one_thing(|d| d[4].stale = 2), "v2: stale requests: 2"); // G1
        let split = |d: &mut [DeploymentReport; 5]| {
            d[0].split.insert("a".into(), Outcome::Promoted);
        };
        assert_eq!(one_thing(split), "v2: the fleet is split"); // G2
        assert_eq!(one_thing(|d| d[3].checks[5].holds = false), "v5: claim 5"); // G5
        // G2: what was aborted has answered nowhere.
        let too_early = |d: &mut [DeploymentReport; 5]| {
            d[1].answered.insert("v3".to_owned(), ["b".into()].into());
        };
        assert!(one_thing(too_early).starts_with("v3: `v3` answered on 1 "));
        let ended = one_thing(|d| d[1].outcome = None);
        assert!(ended.contains("\"unknown\""), "{ended}");
    }

    #[test]
    fn where_nothing_was_seen_nothing_holds_up() {
        let spoils: [fn(&mut [DeploymentReport; 5]); 7] = [
            |d| d[1].requests = 0,
            |d| d[0].answered.clear(),
            |d| {
                d[3].answered.insert("v5".to_owned(), ["a".into()].into());
            },
            |d| drop(d[2].answered.remove("v4")),
            |d| drop(d[0].checks.pop()),
            // The rollback has claims of its own.
            |d| d[2].checks.truncate(8),
            |d| d[4].checks.clear(),
        ];
        for (number, spoil) in spoils.into_iter().enumerate() {
            let report = report(GATED, spoil);
            assert!(!report.held_up, "{number}");
            assert_eq!(report.faults.len(), 1, "{number}: {:?}", report.faults);
        }
        let report = report(GATED, |_| {});
        let mut cut_short = report.deployments;
        cut_short.pop();
        assert!(
            !DemoReport::new(&options(GATED), &fleet(), Resolution::default(), cut_short).held_up
        );
    }

    #[test]
    fn without_a_gate_users_may_see_both_releases_and_everything_else_holds() {
        let seen = report(RELOADED, |d| {
            d[0].failed = 1;
            d[0].stale = 1;
            d[0].checks.truncate(2);
        });
        assert!(seen.held_up, "{:?}", seen.faults);
        assert!(!report(RELOADED, |d| d[0].checks.clear()).held_up);
        assert!(!report(RELOADED, |d| d[0].checks[0].holds = false).held_up);
    }

    /// The demo's report if all goes well, but for this.
    fn report(front: FrontKind, spoil: impl FnOnce(&mut [DeploymentReport; 5])) -> DemoReport {
        let reason = || "as told".to_owned();
        let mut deployments = [
            deployment("v2", Outcome::Promoted),
            deployment("v3", Outcome::Aborted { reason: reason() }),
            deployment("v4", Outcome::RolledBack { reason: reason() }),
            deployment("v5", Outcome::Promoted),
            deployment("v2", Outcome::Promoted),
        ];
        spoil(&mut deployments);
        DemoReport::new(
            &options(front),
            &fleet(),
            Resolution::default(),
            deployments.into(),
        )
    }

    fn deployment(release: &str, outcome: Outcome) -> DeploymentReport {
        let cut_overs = match &outcome {
            Outcome::Promoted => 1,
            Outcome::RolledBack { .. } => 2,
            Outcome::Aborted { .. } | Outcome::Stuck { .. } => 0,
        };
        let check = |number: usize| Check {
            claim: format!("claim {number}"),
            holds: true,
            missing: None,
        };
        let answered = match cut_overs {
            0 => BTreeMap::new(),
            _ => BTreeMap::from([(release.to_owned(), fleet().into())]),
        };
        DeploymentReport {
            title: release.to_owned(),
            release: release.to_owned(),
            outcome: Some(outcome),
            split: BTreeMap::new(),
            requests: 1,
            failed: 0,
            held: 0,
            max_held_ms: 0.0,
            hold_ms: 0.0,
            stale: 0,
            mixed_window_ms: 0.0,
            failures: BTreeMap::new(),
            answered,
            max_latency_ms: 0.0,
            checks: (0..cut_overs * 8).map(check).collect(),
            instances: Vec::new(),
        }
    }

    fn fleet() -> [InstanceId; 2] {
        ["a".into(), "b".into()]
    }

    fn options(front: FrontKind) -> DemoOptions {
        DemoOptions {
            injected_delay: Duration::ZERO,
            front,
            runtime: RuntimeKind::Process,
            barrier: Barrier::Fleet,
            keep: None,
        }
    }
}
