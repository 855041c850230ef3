//! The arguments of the long-running roles.

use super::values::{at_least_one, duration, lateness};
use crate::cli::{Exit, Failure};
use crate::roles::{AgentFront, AgentRole, ProxyRole, ServerRole};
use clap::Args;
use greenlight_agent::nginx::Nginx;
use greenlight_config::host::{INSTANCE_NAME_HELP, is_instance_name};
use greenlight_protocol::InstanceId;
use greenlight_proxy::{Address, IfRunning};
use greenlight_release::nginx::NginxPath;
use greenlight_server::KEPT_RECEIPTS;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `greenlight server`.
#[derive(Debug, Args)]
pub struct Server {
    /// Its folder.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where agents and operators connect.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// An instance of the fleet; once for each.
    #[arg(long, value_name = "NAME", required = true, value_parser = instance)]
    pub instance: Vec<InstanceId>,
    /// How long the certificates that it issues are good for, at least 1h; they are renewed when
    /// two thirds of that are over.
    #[arg(long, value_name = "TIME", default_value = "2160h", value_parser = lifetime)]
    pub certificate_lifetime: Duration,
    /// How many receipts it keeps; the oldest go first.
    #[arg(long, value_name = "N", default_value_t = KEPT_RECEIPTS, value_parser = at_least_one())]
    pub keep_receipts: usize,
}

/// `greenlight agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// Its name.
    #[arg(long, value_parser = instance)]
    pub name: InstanceId,
    /// Its folder.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The server.
    #[arg(long, value_name = "ADDRESS")]
    pub server: SocketAddr,
    /// Where its peers ask it.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where its peers answer.
    #[arg(long, value_name = "NAME=ADDRESS", value_delimiter = ',', value_parser = peer)]
    pub peers: Vec<(String, SocketAddr)>,
    /// The admin socket of the proxy that receives user traffic.
    #[arg(long, value_name = "PATH", required_unless_present = "nginx_include")]
    pub proxy_admin: Option<PathBuf>,
    /// Instead of a proxy: our file, which Nginx includes and reloads.
    #[arg(long, value_name = "FILE", conflicts_with = "proxy_admin", value_parser = nginx_path)]
    pub nginx_include: Option<NginxPath>,
    #[command(flatten)]
    pub nginx: NginxArgs,
    /// The socket of Docker, or of Podman's compatible service: `unix:///run/podman/podman.sock`.
    #[arg(long, value_name = "SOCKET", env = "DOCKER_HOST")]
    pub docker: Option<String>,
    /// How late its control messages are made, for demonstrations and measurements.
    #[arg(
        long = "inject-delay",
        default_value = "0ms",
        value_parser = lateness,
        hide = true
    )]
    pub injected_delay: Duration,
}

/// Where an Nginx is.
#[derive(Debug, Args)]
pub struct NginxArgs {
    /// Nginx's main configuration.
    #[arg(
        long = "nginx-conf",
        value_name = "FILE",
        default_value = "/etc/nginx/nginx.conf"
    )]
    pub conf: PathBuf,
    /// The file with the number of Nginx's master process.
    #[arg(
        long = "nginx-pid",
        value_name = "FILE",
        default_value = "/run/nginx.pid"
    )]
    pub pid: PathBuf,
    /// The Nginx program.
    #[arg(
        long = "nginx-binary",
        value_name = "FILE",
        default_value = "/usr/sbin/nginx"
    )]
    pub binary: PathBuf,
}

