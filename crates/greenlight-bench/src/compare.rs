//! `compare`: what users see of the same deployment, made in six ways.
//!
//! Two machines, each with its own front, behind a load balancer that sends an open-loop load to
//! healthy machines. The same application, which takes two seconds to start, is deployed again
//! and again: by recreating it, by rolling over the machines, by scripts with blue and green on
//! each machine, and by Greenlight with each of its fronts. What reaches the second machine to
//! command it is late. Measured from outside, by the balancer itself.
//!
//! `docs/design/comparison.md` says what the figures mean; `--write-docs` puts them there.

mod balancer;
mod figures;
mod page;
mod plot;
mod scripts;
mod subject;

use crate::machine::Weight;
use crate::memory::{self, Peak};
use crate::report::{Bound, BoundKind, Report, Table};
use crate::statistics::Summary;
use crate::{Outcome, Setting};
use balancer::Balancer;
use figures::{Figures, Span};
use greenlight::load::{Load, Sample};
use greenlight_shell::clock::monotonic_ns;
use serde::Serialize;
use std::time::Duration;
use subject::{Subject, Way};

/// Requests a second in all.
const RATE: u32 = 400;
/// Every so many come over a new connection.
const FRESH: u64 = 10;
/// How late the second machine hears what it is to do.
const LATE: Duration = Duration::from_millis(20);
/// The application, the same for all.
const APPLICATION: Weight = Weight {
    startup: Duration::from_secs(2),
    answer: Duration::from_millis(10),
    ballast_mb: 64,
};
/// Load before and after each deployment that is measured.
const AROUND: Duration = Duration::from_secs(1);
/// Deployments of each way.
const ROUNDS: usize = 5;

/// What one way of deploying led to.
#[derive(Debug, Serialize)]
struct Series {
    way: Way,
    rounds: Vec<Figures>,
    /// For the plot.
    #[serde(skip)]
    shown: Shown,
}

/// The deployment that is drawn: the one whose mixed window is the median.
#[derive(Debug, Default)]
struct Shown {
    figures: Figures,
    span: Span,
    samples: Vec<Sample>,
}

/// Runs the benchmark; returns whether the required bounds are met.
pub(crate) fn run(setting: &Setting) -> Outcome<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut all = Vec::new();
    for way in Way::ALL {
        all.push(runtime.block_on(measure(way, setting))?);
    }
    let table = table(&all);
    let picture = plot::draw(&all);
    std::fs::create_dir_all(&setting.results)?;
    std::fs::write(setting.results.join("compare.svg"), &picture)?;
    let report = Report::new("compare", bounds(&all), all);
    if let Some(docs) = &setting.write_docs {
        page::write(docs, &table, &picture, &report.finished, &report.machine)?;
    }
    Ok(report.publish(&table, &setting.results)?)
}

async fn measure(way: Way, setting: &Setting) -> Outcome<Series> {
    let rounds = setting.rounds.unwrap_or(ROUNDS);
    let mut subject = Subject::start(way, setting).await?;
    let measured = deploy_again_and_again(&mut subject, rounds).await;
    subject.stop().await;
    let (samples, spans) = measured?;
    let rounds: Vec<_> = spans
        .iter()
        .map(|span| Figures::of(&samples, span))
        .collect();
    let mut order: Vec<_> = (0..rounds.len()).collect();
    order.sort_by(|a, b| {
        let window = |n: usize| rounds[n].mixed_window_ms;
        window(*a).total_cmp(&window(*b))
    });
    let middle = *order.get(order.len() / 2).ok_or("there were no rounds")?;
    let span = spans[middle].clone();
    let samples = samples.into_iter().filter(|sample| span.has(sample));
    Ok(Series {
        way,
        shown: Shown {
            figures: rounds[middle].clone(),
            samples: samples.collect(),
            span,
        },
        rounds,
    })
}

async fn deploy_again_and_again(
    subject: &mut Subject,
    rounds: usize,
) -> Outcome<(Vec<Sample>, Vec<Span>)> {
    let way = subject.way();
    let mut old = "v0".to_owned();
    subject.deploy_first(&old).await?;
    let balancer = Balancer::start(subject.fronts());
    let load = Load::start_balanced(subject.fronts(), RATE, FRESH, balancer.choice())?;
    let mut spans = Vec::new();
    for number in 0..rounds {
        eprintln!("{}: deployment {} of {rounds}", way.name(), number + 1);
        let new = format!("v{}", number + 1);
        subject.settle().await?;
        tokio::time::sleep(AROUND).await;
        let memory_before = memory::below_this()?;
        let peak = Peak::start();
        let began_ns = monotonic_ns();
        subject.deploy(&new, number, rounds, &balancer).await?;
        tokio::time::sleep(AROUND).await;
        spans.push(Span {
            began_ns,
            ended_ns: monotonic_ns(),
            old,
            new: new.clone(),
            memory_before,
            memory_peak: peak.end(),
        });
        old = new;
    }
    Ok((load.stop(), spans))
}

fn table(all: &[Series]) -> Table {
    let mut table = Table::new([
        "median, worst",
        "failed requests",
        "outage ms",
        "mixed window ms",
        "traffic on the busiest instance",
        "deploy duration s",
        "extra memory MB",
        "memory before MB",
        "slowest answer ms",
    ]);
    for series in all {
        let summary = |figure: fn(&Figures) -> f64| Summary::of(series.rounds.iter().map(figure));
        let both = |summary: Option<Summary>, decimals: usize, unit: &str| match summary {
            Some(s) => format!("{:.decimals$}{unit}, {:.decimals$}{unit}", s.median, s.max),
            None => "-".to_owned(),
        };
        let median = |summary: Option<Summary>| match summary {
            Some(s) => format!("{:.0}", s.median),
            None => "-".to_owned(),
        };
        table.row([
            series.way.name().to_owned(),
            both(summary(|f| f.failed), 0, ""),
            both(summary(|f| f.outage_ms), 0, ""),
            both(summary(|f| f.mixed_window_ms), 0, ""),
            both(summary(|f| f.busiest_share * 100.0), 0, " %"),
            both(summary(|f| f.duration_ms / 1e3), 1, ""),
            median(summary(|f| f.extra_memory_mb)),
            median(summary(|f| f.memory_before_mb)),
            both(summary(|f| f.slowest_ms), 0, ""),
        ]);
    }
    table
}

fn bounds(all: &[Series]) -> Vec<Bound> {
    let mut bounds = Vec::new();
    let worst = |way: Way, figure: fn(&Figures) -> f64| {
        let series = all.iter().find(|series| series.way == way);
        let rounds = series.map_or(&[][..], |series| &series.rounds);
        Summary::of(rounds.iter().map(figure)).map_or(f64::NAN, |summary| summary.max)
    };
    for way in [Way::BehindNginx, Way::Builtin] {
        for (what, measured) in [
            ("failed requests", worst(way, |f| f.failed)),
            ("mixed window, ms", worst(way, |f| f.mixed_window_ms)),
        ] {
            bounds.push(Bound {
                name: format!("{what} of {}, worst", way.name()),
                limit: 0.0,
                measured,
                kind: BoundKind::Required,
            });
        }
    }
    bounds
}
