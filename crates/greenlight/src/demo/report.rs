//! The demo's findings, as one document and as text.

use super::stage::Seen;
use super::{Barrier, DemoOptions};
use crate::front::FrontKind;
use crate::load::Window;
use crate::receipt::{Check, CutOverReceipt, InstanceReceipt};
use crate::runtime::RuntimeKind;
use greenlight_protocol::{Alignment, InstanceId, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    pub late_ms: u128,
    /// What received user traffic.
    #[serde(default)]
    pub front: FrontKind,
    /// What ran the application.
    #[serde(default)]
    pub runtime: RuntimeKind,
    /// What switched together.
    pub barrier: Barrier,
    /// Whether everything held that this front claims.
    pub held_up: bool,
    /// Each deployment, in order.
    pub deployments: Vec<DeploymentReport>,
}

/// What was found of one deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentReport {
    /// What it was to show.
    pub title: String,
    /// The label of the release that it brought.
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
    /// The slowest good answer, in milliseconds.
    pub max_latency_ms: f64,
    /// The claims, each checked against the evidence.
    pub checks: Vec<Check>,
    /// By cut-over and instance: the causal evidence.
    pub instances: Vec<BTreeMap<InstanceId, InstanceReceipt>>,
}

impl DeploymentReport {
    /// Joins what the receipts say with what the load saw.
    pub(super) fn new(seen: &Seen, window: Window) -> Self {
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
            max_latency_ms: window.max_latency_ms,
            checks: cut_overs().flat_map(CutOverReceipt::checks).collect(),
            instances: cut_overs().map(|c| c.instances.clone()).collect(),
        }
    }

    /// Whether everything held in this deployment that such a front claims: without a gate
    /// neither G1 nor all of G3.
    pub fn held_up(&self, alignment: Alignment) -> bool {
        let seen_by_users = match alignment {
            Alignment::Gated => self.failed == 0 && self.stale == 0,
            Alignment::Aligned => true,
        };
        seen_by_users && self.split.is_empty() && self.checks.iter().all(|check| check.holds)
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
    pub(super) fn new(options: &DemoOptions, deployments: Vec<DeploymentReport>) -> Self {
        let endings: Vec<_> = deployments.iter().map(DeploymentReport::ending).collect();
        let as_expected = endings == ENDINGS;
        Self {
            late_ms: options.late.as_millis(),
            front: options.front,
            runtime: options.runtime,
            barrier: options.barrier,
            held_up: as_expected
                && deployments
                    .iter()
                    .all(|deployment| deployment.held_up(options.front.alignment())),
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
        let checks = self.deployments.iter().flat_map(|d| &d.checks);
        let (good, bad): (Vec<_>, Vec<_>) = checks.partition(|check| check.holds);
        writeln!(
            text,
            "\n{} claims of the receipts checked",
            good.len() + bad.len()
        )
        .expect("writing to a string does not fail");
        for check in bad {
            writeln!(text, "NOT BORNE OUT: {}", check.claim)
                .expect("writing to a string does not fail");
        }
        let verdict = match (self.held_up, self.barrier) {
            (true, _) if self.front.alignment() == Alignment::Aligned => ALIGNED,
            (true, _) => "every guarantee held: no request failed, no mixed window",
            (false, Barrier::Fleet) => "A GUARANTEE DID NOT HOLD",
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
