//! `greenlight doctor`: has the fleet examine itself, or examines this machine.

use super::args::{FileArg, FleetArg};
use super::fleet::{configuration, connect, local_dir};
use super::{Exit, Failure, Output, print, print_json};
use crate::doctor::{Diagnosis, across, expected_of};
use greenlight_agent::addresses::Addresses;
use greenlight_agent::examine::MachinePaths;
use greenlight_agent::runtime::{Runtime as _, Runtimes};
use greenlight_config::Config;
use greenlight_link::ApiError;
use greenlight_link::doctor::{DoctorRequest, Finding, FleetReport, Level};
use greenlight_link::printable::lines;
use greenlight_protocol::{InstanceId, ServiceName};
use greenlight_release::ports::RequestedPorts;
use greenlight_shell::clock::wall_ms;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// `greenlight doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    #[command(flatten)]
    pub fleet: FleetArg,
    /// Look at this machine only, without asking the server.
    #[arg(long)]
    pub local: bool,
    /// Only this instance; with `--local`, the one that this machine is.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// With `--local`: the instance's folder, if it is not that of `greenlight up`.
    #[arg(long, value_name = "DIR", requires = "local")]
    pub state: Option<PathBuf>,
}

/// `greenlight doctor`.
pub(super) async fn doctor(args: &Doctor, output: Output) -> Result<Exit, Failure> {
    let config = match args.file.file.exists() {
        true => Some(configuration(&args.file)?),
        false => None,
    };
    if let Some(state) = args.state.as_ref().filter(|state| !state.is_dir()) {
        let error = format!("`{}` is not an instance's folder", state.display());
        let help = "name the `--state` of its agent, or leave it out";
        return Err(Failure::new(Exit::Usage, error).help(help));
    }
    let only = args.instance.clone().map(InstanceId);
    if let (Some(name), Some(config)) = (&only, &config)
        && config.instance(name).is_none()
    {
        let names = config.instances.iter().map(|i| format!("`{}`", i.name));
        let names = names.collect::<Vec<_>>().join(", ");
        let failure = Failure::new(Exit::Usage, format!("there is no instance `{name}`"));
        return Err(failure.help(format!("the file has these instances: {names}")));
    }
    let mut findings = match args.local {
        true => local(args, config.as_ref()).await?,
        false => match ask(args, config.as_ref()).await? {
            Ok(findings) => findings,
            Err(away) => {
                let mut findings = vec![away];
                findings.extend(local(args, config.as_ref()).await?);
                findings
            }
        },
    };
    if config.is_none() {
        findings.push(finding(
            "configuration",
            Level::Note,
            format!("there is no `{}` here", args.file.file.display()),
            "`greenlight init` writes one; without it ports, Docker and Nginx are not checked",
        ));
    }
    if let Some(only) = only {
        findings.retain(|f| f.instance.as_ref().is_none_or(|name| *name == only));
    }
    let diagnosis = Diagnosis::new(findings);
    match output {
        Output::Json => print_json(&diagnosis)?,
        Output::Text => print(&lines(&diagnosis.render()))?,
    }
    Ok(match diagnosis.problems {
        0 => Exit::Done,
        _ => Exit::Failed,
    })
}

/// Asks the server; returns a finding instead if the server cannot be reached.
async fn ask(
    args: &Doctor,
    config: Option<&Config>,
) -> Result<Result<Vec<Finding>, Finding>, Failure> {
    let mut asked = DoctorRequest::default();
    for instance in config.iter().flat_map(|config| &config.instances) {
        let expected = expected_of(config.expect("it has instances"), instance)?;
        asked.expected.insert(instance.name.clone(), expected);
    }
    let names: BTreeSet<_> = asked.expected.keys().cloned().collect();
    let api = match connect(&args.fleet, &args.file) {
        Ok(api) => api,
        Err(failure) => return Ok(Err(away(failure.texts().0))),
    };
    let before = wall_ms();
    let seen: FleetReport = match api.post("/v1/doctor", &asked).await {
        Ok(seen) => seen,
        Err(
            error @ (ApiError::Unreachable(_)
            | ApiError::NoCredentials(_)
            | ApiError::Credentials(_)
            | ApiError::Refused { .. }
            | ApiError::Unreadable(_)),
        ) => return Ok(Err(away(&error.to_string()))),
    };
    let clocks = (before, wall_ms());
    Ok(Ok(across(&seen, clocks, config.map(|_| &names))))
}

