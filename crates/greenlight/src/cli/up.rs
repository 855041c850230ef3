//! `greenlight up`: a whole fleet on this machine for a `greenlight.yml`, in the foreground.

use super::args::Up;
use super::fleet::{configuration, local_dir, make_local_dir};
use super::{Exit, Failure, Output, print, print_json};
use crate::local::{LocalFleet, LocalFront, LocalInstance, end_stale_processes};
use greenlight_agent::nginx::Nginx;
use greenlight_config::{Config, Host, InstanceConfig};
use greenlight_link::ApiClient;
use greenlight_link::api::FleetStatus;
use greenlight_protocol::InstanceId;
use greenlight_release::front::FrontKind;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long the fleet may take to come up.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How often its status is polled until then.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What `--json` prints once the fleet is up.
#[derive(Serialize)]
struct UpDocument<'a> {
    /// Where users come in, by instance.
    instances: BTreeMap<&'a InstanceId, SocketAddr>,
    /// Where the proxies tell their status, metrics and health, by instance.
    status: &'a BTreeMap<InstanceId, SocketAddr>,
    /// The operator's credentials, for `--fleet`.
    fleet: PathBuf,
}

/// Starts the fleet, and keeps it up until SIGINT or SIGTERM.
pub(super) async fn up(args: &Up, output: Output) -> Result<Exit, Failure> {
    let config = configuration(&args.file)?;
    let usual = local_dir(&args.file.file);
    let dir = args.state.clone().unwrap_or_else(|| usual.clone());
    let instances = instances(&config)?;
    let failed = |what: &str, error: &std::io::Error| {
        Failure::new(Exit::Failed, format!("{what} `{}`: {error}", dir.display()))
    };
    // Nginx may run as another user, and must reach the gates in it.
    let mode = if config.front == FrontKind::Nginx {
        0o711
    } else {
        0o700
    };
    let made = match dir == usual {
        true => make_local_dir(&dir, mode),
        false => std::fs::create_dir_all(&dir),
    };
    made.map_err(|error| failed("cannot write to", &error))?;
    let _lock = lock(&dir)?;
    let stale = end_stale_processes(&dir);
    if stale > 0 {
        eprintln!("an earlier `greenlight up` was killed; ended {stale} processes it had left");
    }
    for instance in &instances {
        if let LocalFront::Builtin = instance.front {
            check_free(instance)?;
        }
    }
    // The signals are caught before anything runs that would have to be stopped.
    let caught = |kind| signal(kind).map_err(|error| Failure::new(Exit::Failed, error));
    let (mut interrupt, mut terminate) = (
        caught(SignalKind::interrupt())?,
        caught(SignalKind::terminate())?,
    );
    let fleet = LocalFleet::start(&dir, instances, home_of(&args.file.file).as_deref())
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    let come_up = wait_until_up(&fleet, &dir);
    let up = tokio::select! {
        up = come_up => up,
        _ = interrupt.recv() => Err(Failure::new(Exit::Failed, "interrupted")),
        _ = terminate.recv() => Err(Failure::new(Exit::Failed, "terminated")),
    };
    if let Err(failure) = up {
        fleet.stop().await;
        return Err(failure);
    }
    let announced = announce(&fleet, output);
    if announced.is_ok() {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("stopping");
    }
    fleet.stop().await;
    announced.map(|()| Exit::Done)
}

fn announce(fleet: &LocalFleet, output: Output) -> Result<(), Failure> {
    let instances = fleet.instances().iter();
    let document = UpDocument {
        instances: instances.map(|i| (&i.name, i.listen)).collect(),
        status: fleet.status(),
        fleet: fleet.operator_dir(),
    };
    match output {
        Output::Json => print_json(&document),
        Output::Text => print(&document.render()),
    }
}

