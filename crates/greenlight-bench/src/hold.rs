//! `hold`: how long requests wait at a cut-over, against what physics makes of it.
//!
//! A hold cannot be shorter than one round trip to the slowest instance, one disk write, and the
//! way of `Switch`. The round trip is that of another directive and its report over the same
//! links to all instances at once, taken right before each cut-over; the disk write is a plain
//! append and `fdatasync` in the folder of the server's journal.

mod fakes;
mod fleet;

use crate::report::{Bound, BoundKind, Report, Table};
use crate::statistics::Summary;
use crate::{Outcome, Setting};
use fleet::Fleet;
use greenlight_link::receipt::CutOverReceipt;
use greenlight_protocol::coordinator::{Command, DeploymentRequest, Promotion, RollbackRequest};
use greenlight_protocol::{DeploymentId, Plan, Policy, ServiceName, Strategy};
use greenlight_release::health::HealthCheck;
use greenlight_release::spec::{Artifact, ServiceSpec};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Instances, and how late the link of the last is, in milliseconds.
const FLEETS: [(usize, u64); 9] = [
    (2, 0),
    (10, 0),
    (100, 0),
    (2, 5),
    (2, 50),
    (10, 5),
    (10, 50),
    (100, 5),
    (100, 50),
];
/// Round trips and disk writes that are timed before each cut-over.
const SAMPLES: usize = 5;

/// All cut-overs of one fleet.
#[derive(Clone, Debug, Serialize)]
struct Series {
    instances: usize,
    late_ms: u64,
    rounds: Vec<Round>,
}

/// One cut-over. All times are in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    /// From the first `Hold` sent to the last gate opened.
    hold: f64,
    /// From the first `Hold` sent to the commit being durable.
    until_commit: f64,
    /// How long the journal took for the commit.
    commit: f64,
    /// Until all instances had answered a directive sent to all at once.
    link: f64,
    /// The same for one instance, the others being quiet.
    lone_link: f64,
    /// Append and `fdatasync`.
    fsync: f64,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.hold / (self.link + self.fsync)
    }
}

/// Runs the benchmark; returns whether the required bounds are met.
pub(crate) fn run(setting: &Setting) -> Outcome<bool> {
    let mut table = Table::new([
        "instances",
        "one link late",
        "hold ms",
        "round trip ms",
        "lone link ms",
        "fsync ms",
        "commit ms",
        "hold to round trip + fsync: median (IQR)",
        "worst",
    ]);
    let (mut all, mut bounds) = (Vec::new(), Vec::new());
    for (instances, late_ms) in FLEETS {
        let series = series(setting, instances, late_ms)?;
        let of = |figure: fn(&Round) -> f64| Summary::of(series.rounds.iter().map(figure));
        let ratio = of(Round::ratio).ok_or("no cut-over was measured")?;
        let shown = |figure| of(figure).map_or_else(String::new, |s| format!("{:.2}", s.median));
        table.row([
            instances.to_string(),
            format!("{late_ms} ms"),
            of(|r| r.hold).map_or_else(String::new, |s| s.spread(2)),
            shown(|r| r.link),
            shown(|r| r.lone_link),
            shown(|r| r.fsync),
            shown(|r| r.commit),
            ratio.spread(2),
            format!("{:.2}", ratio.max),
        ]);
        bounds.push(Bound {
            name: format!("hold to round trip + fsync, {instances} instances, {late_ms} ms late"),
            limit: 2.0,
            measured: ratio.median,
            kind: BoundKind::Required,
        });
        all.push(series);
    }
    Ok(Report::new("hold", bounds, all).publish(&table, &setting.results)?)
}

fn series(setting: &Setting, instances: usize, late_ms: u64) -> Outcome<Series> {
    eprintln!("{instances} instances, one link {late_ms} ms late");
    let dir = tempfile::tempdir_in(&setting.scratch)?;
    // A hundred machines have a hundred disks; here they would wait for one. The agents write
    // after their gates are open, so nothing that is timed rests on their disks.
    let memory = Path::new("/dev/shm");
    let elsewhere = memory.is_dir().then(|| tempfile::tempdir_in(memory));
    let elsewhere = elsewhere.transpose()?;
    let agents = elsewhere.as_ref().unwrap_or(&dir);
    let late = Duration::from_millis(late_ms);
    let port = answer_checks()?;
    let fleet = Fleet::start(dir.path(), agents.path(), instances, late, port)?;
    for version in ["v1", "v2"] {
        fleet.perform(Command::Deploy(Box::new(request(&fleet, version)?)))?;
    }
    let mut rounds = Vec::new();
    for _ in 0..setting.rounds.unwrap_or(20) {
        rounds.push(round(&fleet, dir.path())?);
    }
    Ok(Series {
        instances,
        late_ms,
        rounds,
    })
}