fn away(reason: &str) -> Finding {
    finding(
        "server",
        Level::Problem,
        format!("the fleet cannot be asked: {reason}"),
        "start `greenlight server` (or `greenlight up`), or name the folder with its address in \
         `--fleet`; below is what this machine shows by itself",
    )
}

fn finding(check: &str, level: Level, found: String, todo: &str) -> Finding {
    Finding {
        instance: None,
        check: check.to_owned(),
        level,
        found,
        todo: Some(todo.to_owned()),
    }
}

/// The ports that the slots of an instance have so far. One whose file cannot be read is told by
/// its agent, which does not start.
fn slots(state: Option<&Path>) -> BTreeMap<ServiceName, RequestedPorts> {
    let addresses = state.map(|state| Addresses::open(state.join("addresses.json")));
    let addresses = addresses.and_then(Result::ok);
    addresses.map_or_else(BTreeMap::new, |addresses| addresses.all())
}

/// Examines this machine, for each instance that it is.
async fn local(args: &Doctor, config: Option<&Config>) -> Result<Vec<Finding>, Failure> {
    let docker = std::env::var("DOCKER_HOST").ok();
    let machine = |state: Option<PathBuf>| MachinePaths {
        admin: state
            .as_ref()
            .map(|s| s.join("proxy.sock"))
            .filter(|s| s.exists()),
        state,
        docker: docker.clone(),
        root: MachinePaths::usual_root(),
    };
    let here = match config {
        Some(config) => here(args, config),
        None => Vec::new(),
    };
    let mut findings = Vec::new();
    for name in &here {
        let config = config.expect("it has instances");
        let instance = config.instance(name).expect("it is of the file");
        let expected = expected_of(config, instance)?;
        let usual = || local_dir(&args.file.file).join("instances").join(&name.0);
        let state = Some(args.state.clone().unwrap_or_else(usual)).filter(|dir| dir.is_dir());
        let running = match &state {
            Some(state) => running(state, docker.as_deref()).await,
            None => Vec::new(),
        };
        let slots = slots(state.as_deref());
        let report = machine(state)
            .examine(Some(&expected), &running, &slots)
            .await;
        findings.extend(report.findings.into_iter().map(|mut finding| {
            finding.instance = Some(name.clone());
            finding
        }));
    }
    if here.is_empty() {
        findings.extend(
            machine(args.state.clone())
                .examine(None, &[], &BTreeMap::new())
                .await
                .findings,
        );
        if config.is_some() {
            let todo = "name it with `--instance`; then ports, Docker and Nginx are checked too";
            let found = "it is not known which instance of the file is this machine";
            findings.push(finding("instance", Level::Note, found.to_owned(), todo));
        }
    }
    Ok(findings)
}

/// The instances of the file that are this machine: the named one, the only one, or those on
/// loopback.
fn here(args: &Doctor, config: &Config) -> Vec<InstanceId> {
    if let Some(name) = &args.instance {
        return vec![InstanceId(name.clone())];
    }
    let all = config.instances.iter();
    all.filter(|instance| config.instances.len() == 1 || instance.host.is_loopback())
        .map(|instance| instance.name.clone())
        .collect()
}

/// What the runtime of an instance runs, as far as its folder says.
async fn running(state: &Path, docker: Option<&str>) -> Vec<greenlight_agent::runtime::Running> {
    match Runtimes::open(state, docker) {
        Ok(runtimes) => runtimes.list().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}