impl UpDocument<'_> {
    fn render(&self) -> String {
        let mut text = String::new();
        for (name, address) in &self.instances {
            let line = match self.status.get(name) {
                Some(status) => {
                    format!("{name} serves http://{address}; its metrics: http://{status}/metrics")
                }
                None => format!("{name} serves http://{address}"),
            };
            text.push_str(&line);
            text.push('\n');
        }
        text + "the fleet is up; in another terminal: greenlight deploy\n"
    }
}

async fn wait_until_up(fleet: &LocalFleet, dir: &Path) -> Result<(), Failure> {
    let api = ApiClient::from_dir(&fleet.operator_dir())?;
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        let status: Result<FleetStatus, _> = api.get("/v1/status").await;
        if status.is_ok_and(|status| status.instances.values().all(Option::is_some)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let error = format!(
        "the fleet did not come up within {} s",
        START_TIMEOUT.as_secs()
    );
    let logs = dir.join("run");
    Err(Failure::new(Exit::Failed, error).help(format!("its logs are in `{}`", logs.display())))
}

/// The configuration's instances as this machine can have them.
fn instances(config: &Config) -> Result<Vec<LocalInstance>, Failure> {
    let instances = config.instances.iter();
    instances.map(|instance| local(config, instance)).collect()
}

fn local(config: &Config, instance: &InstanceConfig) -> Result<LocalInstance, Failure> {
    let address = match &instance.host {
        Host::Ip(address) if address.is_loopback() => *address,
        Host::Name(name) if name == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Host::Ip(_) | Host::Name(_) => {
            let error = format!(
                "`{}` is at `{}`, which is not on this machine's loopback",
                instance.name, instance.host
            );
            return Err(Failure::new(Exit::Usage, error).help(
                "`greenlight up` runs the whole fleet here; give `servers` loopback addresses, \
                 such as 127.0.0.1 and 127.0.0.2, or one address with different ports",
            ));
        }
    };
    Ok(LocalInstance {
        name: instance.name.clone(),
        listen: SocketAddr::new(address, instance.port),
        front: match config.front {
            FrontKind::Builtin => LocalFront::Builtin,
            FrontKind::Nginx => LocalFront::Nginx {
                group: config.nginx.group.clone(),
            },
            FrontKind::NginxReload => {
                let nginx = config.nginx_of(instance);
                let nginx = nginx.map_err(|error| Failure::new(Exit::Usage, error))?;
                LocalFront::NginxReload {
                    nginx: Nginx {
                        binary: nginx.binary,
                        conf: nginx.conf,
                        pid: nginx.pid,
                    },
                    include: nginx.include,
                }
            }
        },
        injected_delay: Duration::ZERO,
    })
}

/// A clear message now is better than a proxy that is restarted forever.
fn check_free(instance: &LocalInstance) -> Result<(), Failure> {
    let Err(error) = std::net::TcpListener::bind(instance.listen) else {
        return Ok(());
    };
    let problem = format!(
        "`{}` cannot listen on {}: {error}",
        instance.name, instance.listen
    );
    let help = if error.kind() == std::io::ErrorKind::PermissionDenied {
        "ports below 1024 are for root; give the instance another `port`"
    } else if error.kind() == std::io::ErrorKind::AddrInUse {
        "stop what listens there, or give the instance another `port`"
    } else {
        "give the instance an address of this machine"
    };
    Err(Failure::new(Exit::Failed, problem).help(help))
}

/// Only one `up` at a time may use a folder; the lock goes with the process.
fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("lock");
    let file = File::create(&path)
        .map_err(|error| Failure::new(Exit::Failed, format!("`{}`: {error}", path.display())))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        let error = format!("a fleet is already up in `{}`", dir.display());
        Failure::new(Exit::Refused, error)
            .help("use it as it is, or stop the other `greenlight up` first")
    })?;
    Ok(file)
}

/// Where commands run: beside the file that names them.
fn home_of(file: &Path) -> Option<PathBuf> {
    let dir = file.parent()?;
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    dir.canonicalize().ok()
}
