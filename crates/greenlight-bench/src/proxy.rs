//! `proxy`: what a request costs, against Debian's nginx and HAProxy.
//!
//! The proxy has core 0, generator and application share core 1. In each round every proxy is
//! started, warmed and measured once, in an order that changes; its CPU per request is compared
//! with nginx's of the same round, because the machine drifts by more than what is looked for.

mod contestant;
mod generator;

use crate::report::{Bound, BoundKind, Report, Table};
use crate::statistics::{Summary, ratios};
use crate::{Outcome, Setting, cpu_time};
use contestant::Contestant;
use generator::Generator;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use std::time::{Duration, Instant};

const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const CONNECTIONS: usize = 64;
const SIZES: [(usize, &str); 2] = [(1024, "1 KiB"), (64 * 1024, "64 KiB")];
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURE: Duration = Duration::from_millis(2500);

/// Every measured round.
#[derive(Clone, Debug, Serialize)]
struct Series {
    body_bytes: usize,
    connections: usize,
    proxies: Vec<Entry>,
}

/// One proxy's rounds.
#[derive(Clone, Debug, Serialize)]
struct Entry {
    proxy: Contestant,
    rounds: Vec<Option<Round>>,
    cpu_us: Option<Summary>,
    per_second: Option<Summary>,
    p50_ms: Option<Summary>,
    p99_ms: Option<Summary>,
    cpu_to_nginx: Option<Summary>,
}

/// One proxy in one round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    /// CPU per request in microseconds; none without a proxy.
    cpu_us: Option<f64>,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// The share of its core that the proxy used.
    busy: Option<f64>,
    failures: u64,
}

/// Runs the benchmark; returns whether the required bounds are met.
pub(crate) fn run(setting: &Setting) -> Outcome<bool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err("the proxy and its load need a core each; this machine has one".into());
    }
    let mut core = CpuSet::new();
    core.set(LOAD_CORE);
    // Only this thread: what is started later takes its own place.
    sched_setaffinity(None, &core)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut all = Vec::new();
    for (size, name) in SIZES {
        let local = tokio::task::LocalSet::new();
        all.push(local.block_on(&runtime, series(setting, size, name))?);
    }
    let mut table = Table::new([
        "body",
        "proxy",
        "req/s",
        "p50 ms",
        "p99 ms",
        "CPU us/req",
        "CPU to nginx: median (IQR)",
    ]);
    for (series, (_, size)) in all.iter().zip(SIZES) {
        for entry in &series.proxies {
            let figure = |summary: &Option<Summary>, decimals| {
                summary.map_or_else(|| "-".to_owned(), |s| format!("{:.decimals$}", s.median))
            };
            table.row([
                size.to_owned(),
                entry.proxy.name().to_owned(),
                figure(&entry.per_second, 0),
                figure(&entry.p50_ms, 2),
                figure(&entry.p99_ms, 2),
                figure(&entry.cpu_us, 1),
                entry
                    .cpu_to_nginx
                    .map_or_else(|| "-".to_owned(), |s| s.spread(2)),
            ]);
        }
    }
    let bound = |series: &Series, size: &str, limit, kind| {
        let ours = series
            .proxies
            .iter()
            .find(|e| e.proxy == Contestant::Greenlight);
        Bound {
            name: format!("CPU per request, {size}, to nginx's"),
            limit,
            measured: ours
                .and_then(|e| e.cpu_to_nginx)
                .map_or(f64::NAN, |s| s.median),
            kind,
        }
    };
    let bounds = vec![
        bound(&all[0], "1 KiB", 1.0, BoundKind::Required),
        bound(&all[1], "64 KiB", 0.6, BoundKind::Required),
        bound(&all[0], "1 KiB", 0.8, BoundKind::Aim),
    ];
    Ok(Report::new("proxy", bounds, all).publish(&table, &setting.results)?)
}

async fn series(setting: &Setting, size: usize, name: &str) -> Outcome<Series> {
    let application = crate::application::serve(size).await?;
    let mut rounds: Vec<Vec<Option<Round>>> = vec![Vec::new(); Contestant::ALL.len()];
    let count = setting.rounds.unwrap_or(9);
    for number in 0..count {
        eprintln!("{name}: round {} of {count}", number + 1);
        for turn in 0..Contestant::ALL.len() {
            let which = (turn + number) % Contestant::ALL.len();
            let round = measure(setting, Contestant::ALL[which], application).await?;
            rounds[which].push(round);
        }
    }
    let cpu = |rounds: &[Option<Round>]| -> Vec<Option<f64>> {
        rounds
            .iter()
            .map(|round| round.and_then(|r| r.cpu_us))
            .collect()
    };
    let nginx = Contestant::ALL.iter().position(|c| *c == Contestant::Nginx);
    let nginx = cpu(&rounds[nginx.expect("nginx takes part")]);
    let entries = Contestant::ALL.into_iter().zip(rounds);
    let entries = entries.map(|(proxy, rounds)| {
        let of = |figure: fn(&Round) -> Option<f64>| {
            Summary::of(rounds.iter().flatten().filter_map(figure))
        };
        Entry {
            proxy,
            cpu_us: of(|round| round.cpu_us),
            per_second: of(|round| Some(round.per_second)),
            p50_ms: of(|round| Some(round.p50_ms)),
            p99_ms: of(|round| Some(round.p99_ms)),
            cpu_to_nginx: Summary::of(ratios(&cpu(&rounds), &nginx)),
            rounds,
        }
    });
    Ok(Series {
        body_bytes: size,
        connections: CONNECTIONS,
        proxies: entries.collect(),
    })
}

/// `None` if requests failed: such a round does not show the cost of a request.
#[expect(clippy::cast_precision_loss, reason = "a round has no 2^52 requests")]
async fn measure(
    setting: &Setting,
    contestant: Contestant,
    application: std::net::SocketAddr,
) -> Outcome<Option<Round>> {
    let dir = tempfile::tempdir_in(&setting.scratch)?;
    let greenlight = &setting.greenlight;
    let proxy =
        contestant::start(contestant, greenlight, application, PROXY_CORE, dir.path()).await?;
    let generator = Generator::start(proxy.address, CONNECTIONS);
    let used = || {
        proxy
            .child
            .as_ref()
            .map(|child| cpu_time::of_tree(child.pid()))
            .transpose()
    };
    tokio::time::sleep(WARM_UP).await;
    generator.take();
    let (began, before) = (Instant::now(), used()?);
    tokio::time::sleep(MEASURE).await;
    let seen = generator.take();
    let (took, after) = (began.elapsed(), used()?);
    if seen.failures > 0 || seen.answers == 0 {
        eprintln!(
            "{}: {} requests failed; round left out",
            contestant.name(),
            seen.failures
        );
        return Ok(None);
    }
    let cpu = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before).as_secs_f64());
    let millis = |quantile| seen.latency.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Some(Round {
        cpu_us: cpu.map(|cpu| cpu * 1e6 / seen.answers as f64),
        per_second: seen.answers as f64 / took.as_secs_f64(),
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        busy: cpu.map(|cpu| cpu / took.as_secs_f64()),
        failures: seen.failures,
    }))
}