/// `greenlight proxy`.
#[derive(Debug, Args)]
pub struct Proxy {
    /// Where users come in: `address:port` or `unix:/path`; once for each.
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub listen: Vec<Address>,
    /// The group that may connect to the unix sockets: a name or a number. Whoever may connect is
    /// believed about whom it speaks for.
    #[arg(long, value_name = "GROUP", value_parser = group)]
    pub socket_group: Option<u32>,
    /// The admin socket.
    #[arg(long, value_name = "PATH")]
    pub admin: PathBuf,
    /// The file that keeps the routing.
    #[arg(long, value_name = "FILE")]
    pub state: PathBuf,
    /// A separate address for status, metrics and health.
    #[arg(long, value_name = "ADDRESS")]
    pub status: Option<SocketAddr>,
    /// Threads that serve users; one for each core unless given.
    #[arg(long, value_parser = at_least_one())]
    pub threads: Option<usize>,
    /// Take sockets and routing over from the proxy that runs on the admin socket, if one does.
    #[arg(long)]
    pub take_over: bool,
}

impl Server {
    /// What it is to do, if that makes sense.
    pub(in crate::cli) fn role(self) -> Result<ServerRole, Failure> {
        if !self.state.is_dir() {
            let error = format!("there is no folder `{}`", self.state.display());
            let help = "make it, or name another with `--state`";
            return Err(Failure::new(Exit::Usage, error).help(help));
        }
        let mut instances = BTreeSet::new();
        for name in self.instance {
            if let Some(twin) = instances.replace(name) {
                let error = format!("`--instance {twin}` is given twice");
                return Err(Failure::new(Exit::Usage, error).help("name each instance once"));
            }
        }
        Ok(ServerRole {
            state: self.state,
            listen: self.listen,
            instances,
            certificate_lifetime: self.certificate_lifetime,
            keep_receipts: self.keep_receipts,
        })
    }
}

impl From<Agent> for AgentRole {
    fn from(agent: Agent) -> Self {
        let peers = agent.peers.into_iter();
        Self {
            name: agent.name,
            state: agent.state,
            server: agent.server,
            listen: agent.listen,
            peers: peers.map(|(name, at)| (InstanceId(name), at)).collect(),
            front: match (agent.nginx_include, agent.proxy_admin) {
                (Some(include), _) => AgentFront::Reload {
                    nginx: Nginx {
                        binary: agent.nginx.binary,
                        conf: agent.nginx.conf,
                        pid: agent.nginx.pid,
                    },
                    include,
                },
                (None, admin) => {
                    AgentFront::Gate(admin.expect("clap wants one if the other is not there"))
                }
            },
            docker: agent.docker.filter(|socket| !socket.is_empty()),
            injected_delay: agent.injected_delay,
        }
    }
}

impl From<Proxy> for ProxyRole {
    fn from(proxy: Proxy) -> Self {
        Self {
            listen: proxy.listen,
            socket_group: proxy.socket_group,
            admin: proxy.admin,
            state: proxy.state,
            status: proxy.status,
            threads: proxy.threads,
            if_running: if proxy.take_over {
                IfRunning::TakeOver
            } else {
                IfRunning::Fail
            },
        }
    }
}

fn instance(text: &str) -> Result<InstanceId, String> {
    match is_instance_name(text) {
        true => Ok(InstanceId(text.to_owned())),
        false => Err(format!("not an instance's name; {INSTANCE_NAME_HELP}")),
    }
}

/// A machine that is away for a short time must not have to join again.
fn lifetime(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_hours(1);
    let lifetime = duration(text)?;
    (lifetime >= LEAST)
        .then_some(lifetime)
        .ok_or_else(|| "a certificate must be valid for at least 1h".to_owned())
}

fn nginx_path(text: &str) -> Result<NginxPath, String> {
    NginxPath::new(Path::new(text)).map_err(|error| error.to_string())
}

/// A group of this machine, by its number or its name.
fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").map_err(|error| error.to_string())?;
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (name == text).then(|| number.parse().ok())?
    });
    number.ok_or_else(|| format!("`/etc/group` has no `{text}`"))
}

fn peer(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("it is not `NAME=ADDRESS`")?;
    let address = address
        .parse()
        .map_err(|_| format!("`{address}` is not an address"))?;
    Ok((name.to_owned(), address))
}
