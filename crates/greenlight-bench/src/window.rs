//! `window`: for how long do two versions answer at the same time, seen by users?
//!
//! The same fleet under the same load is cut over again and again, first through the protocol,
//! then by flipping each proxy directly, without a hold. One instance's control messages are
//! late, because a flip without a hold looks perfect as long as nothing is.

use crate::report::{Bound, BoundKind, Report, Table};
use crate::rig::{Rig, SERVICE};
use crate::statistics::Summary;
use crate::{Outcome, Setting};
use greenlight::load::{Flip, Load, Sample, Segment, Window, analyse};
use greenlight_admin::{AdminClient, Color, OpenRequest};
use greenlight_link::receipt::Receipt;
use greenlight_protocol::{Policy, ServiceName};
use greenlight_shell::clock::monotonic_ns;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

const LATE_MS: [u64; 3] = [0, 5, 50];
/// Requests a second to each of the two instances, in the open loop.
const RATE: u32 = 1000;
/// Every so many requests come over a new connection.
const FRESH: u64 = 20;
/// Between one flip and the next.
const PAUSE: Duration = Duration::from_millis(150);
/// Epochs that no deployment of this run reaches.
const FIRST_FLIP: u64 = 1_000_000;

/// What one way of switching led to, with one lateness.
#[derive(Clone, Debug, Serialize)]
struct Series {
    late_ms: u64,
    method: Method,
    cut_overs: Vec<Window>,
    /// From the first `Hold` sent to the last switch confirmed; nothing for a flip.
    hold_ms: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Method {
    Gate,
    PlainFlip,
}

/// One change of version, as it went.
struct Flipped {
    from_ns: u64,
    until_ns: u64,
    flip: Flip,
    hold_ms: Option<f64>,
}

/// Runs the benchmark; returns whether the required bounds are met.
pub(crate) fn run(setting: &Setting) -> Outcome<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut all = Vec::new();
    for late_ms in LATE_MS {
        eprintln!("one instance {late_ms} ms late");
        all.extend(runtime.block_on(measure(setting, late_ms))?);
    }
    let mut table = Table::new([
        "one instance late",
        "by",
        "cut-overs",
        "requests",
        "failed",
        "stale requests",
        "with a window",
        "window ms: median, worst",
        "hold ms: median, worst",
        "slowest answer ms: median, worst",
    ]);
    let mut bounds = Vec::new();
    for series in &all {
        let sum = |figure: fn(&Window) -> usize| series.cut_overs.iter().map(figure).sum::<usize>();
        let shown = |summary: Option<Summary>| {
            summary.map_or_else(
                || "-".to_owned(),
                |s| format!("{:.1}, {:.1}", s.median, s.max),
            )
        };
        let (stale, failed) = (sum(|w| w.stale), sum(|w| w.failed));
        let name = match series.method {
            Method::Gate => "the gate",
            Method::PlainFlip => "plain flip",
        };
        let mixed = series.cut_overs.iter().filter(|w| w.stale > 0).count();
        table.row([
            format!("{} ms", series.late_ms),
            name.to_owned(),
            series.cut_overs.len().to_string(),
            sum(|w| w.requests).to_string(),
            failed.to_string(),
            stale.to_string(),
            mixed.to_string(),
            shown(Summary::of(
                series.cut_overs.iter().map(|w| w.mixed_window_ms),
            )),
            shown(Summary::of(series.hold_ms.iter().copied())),
            shown(Summary::of(
                series.cut_overs.iter().map(|w| w.max_latency_ms),
            )),
        ]);
        if series.method == Method::Gate {
            for (what, measured) in [("stale", stale), ("failed", failed)] {
                bounds.push(Bound {
                    name: format!("{what} requests with the gate, {} ms late", series.late_ms),
                    limit: 0.0,
                    measured: f64::from(u32::try_from(measured).unwrap_or(u32::MAX)),
                    kind: BoundKind::Required,
                });
            }
        }
    }
    Ok(Report::new("window", bounds, all).publish(&table, &setting.results)?)
}

async fn measure(setting: &Setting, late_ms: u64) -> Outcome<[Series; 2]> {
    let late = Duration::from_millis(late_ms);
    let rig = Rig::start(setting, &[Duration::ZERO, late]).await?;
    let measured = cut_over_again_and_again(setting, &rig, late).await;
    rig.stop().await;
    let (samples, changes, flipped_from) = measured?;
    let mut gate = windows(&samples, &changes);
    let plain = gate.split_off(flipped_from);
    let series = |method, cut_overs, changes: &[Flipped]| Series {
        late_ms,
        method,
        cut_overs,
        hold_ms: changes.iter().filter_map(|change| change.hold_ms).collect(),
    };
    Ok([
        series(Method::Gate, gate, &changes[..flipped_from]),
        series(Method::PlainFlip, plain, &changes[flipped_from..]),
    ])
}

/// What the load saw, all changes in order, and from which on they were plain flips.
type Measured = (Vec<Sample>, Vec<Flipped>, usize);

