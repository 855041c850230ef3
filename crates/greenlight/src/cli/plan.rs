//! `greenlight plan`: what a deployment would do, and what it would promise. Changes nothing.

use super::args::PlanArgs;
use super::fleet::{configuration, connect, membership_mismatch, orphans, version};
use super::releases::read_secrets;
use super::{Exit, Failure, Output, print, print_json};
use greenlight_link::api::{DeploymentStatus, FleetStatus, PhaseName};
use greenlight_protocol::{Alignment, Color, InstanceId, Plan, ServiceName, Strategy};
use greenlight_release::duration::written;
use greenlight_release::front::FrontKind;
use greenlight_shell::clock::utc;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What a deployment would do.
#[derive(Debug, Serialize)]
struct PlanDocument {
    strategy: Strategy,
    services: BTreeMap<ServiceName, ServiceChange>,
    waves: Vec<BTreeSet<InstanceId>>,
    instances: BTreeMap<InstanceId, Part>,
    front: FrontKind,
    /// Whether no two releases ever answer at once (G1).
    no_mixed_window: bool,
    /// Services that are live and not in the file; they stay as they are.
    orphans: Vec<ServiceName>,
    /// That the same release is being deployed already; `deploy` attaches to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    under_way: Option<String>,
    /// What prevents a deployment; the server would refuse it.
    obstacles: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ServiceChange {
    from: Option<String>,
    to: String,
    runs: String,
}

/// The port that a new release gets on an instance.
#[derive(Debug, Serialize)]
struct PlannedPort {
    /// Unknown while the instance is not connected.
    port: Option<u16>,
    /// Whether the file names it: otherwise another one is used if it is taken.
    named: bool,
}

#[derive(Debug, Serialize)]
struct Part {
    connected: bool,
    /// By service: the port that the new release gets.
    ports: BTreeMap<ServiceName, PlannedPort>,
}

/// `greenlight plan`.
pub(super) async fn plan(args: &PlanArgs, output: Output) -> Result<Exit, Failure> {
    let config = configuration(&args.file)?;
    let version = version(args.version.as_deref(), &args.file.file)?;
    let api = connect(&args.fleet, &args.file)?;
    let status: FleetStatus = api.get("/v1/status").await?;
    let fleet: BTreeSet<_> = status.instances.keys().cloned().collect();
    let compiled = Plan::compile(config.strategy.clone(), &fleet)
        .map_err(|error| Failure::new(Exit::Refused, error))?;
    let specs = config.specs(&version);
    let addresses = config.addresses();
    let mut obstacles = absent(&status);
    let labels = specs
        .keys()
        .map(|service| (service.clone(), version.clone()))
        .collect();
    let mut under_way = None;
    match &status.deployment {
        Some(busy) if attaches(busy, &labels) => under_way = Some(same(busy, &version)),
        Some(busy) => obstacles.push(other(busy)),
        None => {}
    }
    if let Err(failure) = read_secrets(&config, &args.file.file) {
        obstacles.push(failure.to_string());
    }
    obstacles.extend(membership_mismatch(&config, &status));
    let instances = status.instances.iter().map(|(name, standing)| {
        let requested = addresses.get(name).into_iter();
        let requested = requested.flat_map(|requested| &requested.ports);
        let ports = requested.map(|(service, ports)| {
            let port = standing.as_ref().map(|standing| {
                let live = standing.live.get(service).map(|live| live.color);
                let idle = live.map_or(Color::Blue, Color::other);
                ports.pair().of(idle)
            });
            let named = ports.is_named();
            (service.clone(), PlannedPort { port, named })
        });
        let part = Part {
            connected: standing.is_some(),
            ports: ports.collect(),
        };
        (name.clone(), part)
    });
    let document = PlanDocument {
        front: config.front,
        no_mixed_window: compiled.waves.len() == 1 && config.front.alignment() == Alignment::Gated,
        waves: compiled
            .waves
            .into_iter()
            .map(|wave| wave.instances)
            .collect(),
        services: specs
            .iter()
            .map(|(service, spec)| {
                let change = ServiceChange {
                    from: status.live.get(service).cloned(),
                    to: version.clone(),
                    runs: spec.artifact.to_string(),
                };
                (service.clone(), change)
            })
            .collect(),
        instances: instances.collect(),
        strategy: config.strategy.clone(),
        orphans: orphans(&config, &status),
        under_way,
        obstacles,
    };
    match output {
        Output::Json => print_json(&document)?,
        Output::Text => print(&document.render(&config.policy))?,
    }
    Ok(match document.obstacles.is_empty() {
        true => Exit::Done,
        false => Exit::Refused,
    })
}

fn absent(status: &FleetStatus) -> Vec<String> {
    let instances = status.instances.iter();
    let away = instances.filter(|(_, standing)| standing.is_none());
    away.map(|(name, _)| format!("instance `{name}` is not connected; start its agent"))
        .collect()
}

/// Whether the deployment under way brings just these releases.
fn attaches(busy: &DeploymentStatus, labels: &BTreeMap<ServiceName, String>) -> bool {
    busy.releases == *labels && busy.removed.is_empty()
}

fn same(busy: &DeploymentStatus, version: &str) -> String {
    if busy.phase == PhaseName::Ready {
        format!("`{version}` is prepared; `deploy` or `promote` cuts over")
    } else {
        format!("{}; `deploy` attaches to it", other(busy))
    }
}

fn other(busy: &DeploymentStatus) -> String {
    let versions: BTreeSet<_> = busy.releases.values().collect();
    let services: BTreeSet<_> = busy.removed.iter().map(|service| &service.0).collect();
    let (what, verb) = match versions.is_empty() {
        true => (services, "removed"),
        false => (versions, "deployed"),
    };
    let what: Vec<_> = what.into_iter().map(|name| format!("`{name}`")).collect();
    format!(
        "{} is being {verb} by {} since {} ({}, {})",
        what.join(", "),
        busy.requested_by,
        utc(busy.since_ms),
        busy.deployment,
        busy.phase
    )
}

impl PlanDocument {
    fn render(&self, policy: &greenlight_protocol::Policy) -> String {
        let mut text = String::new();
        let mut line = |add: String| writeln!(text, "{add}").expect("a string takes all");
        for (service, change) in &self.services {
            let from = change.from.as_deref().unwrap_or("nothing");
            line(format!(
                "{service}: {from} -> {}   ({})",
                change.to, change.runs
            ));
        }
        for service in &self.orphans {
            line(format!(
                "{service}: stays as it is; it is not in the file (`greenlight remove {service}`)"
            ));
        }
        for (number, wave) in self.waves.iter().enumerate() {
            let names: Vec<_> = wave.iter().map(|name| name.0.as_str()).collect();
            let which = match self.waves.len() {
                1 => "all together".to_owned(),
                _ => format!("wave {}", number + 1),
            };
            line(format!("{which}: {}", names.join(", ")));
        }
        for (name, part) in &self.instances {
            let ports = part
                .ports
                .iter()
                .map(|(service, planned)| match planned.port {
                    Some(port) if planned.named => format!("{service} starts on port {port}"),
                    Some(port) => format!("{service} starts on port {port} or a free one"),
                    None => format!("{service} on a port not known yet"),
                });
            line(format!(
                "  {name}: {}",
                ports.collect::<Vec<_>>().join(", ")
            ));
        }
        line(format!(
            "ready within {}; hold at most {}; watch {}, then {} warm for a rollback",
            written(policy.prepare),
            written(policy.hold_budget),
            written(policy.watch),
            written(policy.keep_warm)
        ));
        line(match (self.front.alignment(), self.no_mixed_window) {
            (_, true) => {
                "no request will see the old release after the new one has answered".to_owned()
            }
            (Alignment::Aligned, false) => format!(
                "the front `{}` is aligned, not gated: all instances reload at the same time, and \
                 old and new answer side by side meanwhile (G1 does not apply)",
                self.front
            ),
            (Alignment::Gated, false) => {
                "old and new answer at the same time between the waves (G1 does not apply)"
                    .to_owned()
            }
        });
        if let Some(under_way) = &self.under_way {
            line(under_way.clone());
        }
        for obstacle in &self.obstacles {
            line(format!("IN THE WAY: {obstacle}"));
        }
        text
    }
}
