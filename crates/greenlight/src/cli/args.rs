//! What can be typed.

mod demo;

pub(super) use demo::Demo;

use crate::fleet::{AgentFront, AgentRole, ProxyRole, ServerRole};
use crate::nginx::{Nginx, NginxPath};
use clap::{Args, Parser, Subcommand};
use greenlight_protocol::InstanceId;
use greenlight_proxy::{Incumbent, ListenAddr};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Zero-downtime deployment: the whole fleet cuts over together, or not at all.
#[derive(Debug, Parser)]
#[command(name = "greenlight", version, about, max_term_width = 100)]
pub struct Cli {
    /// Print one JSON document on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the main job on this machine: two instances, load, five deployments, receipts.
    Demo(Demo),
    /// Write a `greenlight.yml` to begin with, or one made of a Compose or Kamal file.
    Init(Init),
    /// Run a whole fleet on this machine for a `greenlight.yml`, until interrupted.
    Up(Up),
    /// Let something that is on this machine already pass its users to greenlight.
    #[command(subcommand)]
    Attach(Attach),
    /// Say what a deployment would do, and what stands in its way. Changes nothing.
    Plan(Plan),
    /// Bring a release to the whole fleet: prepare it everywhere, then cut over together.
    Deploy(Deploy),
    /// Start a release everywhere and check it; `promote` cuts over.
    Prepare(Deploy),
    /// Cut over to the release that was prepared.
    Promote(Act),
    /// Stop the deployment under way; the fleet ends on the old release.
    Abort(Act),
    /// Cut over to the release before the live one.
    Rollback(Rollback),
    /// Stop serving services that are live; a rollback brings them back.
    Remove(Remove),
    /// Show how the fleet stands.
    Status(Status),
    /// List the latest deployments.
    History(History),
    /// Show the evidence for one deployment.
    Receipt(Receipt),
    /// Show what the applications wrote.
    Logs(Logs),
    /// Look for what would spoil a deployment, on every instance and across them.
    Doctor(super::doctor::Doctor),
    /// Print the JSON schema of `greenlight.yml`, for editors.
    Schema,
    /// Print the completions for a shell.
    Completions(Completions),
    /// Write the manual pages.
    Man(Man),
    /// Run the coordinator.
    Server(Server),
    /// Run an instance's agent.
    Agent(Agent),
    /// Run the proxy that receives user traffic.
    Proxy(Proxy),
    /// Run the sample application of the demo.
    #[command(hide = true)]
    SampleApp,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct FileArg {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = crate::config::DEFAULT_FILE)]
    pub file: PathBuf,
}

/// Where the fleet is.
#[derive(Debug, Args)]
pub struct FleetArg {
    /// The folder with the fleet's address and credentials; that of `greenlight up` unless given.
    #[arg(long, value_name = "DIR", env = "GREENLIGHT_FLEET")]
    pub fleet: Option<PathBuf>,
}

/// `greenlight init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The file to write.
    #[command(flatten)]
    pub file: FileArg,
    /// The name of the service; that of the folder unless given.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Make it of the file of another tool, and say what could not be carried over. Of several
    /// services of Compose `--service` chooses one.
    #[arg(long, value_name = "TOOL")]
    pub from: Option<crate::import::Source>,
    /// The other tool's file, if it is not where that tool looks for it.
    #[arg(long, value_name = "FILE", requires = "from")]
    pub input: Option<PathBuf>,
}

/// `greenlight completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `greenlight man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The folder to write them to.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `greenlight up`.
#[derive(Debug, Args)]
pub struct Up {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// Keep the fleet's files in this folder; `.greenlight` beside the configuration unless given.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// `greenlight attach`.
#[derive(Debug, Subcommand)]
pub enum Attach {
    /// Nginx: write one file that it includes, test it, reload once, and ask through it.
    Nginx(AttachNginx),
}

/// `greenlight attach nginx`.
#[derive(Debug, Args)]
pub struct AttachNginx {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// The instance that this machine is; needed if there are several.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// The gate's socket; that of `greenlight up` unless given.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Write another file than `proxy.nginx.include`.
    #[arg(long, value_name = "FILE")]
    pub include: Option<PathBuf>,
    /// Another main configuration than `proxy.nginx.conf`.
    #[arg(long, value_name = "FILE")]
    pub nginx_conf: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Only show what would change.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}

/// `greenlight plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// The fleet.
    #[command(flatten)]
    pub fleet: FleetArg,
    /// The release's label; the commit that is checked out unless given.
    #[arg(long)]
    pub version: Option<String>,
}