async fn cut_over_again_and_again(
    setting: &Setting,
    rig: &Rig,
    late: Duration,
) -> Outcome<Measured> {
    let policy = Policy {
        // A noisy machine must not end the measurement.
        hold_budget: Duration::from_secs(1),
        watch: Duration::from_millis(100),
        keep_warm: Duration::from_hours(1),
        ..Policy::default()
    };
    for version in ["v1", "v2"] {
        rig.deploy(version, Duration::ZERO, &policy).await?;
    }
    let count = setting.rounds.unwrap_or(100);
    let load = Load::start(rig.targets(), RATE, FRESH)?;
    let mut changes = Vec::new();
    for _ in 0..count {
        let from_ns = monotonic_ns();
        let receipt = rig.rollback(&policy).await?;
        changes.push(told(&receipt, from_ns).ok_or("a receipt lacks the time of the commit")?);
    }
    let flipped_from = changes.len();
    let last = changes.last().map(|change| change.flip.clone());
    let mut names = last.and_then(|flip| Some((flip.old.into_iter().next()?, flip.new)));
    let admins: Vec<_> = rig
        .admin_sockets()
        .into_iter()
        .map(AdminClient::new)
        .collect();
    for number in 0..count as u64 {
        names = names.map(|(old, new)| (new, old));
        let (old, new) = names.clone().ok_or("there is nothing to flip")?;
        changes.push(flip(&admins, FIRST_FLIP + number, late, old, new).await?);
    }
    Ok((load.stop(), changes, flipped_from))
}

/// A change according to its receipt.
fn told(receipt: &Receipt, from_ns: u64) -> Option<Flipped> {
    let service = ServiceName::from(SERVICE);
    let cut_over = receipt.cut_overs.first()?;
    Some(Flipped {
        from_ns,
        until_ns: monotonic_ns(),
        flip: Flip {
            old: [receipt.previous.get(&service)?.clone()].into(),
            new: receipt.releases.get(&service)?.clone(),
            decided_ns: cut_over.committed_ns?,
        },
        hold_ms: cut_over.hold_ms(),
    })
}

/// Opens every gate to the other color at once; the message to the last comes late.
async fn flip(
    admins: &[AdminClient],
    epoch: u64,
    late: Duration,
    old: String,
    new: String,
) -> Outcome<Flipped> {
    let status = admins
        .first()
        .ok_or("there are no proxies")?
        .status()
        .await?;
    let color = match status
        .services
        .get(SERVICE)
        .and_then(|service| service.color)
    {
        Some(Color::Blue) => Color::Green,
        Some(Color::Green) => Color::Blue,
        None => return Err("the proxy serves nothing".into()),
    };
    let request = OpenRequest {
        epoch,
        services: BTreeMap::from([(SERVICE.to_owned(), Some(color))]),
    };
    let from_ns = monotonic_ns();
    let opening = admins.iter().enumerate().map(|(number, admin)| {
        let request = &request;
        async move {
            if number + 1 == admins.len() {
                tokio::time::sleep(late).await;
            }
            admin.open(request).await
        }
    });
    futures_util::future::try_join_all(opening).await?;
    tokio::time::sleep(PAUSE).await;
    Ok(Flipped {
        from_ns,
        until_ns: monotonic_ns(),
        flip: Flip {
            old: [old].into(),
            new,
            decided_ns: from_ns,
        },
        hold_ms: None,
    })
}

/// What users saw of each change. A request that was sent during one and answered after the next
/// was decided is judged by the next, which goes back to what the one before calls old.
fn windows(samples: &[Sample], changes: &[Flipped]) -> Vec<Window> {
    let window = |(number, change): (usize, &Flipped)| {
        let segment = Segment {
            from_ns: change.from_ns,
            until_ns: change.until_ns,
        };
        let until_next = changes.iter().skip(number).take(2);
        let flips: Vec<_> = until_next.map(|change| change.flip.clone()).collect();
        analyse(samples, segment, &flips)
    };
    changes.iter().enumerate().map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_judged_by_what_was_sent_while_it_lasted() {
        let changes = [change(100, "v1", "v2"), change(1_000, "v2", "v1")];
        let samples = [
            answer("v2", 110, 120),
            answer("v1", 130, 140),
            answer("v1", 1_010, 1_020),
            answer("v1", 1_030, 1_040),
        ];
        let stale: Vec<_> = windows(&samples, &changes)
            .iter()
            .map(|w| w.stale)
            .collect();
        assert_eq!(stale, [1, 0]);
    }

    #[test]
    fn a_request_that_the_next_change_lets_go_is_not_stale_in_the_one_before() {
        let changes = [change(100, "v1", "v2"), change(1_000, "v2", "v1")];
        let samples = [answer("v2", 110, 120), answer("v1", 990, 1_100)];
        let stale: Vec<_> = windows(&samples, &changes)
            .iter()
            .map(|w| w.stale)
            .collect();
        assert_eq!(stale, [0, 0]);
    }

    fn change(from_ns: u64, old: &str, new: &str) -> Flipped {
        Flipped {
            from_ns,
            until_ns: from_ns + 900,
            flip: Flip {
                old: [old.to_owned()].into(),
                new: new.to_owned(),
                decided_ns: from_ns,
            },
            hold_ms: None,
        }
    }

    fn answer(release: &str, sent_ns: u64, received_ns: u64) -> Sample {
        Sample {
            instance: 0,
            key: None,
            due_ns: sent_ns,
            sent_ns,
            received_ns,
            result: Ok(release.to_owned()),
        }
    }
}
