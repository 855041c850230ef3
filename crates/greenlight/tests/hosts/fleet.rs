//! A fleet of hosts, each a namespace with addresses of its own: one for control, one for users.
//!
//! ```text
//!            web ── balancer ──┬── usr ── a ── ctl ──┬── server
//!          (client)  (HAProxy) └── usr ── b ── ctl ──┘
//! ```
//!
//! Control and users have cables of their own, so that a host can be cut off from the fleet while
//! the balancer still reaches it. Each host runs Nginx (if the front is one), proxy and agent as
//! processes of the real binary; server and operator have a namespace of their own.

#[path = "build.rs"]
mod build;
#[path = "../commands/ran.rs"]
mod ran;

pub(crate) use ran::Ran;

use crate::balancer::Balancer;
use crate::docker::Daemon;
use crate::network::{Namespace, Running};
use greenlight::load::{Load, Mix};
use greenlight_agent::nginx::PrivateNginx;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const GREENLIGHT: &str = env!("CARGO_BIN_EXE_greenlight");
const SERVER: &str = "10.77.0.1:9700";
/// Where users come to the balancer.
const PUBLIC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), 80);
/// Where an agent's peers ask it, on its control address.
const PEER_PORT: u16 = 9701;
/// Where the proxy says whether it is well.
const STATUS_PORT: u16 = 9702;
/// Whatever is awaited comes within this.
const TEST_TIMEOUT: Duration = Duration::from_mins(2);

/// What receives users on each host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Builtin,
    Nginx,
    NginxReload,
}

/// One of the two networks of a host.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Road {
    Control,
    Users,
}

/// What a fleet is made of.
#[derive(Clone)]
pub(crate) struct FleetPlan {
    pub(crate) names: &'static [&'static str],
    pub(crate) front: Front,
    /// Whose control messages are how late.
    pub(crate) injected_delay: Option<(&'static str, &'static str)>,
    /// The section `cutover` of the configuration.
    pub(crate) cutover: &'static str,
    /// The image of the releases, which then run in a daemon of each host.
    pub(crate) image: Option<&'static str>,
}

impl FleetPlan {
    /// Two hosts with Nginx.
    pub(crate) const USUAL: Self = Self {
        names: &["a", "b"],
        front: Front::Nginx,
        injected_delay: None,
        // A busy machine needs less than the budget, and users wait for longer than the deadline.
        cutover: "{ hold_budget: 3s, max_hold: 6s }",
        image: None,
    };
}

/// One host. The order of its fields is the order of its end.
struct Host {
    name: &'static str,
    nginx: Option<PrivateNginx>,
    /// End with the host.
    _processes: Vec<Running>,
    daemon: Option<Daemon>,
    namespace: Namespace,
}

/// The fleet. The order of its fields is the order of its end.
pub(crate) struct Fleet {
    balancer: Option<Balancer>,
    hosts: Vec<Host>,
    _server: Running,
    web: Namespace,
    middle: Namespace,
    control: Namespace,
    plan: FleetPlan,
    dir: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fleet {
    /// Users of the balancer, from a namespace of their own.
    pub(crate) fn load(&self) -> Load {
        let mix = Mix {
            per_second: 200,
            fresh: 4,
            // The sample in the image answers all methods, and reads no bodies.
            post: match self.plan.image {
                Some(_) => 0,
                None => 5,
            },
        };
        // A thread stays where the one that made it was.
        let load = self
            .web
            .inside(|| Load::start_mixed(vec![PUBLIC], mix).expect("a thread"));
        self.wait_until("users are answered", |_| load.progress().0 > 0);
        load
    }

    /// A user's connection to the balancer.
    pub(crate) fn connect(&self) -> TcpStream {
        let connected = self.web.inside(|| TcpStream::connect(PUBLIC));
        connected.expect("the balancer listens")
    }

    /// Which release answers on each host, past the balancer.
    pub(crate) fn serves(&self) -> Vec<String> {
        let hosts = 0..self.hosts.len();
        self.middle.inside(|| {
            hosts
                .map(|index| {
                    let address = SocketAddr::new(user_address(index), 80);
                    release(address).unwrap_or_else(|error| error.to_string())
                })
                .collect()
        })
    }

    /// The workers of each Nginx; others, if it was reloaded.
    pub(crate) fn workers(&self) -> Vec<Vec<i32>> {
        let nginx = self.hosts.iter().filter_map(|host| host.nginx.as_ref());
        let workers = nginx.map(PrivateNginx::workers);
        workers.map(|pids| pids.expect("nginx runs")).collect()
    }

    /// The versions that run on a host, from its processes.
    pub(crate) fn running(&self, name: &str) -> Vec<String> {
        let mut versions: Vec<_> = (self.host(name).namespace.processes().into_iter())
            .filter_map(|pid| {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
                let text = String::from_utf8_lossy(&environment).into_owned();
                text.split('\0')
                    .find_map(|pair| Some(pair.strip_prefix("VERSION=")?.to_owned()))
            })
            .collect();
        versions.sort();
        versions
    }

    /// Takes a host's control cable out, or puts it back. Users do not notice.
    pub(crate) fn control_cable(&self, name: &str, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.control.ip(&format!("link set ctl-{name} {state}"));
    }

    /// Lets nothing through between a host and the server, or lets it through again. Its peers
    /// still reach it.
    pub(crate) fn road_to_server(&self, name: &str, open: bool) {
        let act = if open { "del" } else { "add" };
        let index = self.plan.names.iter().position(|n| *n == name);
        let there = control_address(index.expect("it is one of ours"));
        self.control.ip(&format!("route {act} blackhole {there}"));
        let host = &self.host(name).namespace;
        host.ip(&format!("route {act} blackhole 10.77.0.1"));
    }

    /// Lets nothing through between a host and its peers, as users come in or as they ask each
    /// other, or lets it through again. The balancer and the server still reach it.
    pub(crate) fn road_to_peers(&self, name: &str, on: Road, open: bool) {
        let act = if open { "del" } else { "add" };
        let peers = self.plan.names.iter().enumerate();
        for (index, _) in peers.filter(|(_, peer)| **peer != name) {
            let there = match on {
                Road::Control => control_address(index),
                Road::Users => user_address(index),
            };
            let host = &self.host(name).namespace;
            host.ip(&format!("route {act} blackhole {there}"));
        }
    }

    pub(crate) fn names(&self) -> &'static [&'static str] {
        self.plan.names
    }