fn round(fleet: &Fleet, dir: &Path) -> Outcome<Round> {
    let one = fleet.names().iter().take(1).cloned().collect();
    let (mut together, mut alone, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        together.push(slowest(&fleet.ping(fleet.names())?));
        alone.push(slowest(&fleet.ping(&one)?));
        written.push(millis(time_fsync(&dir.join("server/fsync"))?));
    }
    // A rollback to what still runs is a cut-over like any other, and starts nothing.
    let request = request(fleet, "back")?;
    let back = RollbackRequest {
        deployment: request.deployment,
        requested_by: request.requested_by,
        plan: request.plan,
        policy: Some(request.policy),
    };
    let receipt = fleet.perform(Command::Rollback(Box::new(back)))?;
    let cut_over = receipt
        .cut_overs
        .first()
        .ok_or("the receipt has no cut-over")?;
    let (hold, until_commit) = times(cut_over).ok_or("the receipt lacks the times of the hold")?;
    let median = |values: Vec<f64>| Summary::of(values).map_or(f64::NAN, |s| s.median);
    let commit = Duration::from_micros(cut_over.commit_sync_us.unwrap_or(0));
    Ok(Round {
        hold: millis(hold),
        until_commit: millis(until_commit),
        commit: millis(commit),
        link: median(together),
        lone_link: median(alone),
        fsync: median(written),
    })
}

/// From the first `Hold` sent to the last gate opened, and to the commit.
fn times(cut_over: &CutOverReceipt) -> Option<(Duration, Duration)> {
    let began = cut_over.hold_sent_ns?;
    let opened = cut_over
        .instances
        .values()
        .map(|i| Some(i.switched.as_ref()?.opened_at_ns));
    let opened: Option<Vec<u64>> = opened.collect();
    let since = |ns: u64| Duration::from_nanos(ns.saturating_sub(began));
    Some((
        since(opened?.into_iter().max()?),
        since(cut_over.committed_ns?),
    ))
}

fn slowest(answers: &[Duration]) -> f64 {
    answers
        .iter()
        .max()
        .map_or(f64::NAN, |slowest| millis(*slowest))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// One page appended to a file, until it is on the disk.
fn time_fsync(path: &Path) -> std::io::Result<Duration> {
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)?;
    let began = Instant::now();
    file.write_all(&[7; 4096])?;
    file.sync_data()?;
    Ok(began.elapsed())
}

/// Answers the health checks of all instances; its thread ends with the program.
fn answer_checks() -> Outcome<u16> {
    let (sender, port) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            // The caller waits for the address or the failure.
            let _ = sender.send(crate::application::serve(2).await);
            std::future::pending::<()>().await;
        });
    });
    Ok(port.recv()??.port())
}

fn request(fleet: &Fleet, version: &str) -> Outcome<DeploymentRequest> {
    let spec = ServiceSpec {
        artifact: Artifact::command(vec!["nothing".to_owned()]),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        health: HealthCheck {
            interval: Duration::from_hours(1),
            successes: 1,
            ..HealthCheck::default()
        },
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        request_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(5),
    };
    Ok(DeploymentRequest {
        deployment: DeploymentId(format!(
            "{version}-{}",
            greenlight_shell::clock::monotonic_ns()
        )),
        requested_by: "the benchmark".to_owned(),
        releases: [(ServiceName::from("sample"), Some(spec.to_release(version)))].into(),
        plan: Plan::compile(Strategy::BlueGreen, fleet.names())?,
        policy: Policy {
            // A noisy machine must not end the measurement.
            hold_budget: Duration::from_secs(1),
            watch: Duration::from_millis(50),
            keep_warm: Duration::from_hours(1),
            ..Policy::default()
        },
        promotion: Promotion::Automatic,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_protocol::{InstanceId, SwitchEvidence};

    #[test]
    fn a_hold_lasts_until_the_last_gate_is_open() {
        let cut_over = receipt(&[("a", 5_000), ("b", 9_000)]);
        let (hold, until_commit) = times(&cut_over).expect("it has all times");
        assert_eq!(hold, Duration::from_micros(8));
        assert_eq!(until_commit, Duration::from_micros(3));
    }

    #[test]
    fn without_the_opening_of_every_gate_nothing_is_said_of_the_hold() {
        let mut cut_over = receipt(&[("a", 5_000)]);
        cut_over.instances.entry(InstanceId::from("b")).or_default();
        assert_eq!(times(&cut_over), None);
    }

    fn receipt(opened: &[(&str, u64)]) -> CutOverReceipt {
        let text = r#"{"epoch": 1, "direction": "forward", "hold_sent_ns": 1000,
            "committed_ns": 4000, "instances": {}}"#;
        let mut cut_over: CutOverReceipt = serde_json::from_str(text).expect("a receipt");
        for (name, opened_at_ns) in opened {
            let instance = cut_over
                .instances
                .entry(InstanceId::from(*name))
                .or_default();
            instance.switched = Some(SwitchEvidence {
                opened_at_ns: *opened_at_ns,
                released: 0,
                aligned: None,
            });
        }
        cut_over
    }
}
