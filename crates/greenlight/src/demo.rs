//! `greenlight demo`: the main job, on this machine, under load, with the receipts to prove it.

mod application;
mod nginx;
mod report;
mod scenario;

pub use nginx::{WrittenNginx, write_nginx};
pub use report::{DemoReport, DeploymentReport, Resolution};

use crate::load::{Flip, Load, Segment, analyse};
use crate::local::FleetError;
use application::Application;
use greenlight_agent::nginx::AttachError;
use greenlight_agent::runtime::RuntimeError;
use greenlight_link::ApiError;
use greenlight_link::api::NumberedEvent;
use greenlight_link::receipt::Receipt;
use greenlight_protocol::{Direction, InstanceId, ServiceName};
use greenlight_release::front::FrontKind;
use greenlight_release::nginx::ValueError;
use greenlight_release::runtime::RuntimeKind;
use scenario::{Kind, Scenario};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The service that is deployed.
const SERVICE: &str = "sample";
/// Requests a second to each instance: enough to see a window of a few milliseconds.
const RATE: u32 = 400;
/// Every so many requests come over a new connection.
const FRESH: u64 = 10;

/// The options of the demo.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// How late the control messages of the second instance are.
    pub injected_delay: Duration,
    /// What receives user traffic.
    pub front: FrontKind,
    /// What runs the application.
    pub runtime: RuntimeKind,
    /// What switches together.
    pub barrier: Barrier,
    /// Where to keep the state; a temporary folder if none.
    pub keep: Option<PathBuf>,
}

/// What switches together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Barrier {
    /// All instances: one fleet.
    Fleet,
    /// Each instance for itself, as scripts on each machine do.
    None,
}

/// Why the demo could not run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Files, addresses or threads.
    #[error("the demo cannot run: {0}")]
    Io(#[from] std::io::Error),
    /// The Nginx of an instance.
    #[error(transparent)]
    Nginx(#[from] AttachError),
    /// What runs the application.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A path that Nginx would not take.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The fleet did not come up.
    #[error("the fleet did not come up in time; its logs are in `{}`", .0.display())]
    NotUp(PathBuf),
    /// A person has seen enough.
    #[error("interrupted; everything that was started is stopped")]
    Interrupted,
}

/// What shows the demo as it goes on.
pub trait Printer {
    /// Shows an event of a deployment.
    fn show(&mut self, event: &NumberedEvent);
    /// Shows a remark.
    fn say(&self, text: &str);
    /// Nothing more is shown.
    fn end(&mut self);
}

/// Runs the demo and shows its progress. Everything it starts is stopped again.
pub async fn run(
    options: &DemoOptions,
    printer: Box<dyn Printer>,
) -> Result<DemoReport, DemoError> {
    let dir = options.keep.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("greenlight-demo-{}", std::process::id()))
    });
    // Signals are caught from here on; one that arrives during the preparation takes effect after
    // it.
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let told_to_end = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let application = Application::make(options.runtime).await?;
    let result = run_scenario(options, &dir, printer, &application, told_to_end).await;
    application.remove(result.is_ok()).await;
    let done_with = !matches!(result, Err(DemoError::NotUp(_)));
    if options.keep.is_none() && done_with {
        // A temporary folder that cannot be removed does no harm.
        let _ = std::fs::remove_dir_all(&dir);
    }
    result
}

/// Sets the scenario up, runs it, and takes it down again.
async fn run_scenario(
    options: &DemoOptions,
    dir: &Path,
    printer: Box<dyn Printer>,
    application: &Application,
    told_to_end: impl Future<Output = ()>,
) -> Result<DemoReport, DemoError> {
    let scenario = Scenario::set_up(options, dir, printer, application).await?;
    let result = tokio::select! {
        biased;
        () = told_to_end => Err(DemoError::Interrupted),
        report = run_steps(options, &scenario) => report,
    };
    scenario.take_down().await;
    result
}

async fn run_steps(
    options: &DemoOptions,
    scenario: &Scenario<'_>,
) -> Result<DemoReport, DemoError> {
    if let Some(made) = scenario.application().described() {
        scenario.say(&made);
    }
    scenario.wait_until_up().await?;
    scenario.say("two instances are up; release v1 is put in place");
    scenario.deploy("first", "v1", Kind::Good).await?;
    let load = Load::start(scenario.targets(), RATE, FRESH)?;
    scenario.say("load: GET through both public ports");
    let mut seen = Vec::new();
    scenario.say("\n(a) a good release");
    seen.push(scenario.deploy("a good release", "v2", Kind::Good).await?);
    scenario.say("\n(b) a release that fails its check on one instance");
    let title = "fails its check on one instance";
    seen.push(scenario.deploy(title, "v3", Kind::FailsItsCheck).await?);
    scenario.say("\n(c) a release that dies right after the cut-over");
    let title = "dies right after the cut-over";
    seen.push(scenario.deploy(title, "v4", Kind::Dies).await?);
    scenario.say("\n(d) another good release, and then back from it, warm");
    seen.push(
        scenario
            .deploy("another good release", "v5", Kind::Good)
            .await?,
    );
    seen.push(scenario.rollback("a warm rollback").await?);
    let resolution = Resolution::of(RATE, load.lateness_ns());
    let samples = load.stop();
    let instances: Vec<_> = scenario.instances().map(|its| its.name.clone()).collect();
    let deployments = seen.iter().map(|seen| {
        let segment = Segment {
            from_ns: seen.from_ns,
            until_ns: seen.until_ns,
        };
        let window = analyse(&samples, segment, &flips(&seen.receipts));
        DeploymentReport::new(seen, window, &instances)
    });
    let deployments = deployments.collect();
    Ok(DemoReport::new(
        options,
        &instances,
        resolution,
        deployments,
    ))
}

/// The changes of release that the receipts tell of, in order. Where each instance has a receipt
/// of its own, a change begins with the first of them.
fn flips(receipts: &BTreeMap<InstanceId, Receipt>) -> Vec<Flip> {
    let service = ServiceName::from(SERVICE);
    let name =
        |names: &BTreeMap<ServiceName, String>| names.get(&service).cloned().unwrap_or_default();
    let mut flips: BTreeMap<Direction, Flip> = BTreeMap::new();
    for receipt in receipts.values() {
        let (new, old) = (name(&receipt.releases), name(&receipt.previous));
        for cut_over in &receipt.cut_overs {
            let Some(decided_ns) = cut_over.committed_ns else {
                continue;
            };
            let (old, new) = match cut_over.direction {
                Direction::Forward => (old.clone(), new.clone()),
                Direction::Back => (new.clone(), old.clone()),
            };
            let flip = flips.entry(cut_over.direction).or_insert_with(|| Flip {
                old: BTreeSet::new(),
                new,
                decided_ns,
            });
            flip.old.insert(old);
            flip.decided_ns = flip.decided_ns.min(decided_ns);
        }
    }
    let mut flips: Vec<_> = flips.into_values().collect();
    flips.sort_by_key(|flip| flip.decided_ns);
    flips
}