    pub(crate) fn balancer(&self) -> &Balancer {
        self.balancer.as_ref().expect("it was started")
    }

    pub(crate) fn daemon(&self, name: &str) -> &Daemon {
        let daemon = self.host(name).daemon.as_ref();
        daemon.expect("the fleet runs images")
    }

    fn host(&self, name: &str) -> &Host {
        let found = self.hosts.iter().find(|host| host.name == name);
        found.expect("it is one of ours")
    }

    pub(crate) fn deploy(&self, version: &str) -> Ran {
        self.run(&["deploy", "--version", version])
    }

    /// Deploys, and shows each line of progress as it comes.
    pub(crate) fn deploy_watched(&self, version: &str, mut each: impl FnMut(&str)) -> Ran {
        let mut command = self.command(&["deploy", "--version", version]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.control.inside(|| command.spawn()).expect("it runs");
        let mut talk = String::new();
        let stderr = child.stderr.take().expect("it is piped");
        for line in BufReader::new(stderr).lines() {
            let line = line.expect("it is text");
            each(&line);
            talk.push_str(&line);
            talk.push('\n');
        }
        let output = child.wait_with_output().expect("it ends");
        Ran {
            talk,
            ..output.into()
        }
    }

    /// Runs a command of an operator.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(&self.control, arguments)
    }

    fn run_in(&self, namespace: &Namespace, arguments: &[&str]) -> Ran {
        let output = namespace.inside(|| self.command(arguments).output());
        let output = output.expect("the binary runs");
        output.into()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(GREENLIGHT);
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env("USER", "tester")
            .env("GREENLIGHT_FLEET", self.dir.join("operator"))
            .env_remove("GITHUB_ACTOR")
            .env_remove("GITHUB_ACTIONS")
            .stdin(Stdio::null());
        command
    }

    /// The document that a command prints; null if it fails.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments).data).unwrap_or_default()
    }

    /// Waits until something holds.
    pub(crate) fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "it never came that {what}\n{}",
                self.run(&["status"])
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the processes of the fleet said, for a failure's message.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.dir.join("logs"))
            .into_iter()
            .flatten()
        {
            let path = entry.expect("a folder").path();
            let said = std::fs::read_to_string(&path).unwrap_or_default();
            writeln!(text, "== {}\n{said}", path.display()).expect("a string takes all");
        }
        text
    }

    /// The configuration of the next deployment.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("greenlight.yml")
    }

    fn home(&self, name: &str) -> PathBuf {
        self.dir.join("instances").join(name)
    }

    fn nginx_dir(&self, name: &str) -> PathBuf {
        self.dir.join(format!("nginx-{name}"))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if let Some(balancer) = &mut self.balancer {
            balancer.stop();
        }
    }
}

fn control_address(index: usize) -> IpAddr {
    let last = u8::try_from(11 + index).expect("few hosts");
    Ipv4Addr::new(10, 77, 0, last).into()
}

fn user_address(index: usize) -> IpAddr {
    let last = u8::try_from(11 + index).expect("few hosts");
    Ipv4Addr::new(10, 88, 0, last).into()
}

/// Which release answers at an address.
fn release(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TEST_TIMEOUT)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let lower = text.to_ascii_lowercase();
    let release = lower
        .lines()
        .find_map(|line| line.strip_prefix("x-release: "));
    Ok(release.map_or(text.clone(), |release| release.trim().to_owned()))
}
