//! `readiness`: how long does a fleet wait that could already have switched?
//!
//! Timed from the moment the new application answers its check on every instance until users get
//! only the new version from every instance. Against today's practice: a script on each machine
//! that asks every five seconds, rewrites nginx's upstream, and reloads nginx.

mod practice;

use crate::report::{Bound, BoundKind, Report, Table};
use crate::rig::{Rig, SERVICE};
use crate::statistics::Summary;
use crate::{Outcome, Setting};
use greenlight_agent::health::Probe;
use greenlight_protocol::{Policy, ServiceName};
use greenlight_release::health::HealthCheck;
use practice::Practice;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Between two checks of an application or a front.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// So many answers in a row must be from the new version before a front counts as switched.
const ENOUGH: u32 = 20;
/// How long a version may take to start and to be switched to.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the script of today's practice asks.
pub(crate) const POLL: Duration = Duration::from_secs(5);

/// Every measured wait, in milliseconds.
#[derive(Clone, Debug, Serialize)]
struct Waits {
    greenlight_ms: Vec<f64>,
    practice_ms: Vec<f64>,
}

/// Runs the benchmark; returns whether the required bounds are met.
pub(crate) fn run(setting: &Setting) -> Outcome<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let waits = runtime.block_on(measure(setting))?;
    let mut table = Table::new([
        "by",
        "deployments",
        "all switched after, ms: median (IQR)",
        "worst",
    ]);
    let (ours, theirs) = (
        Summary::of(waits.greenlight_ms.iter().copied()),
        Summary::of(waits.practice_ms.iter().copied()),
    );
    for (name, summary) in [
        ("greenlight", ours),
        ("poll every 5 s, nginx -s reload", theirs),
    ] {
        let Some(summary) = summary else { continue };
        let count = summary.count.to_string();
        let worst = format!("{:.0}", summary.max);
        table.row([name.to_owned(), count, summary.spread(0), worst]);
    }
    let bound = Bound {
        name: "the wait to today's practice, medians".to_owned(),
        limit: 1.0,
        measured: ours
            .zip(theirs)
            .map_or(f64::NAN, |(o, t)| o.median / t.median),
        kind: BoundKind::Required,
    };
    Ok(Report::new("readiness", vec![bound], waits).publish(&table, &setting.results)?)
}

async fn measure(setting: &Setting) -> Outcome<Waits> {
    let rounds = setting.rounds.unwrap_or(10);
    let rig = Rig::start(setting, &[Duration::ZERO; 2]).await?;
    let ours = with_greenlight(&rig, rounds).await;
    rig.stop().await;
    let mut practice = Practice::start(setting).await?;
    let mut theirs = Vec::new();
    for number in 0..rounds {
        eprintln!("today's practice: deployment {} of {rounds}", number + 1);
        let asking = phases(number, rounds);
        theirs.push(practice.deploy(startup(number), asking).await?);
    }
    Ok(Waits {
        greenlight_ms: ours?.iter().map(|wait| wait.as_secs_f64() * 1e3).collect(),
        practice_ms: theirs.iter().map(|wait| wait.as_secs_f64() * 1e3).collect(),
    })
}

async fn with_greenlight(rig: &Rig, rounds: usize) -> Outcome<Vec<Duration>> {
    let policy = Policy {
        watch: Duration::from_millis(100),
        keep_warm: Duration::ZERO,
        ..Policy::default()
    };
    let service = ServiceName::from(SERVICE);
    rig.deploy("first", Duration::ZERO, &policy).await?;
    let mut waits = Vec::new();
    for number in 0..rounds {
        eprintln!("greenlight: deployment {} of {rounds}", number + 1);
        // What was live before must be gone, or it would answer for the new one.
        let status = rig.wait(|status| !status.retiring && !status.warm).await?;
        let mut live = status.instances.values().flatten();
        let live = live
            .find_map(|status| status.live.get(&service))
            .ok_or("nothing is live")?;
        let coming = rig.applications(live.color.other());
        let version = format!("v{number}");
        let deployed = rig.deploy(&version, startup(number), &policy);
        let watched = wait_between(coming, rig.targets(), &version);
        let (_, wait) = tokio::try_join!(deployed, watched)?;
        waits.push(wait);
    }
    Ok(waits)
}

/// From when every application answers its check until every front serves only that version.
async fn wait_between(
    applications: Vec<SocketAddr>,
    fronts: Vec<SocketAddr>,
    version: &str,
) -> Outcome<Duration> {
    let ready = futures_util::future::try_join_all(applications.into_iter().map(answers));
    let switched = fronts.into_iter().map(|front| serves_only(front, version));
    let switched = futures_util::future::try_join_all(switched);
    let (ready, switched) = tokio::try_join!(ready, switched)?;
    let last = |times: Vec<Instant>| times.into_iter().max().ok_or("there are no instances");
    Ok(last(switched)?.saturating_duration_since(last(ready)?))
}

/// When an application first answers its check.
async fn answers(application: SocketAddr) -> Outcome<Instant> {
    let probe = Probe::new(application, HealthCheck::default());
    let deadline = Instant::now() + READY_TIMEOUT;
    while Instant::now() < deadline {
        if probe.ask().await.is_ok() {
            return Ok(Instant::now());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err("the new application does not start".into())
}

/// When a front began to serve nothing but this version, to new connections.
async fn serves_only(front: SocketAddr, version: &str) -> Outcome<Instant> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let (mut since, mut in_a_row) = (None, 0);
    while Instant::now() < deadline {
        if practice::release_at(front)
            .await
            .is_ok_and(|seen| seen == version)
        {
            since.get_or_insert_with(Instant::now);
            in_a_row += 1;
        } else {
            (since, in_a_row) = (None, 0);
        }
        if let Some(since) = since
            && in_a_row >= ENOUGH
        {
            return Ok(since);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(format!("`{version}` is not served at {front}").into())
}

/// How long the new version takes to start: different each time, the same for both ways.
fn startup(number: usize) -> Duration {
    let millis = 600 + (number as u64 * 397) % 1500;
    Duration::from_millis(millis)
}

/// When the scripts of both machines first ask. It is chance: spread evenly over the rounds, and
/// not the same for both.
pub(crate) fn phases(number: usize, rounds: usize) -> [Duration; 2] {
    let phases = [number, (number * 3 + rounds / 2) % rounds.max(1)];
    phases.map(|phase| share(POLL, phase, rounds))
}

fn share(whole: Duration, number: usize, of: usize) -> Duration {
    let parts = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    whole * parts(number) / parts(of).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_ask_at_times_spread_over_the_whole_interval() {
        let phases: Vec<_> = (0..4).map(|number| share(POLL, number, 4)).collect();
        let millis: Vec<_> = phases.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [0, 1250, 2500, 3750]);
    }
}
