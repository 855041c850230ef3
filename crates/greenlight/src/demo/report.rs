//! The demo's findings, as one document and as text.

use crate::load::Window;
use crate::receipt::{Check, CutOverReceipt, Receipt};
use greenlight_protocol::{InstanceId, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Everything that the demo found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DemoReport {
    /// How late the control messages of the second instance were, in milliseconds.
    pub late_ms: u128,
    /// Whether every guarantee held.
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
    /// How it ended.
    pub outcome: Option<Outcome>,
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
    pub instances: Vec<BTreeMap<InstanceId, crate::receipt::InstanceReceipt>>,
}

impl DeploymentReport {
    /// Joins what the receipt says with what the load saw.
    pub fn new(title: &str, receipt: &Receipt, window: Window) -> Self {
        let cut_overs = &receipt.cut_overs;
        let hold = |cut_over: &CutOverReceipt| {
            let instances = cut_over.instances.values();
            let opened = instances
                .filter_map(|i| Some(i.switched.as_ref()?.opened_at_ns))
                .max()?;
            Some(opened.saturating_sub(cut_over.hold_sent_ns?))
        };
        Self {
            title: title.to_owned(),
            release: receipt
                .releases
                .values()
                .next()
                .cloned()
                .unwrap_or_default(),
            outcome: receipt.outcome.clone(),
            requests: window.requests,
            failed: window.failed,
            held: cut_overs.iter().map(CutOverReceipt::held).sum(),
            max_held_ms: cut_overs
                .iter()
                .map(|c| millis(c.max_held_us() * 1000))
                .fold(0.0, f64::max),
            hold_ms: cut_overs
                .iter()
                .filter_map(hold)
                .map(millis)
                .fold(0.0, f64::max),
            stale: window.stale,
            mixed_window_ms: window.mixed_window_ms,
            failures: window.failures,
            max_latency_ms: window.max_latency_ms,
            checks: cut_overs.iter().flat_map(CutOverReceipt::checks).collect(),
            instances: cut_overs.iter().map(|c| c.instances.clone()).collect(),
        }
    }

    /// Whether every guarantee held in this deployment.
    pub fn held_up(&self) -> bool {
        self.failed == 0 && self.stale == 0 && self.checks.iter().all(|check| check.holds)
    }
}

impl DemoReport {
    /// The whole report; it holds up if each deployment does and ended as it should.
    pub fn new(late: Duration, deployments: Vec<DeploymentReport>) -> Self {
        let ended_well = deployments.iter().map(|deployment| &deployment.outcome);
        let as_expected = ended_well.map(|outcome| match outcome {
            Some(Outcome::Promoted) => 'p',
            Some(Outcome::Aborted { .. }) => 'a',
            Some(Outcome::RolledBack { .. }) => 'r',
            Some(Outcome::Stuck { .. }) | None => '?',
        });
        let as_expected = as_expected.collect::<String>() == "parpp";
        Self {
            late_ms: late.as_millis(),
            held_up: as_expected && deployments.iter().all(DeploymentReport::held_up),
            deployments,
        }
    }

    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let rows = self.deployments.iter().map(|d| {
            let outcome = match &d.outcome {
                Some(Outcome::Promoted) => "promoted",
                Some(Outcome::Aborted { .. }) => "aborted",
                Some(Outcome::RolledBack { .. }) => "rolled back",
                Some(Outcome::Stuck { .. }) => "stuck",
                None => "unknown",
            };
            format!(
                "{:<33} {:<8} {:<12} {:>8} {:>7} {:>6} {:>9.1} {:>8.1} {:>6} {:>9.1}\n",
                d.title,
                d.release,
                outcome,
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
        let verdict = if self.held_up {
            "every guarantee held: no request failed, no mixed window"
        } else {
            "A GUARANTEE DID NOT HOLD"
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