/// `greenlight deploy` and `greenlight prepare`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// The fleet.
    #[command(flatten)]
    pub fleet: FleetArg,
    /// The release's label; the commit that is checked out unless given.
    #[arg(long)]
    pub version: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    pub detach: bool,
}

/// `greenlight promote` and `greenlight abort`.
#[derive(Debug, Args)]
pub struct Act {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// The fleet.
    #[command(flatten)]
    pub fleet: FleetArg,
    /// Do not wait for the end.
    #[arg(long)]
    pub detach: bool,
}

/// `greenlight rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// What every command that acts takes.
    #[command(flatten)]
    pub act: Act,
    /// Only go back if this is the release before the live one.
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
}

/// `greenlight remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// The services.
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
    /// What every command that acts takes.
    #[command(flatten)]
    pub act: Act,
}

/// `greenlight status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// The fleet.
    #[command(flatten)]
    pub fleet: FleetArg,
}

/// `greenlight history`.
#[derive(Debug, Args)]
pub struct History {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// The fleet.
    #[command(flatten)]
    pub fleet: FleetArg,
    /// Show at most so many.
    #[arg(long, short = 'n', default_value_t = 20)]
    pub limit: usize,
}

/// `greenlight receipt`.
#[derive(Debug, Args)]
pub struct Receipt {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// The fleet.
    #[command(flatten)]
    pub fleet: FleetArg,
    /// The deployment.
    #[arg(default_value = "latest")]
    pub deployment: String,
}

/// `greenlight logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// The fleet.
    #[command(flatten)]
    pub fleet: FleetArg,
    /// Only this service.
    pub service: Option<String>,
    /// Only this instance.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// The last so many lines of each application.
    #[arg(long, short = 'n', default_value_t = 50)]
    pub lines: usize,
}

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
    #[arg(long, value_name = "NAME", required = true)]
    pub instance: Vec<String>,
}

/// `greenlight agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// Its name.
    #[arg(long)]
    pub name: String,
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
    /// Instead of a proxy: the file of ours that Nginx includes, which is reloaded.
    #[arg(long, value_name = "FILE", conflicts_with = "proxy_admin", value_parser = nginx_path)]
    pub nginx_include: Option<NginxPath>,
    /// That Nginx.
    #[command(flatten)]
    pub nginx: NginxArgs,
    /// The socket of Docker, or of Podman's compatible service: `unix:///run/podman/podman.sock`.
    #[arg(long, value_name = "SOCKET", env = "DOCKER_HOST")]
    pub docker: Option<String>,
    /// How late its control messages are made, for demonstrations and measurements.
    #[arg(long, default_value = "0ms", value_parser = lateness, hide = true)]
    pub late: Duration,
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
    pub listen: Vec<ListenAddr>,
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
    #[arg(long)]
    pub threads: Option<usize>,
    /// Take sockets and routing over from the proxy that runs on the admin socket, if one does.
    #[arg(long)]
    pub take_over: bool,
}

impl From<Server> for ServerRole {
    fn from(server: Server) -> Self {
        Self {
            state: server.state,
            listen: server.listen,
            instances: server.instance.into_iter().map(InstanceId).collect(),
        }
    }
}

impl From<Agent> for AgentRole {
    fn from(agent: Agent) -> Self {
        let peers = agent.peers.into_iter();
        Self {
            name: InstanceId(agent.name),
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
            late: agent.late,
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
            incumbent: if proxy.take_over {
                Incumbent::Succeed
            } else {
                Incumbent::Respect
            },
        }
    }
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

/// How late messages may be made; no barrier waits for as long as the most.
fn lateness(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_mins(1);
    let late = duration(text)?;
    (late <= MOST)
        .then_some(late)
        .ok_or_else(|| "it is too long; the range is 0ms to 1m".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| "it does not begin with a number".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("`{unit}` is not a unit; use ms, s, m or h")),
    }
}
