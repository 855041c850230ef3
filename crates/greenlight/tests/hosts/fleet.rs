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

use crate::balancer::{Balancer, Check, ToHosts};
use crate::docker::Daemon;
use crate::network::{Namespace, Running};
use greenlight::link::{Authority, Role};
use greenlight::load::{Load, Mix};
use greenlight::nginx::PrivateNginx;
use serde_json::Value;
use std::fmt::{self, Write as _};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
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
const PATIENCE: Duration = Duration::from_secs(20);

/// What receives users on each host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Builtin,
    Nginx,
    NginxReload,
}

/// What a fleet is made of.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) names: &'static [&'static str],
    pub(crate) front: Front,
    /// Whose control messages are how late.
    pub(crate) late: Option<(&'static str, &'static str)>,
    /// The section `cutover` of the configuration.
    pub(crate) cutover: &'static str,
    /// The image of the releases, which then run in a daemon of each host.
    pub(crate) image: Option<&'static str>,
}

impl Plan {
    /// Two hosts with Nginx.
    pub(crate) const USUAL: Self = Self {
        names: &["a", "b"],
        front: Front::Nginx,
        late: None,
        // Several tests share a few cores.
        cutover: "{ hold_budget: 1s, max_hold: 2s }",
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
    plan: Plan,
    dir: PathBuf,
    _folder: tempfile::TempDir,
}

/// How a command ended and what it said.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) data: String,
    pub(crate) talk: String,
}

impl Fleet {
    /// Everything runs and is attached, `v1` serves, and the balancer has found that out.
    pub(crate) fn start(plan: Plan) -> Self {
        Self::start_with(plan, |_| {})
    }

    /// The same; something is done before the first deployment.
    pub(crate) fn start_with(plan: Plan, before: impl FnOnce(&Self)) -> Self {
        let mut fleet = Self::start_empty(plan);
        before(&fleet);
        fleet.configure(&[], "300ms");
        for index in 0..fleet.hosts.len() {
            fleet.start_front(index);
        }
        fleet.wait_until("every agent is connected", |fleet| {
            let status = fleet.json(&["--json", "status"]);
            let known = status["instances"].as_object();
            known.is_some_and(|known| known.values().all(|instance| !instance.is_null()))
        });
        let first = fleet.deploy("v1");
        assert_eq!(first.code, 0, "{first}");
        fleet.start_balancer();
        fleet
    }

    fn start_empty(plan: Plan) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().canonicalize().expect("a folder");
        // Nginx's workers are somebody else, as they are on a server.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&dir, open).expect("it is ours");
        let authority = Authority::open(&dir.join("server")).expect("a folder");
        let issue = |role: &Role, dir: &Path| {
            let credentials = authority.issue(role).expect("certificates can be made");
            credentials.store(dir).expect("a folder");
        };
        issue(&Role::Server, &dir.join("server/identity"));
        issue(&Role::Operator, &dir.join("operator"));
        std::fs::write(dir.join("operator/server"), SERVER).expect("a folder");

        let (control, middle) = (Namespace::new("server"), Namespace::new("balancer"));
        let web = Namespace::new("web");
        control.bridge("ctl", "10.77.0.1/24");
        middle.bridge("usr", "10.88.0.1/24");
        middle.cable("web", &web, "eth0", "10.99.0.2/24");
        middle.ip("addr add 10.99.0.1/24 dev web");
        let mut server = greenlight(&dir, "server");
        server.args(["server", "--listen", SERVER, "--state"]);
        server.arg(dir.join("server"));
        for name in plan.names {
            server.args(["--instance", name]);
        }
        let mut fleet = Self {
            balancer: None,
            hosts: Vec::new(),
            _server: control.start(&mut server),
            web,
            middle,
            control,
            plan,
            dir,
            _folder: folder,
        };
        for index in 0..fleet.plan.names.len() {
            let name = fleet.plan.names[index];
            issue(
                &Role::Agent(name.to_owned()),
                &fleet.home(name).join("identity"),
            );
            let host = fleet.start_host(index);
            fleet.hosts.push(host);
        }
        fleet
    }

    /// The host with its agent and its proxy; no front yet.
    fn start_host(&self, index: usize) -> Host {
        let plan = &self.plan;
        let name = plan.names[index];
        let namespace = Namespace::new(name);
        for (hub, bridge, address) in [
            (&self.control, "ctl", control_address(index)),
            (&self.middle, "usr", user_address(index)),
        ] {
            let end = format!("{bridge}-{name}");
            hub.cable(&end, &namespace, bridge, &format!("{address}/24"));
            hub.ip(&format!("link set {end} master {bridge}"));
        }
        let home = self.home(name);
        let daemon = plan
            .image
            .map(|_| Daemon::start(&namespace, &home.join("docker")));
        let peers = plan.names.iter().enumerate();
        let peers = peers.map(|(at, name)| format!("{name}={}:{PEER_PORT}", control_address(at)));
        let listen = format!("{}:{PEER_PORT}", control_address(index));
        let mut agent = greenlight(&self.dir, &format!("agent-{name}"));
        agent.args([
            "agent", "--name", name, "--server", SERVER, "--listen", &listen,
        ]);
        agent.args(["--peers", &peers.collect::<Vec<_>>().join(",")]);
        agent.arg("--state").arg(&home);
        match plan.late {
            Some((late, how)) if late == name => {
                agent.args(["--late", how]);
            }
            Some(_) | None => {}
        }
        if let Some(daemon) = &daemon {
            agent.args(["--docker", &daemon.socket()]);
        }
        let mut processes = Vec::new();
        if plan.front == Front::NginxReload {
            let nginx = self.nginx_dir(name);
            agent
                .arg("--nginx-include")
                .arg(nginx.join("conf.d/greenlight.conf"));
            agent.arg("--nginx-conf").arg(nginx.join("nginx.conf"));
            agent.arg("--nginx-pid").arg(nginx.join("nginx.pid"));
        } else {
            let mut proxy = greenlight(&self.dir, &format!("proxy-{name}"));
            proxy.arg("proxy").arg("--admin").arg(home.join("admin"));
            proxy.arg("--state").arg(home.join("routing"));
            let status = match plan.front {
                // The balancer asks the proxy itself.
                Front::Builtin => {
                    let listen = SocketAddr::new(user_address(index), 80);
                    proxy.args(["--listen", &listen.to_string()]);
                    user_address(index)
                }
                // It asks Nginx, which passes the question on.
                Front::Nginx | Front::NginxReload => {
                    let listen = format!("unix:{}", home.join("gate.sock").display());
                    proxy.args(["--listen", &listen, "--socket-group", "nogroup"]);
                    Ipv4Addr::LOCALHOST.into()
                }
            };
            let status = SocketAddr::new(status, STATUS_PORT).to_string();
            proxy.args(["--status", &status, "--threads", "1"]);
            processes.push(namespace.start(&mut proxy));
            agent.arg("--proxy-admin").arg(home.join("admin"));
        }
        processes.push(namespace.start(&mut agent));
        Host {
            name,
            nginx: None,
            _processes: processes,
            daemon,
            namespace,
        }
    }

    /// The host's own Nginx runs first; then it is attached, and the location included.
    fn start_front(&mut self, index: usize) {
        if self.plan.front == Front::Builtin {
            return;
        }
        let name = self.plan.names[index];
        let home = self.nginx_dir(name);
        let gate = self.home(name).join("gate.sock");
        if self.plan.front == Front::Nginx {
            self.wait_until("the gate is there", |_| UnixStream::connect(&gate).is_ok());
        }
        let nginx = PrivateNginx::write(&home, "nobody nogroup", "").expect("a folder");
        let start = |fleet: &Self, nginx| {
            let started = fleet.hosts[index].namespace.inside(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime
                    .expect("a runtime")
                    .block_on(PrivateNginx::start(nginx))
            });
            started.expect("nginx starts")
        };
        let first = start(self, nginx.clone());
        let attach = format!(
            "--json attach nginx --yes --instance {name} --socket {}",
            gate.display()
        );
        let attach: Vec<_> = attach.split(' ').collect();
        let attached = self.run_in(&self.hosts[index].namespace, &attach);
        assert_eq!(attached.code, 0, "{attached}");
        drop(first);
        let health = match self.plan.front {
            Front::Builtin | Front::NginxReload => String::new(),
            Front::Nginx => format!(
                "location = /healthz {{ proxy_pass http://127.0.0.1:{STATUS_PORT}/healthz; }}"
            ),
        };
        let server = format!(
            "server {{ listen {address}:80; {health} location / {{ include {}; }} }}\n",
            home.join("conf.d/greenlight_shop.location").display(),
            address = user_address(index),
        );
        std::fs::write(home.join("conf.d/shop.conf"), server).expect("a folder");
        self.hosts[index].nginx = Some(start(self, nginx));
    }

    fn start_balancer(&mut self) {
        let names = self.plan.names.iter().enumerate();
        let hosts: Vec<_> = names.map(|(at, name)| (*name, user_address(at))).collect();
        let (check, to_hosts) = match self.plan.front {
            Front::Builtin => (("/healthz", STATUS_PORT), ToHosts::Kept),
            Front::Nginx => (("/healthz", 80), ToHosts::Kept),
            // A reload closes kept connections, and what is on its way on one of them is lost.
            Front::NginxReload => (("/up", 80), ToHosts::New),
        };
        let check = Check {
            path: check.0,
            port: check.1,
        };
        let dir = self.dir.join("balancer");
        let balancer = Balancer::start(&self.middle, &dir, PUBLIC, &hosts, &check, to_hosts);
        self.balancer = Some(balancer);
    }

    /// Writes the configuration for the next deployment.
    pub(crate) fn configure(&self, env: &[(&str, &str)], watch: &str) {
        let release = match self.plan.image {
            Some(image) => format!("image: {image}"),
            None => format!("command: [{GREENLIGHT:?}, sample-app]"),
        };
        let port = match self.plan.image {
            Some(_) => "\n  app_port: 3000",
            None => "",
        };
        let mut text = format!("service: shop\n{release}\nservers:\n");
        let mut line = |add: &str| writeln!(text, "{add}").expect("a string takes all");
        for (at, name) in self.plan.names.iter().enumerate() {
            line(&format!(
                "  - {{ name: {name}, host: {} }}",
                user_address(at)
            ));
        }
        let front = match self.plan.front {
            Front::Builtin => "builtin".to_owned(),
            Front::Nginx => self.nginx_section("nginx"),
            Front::NginxReload => self.nginx_section("nginx_reload"),
        };
        line(&format!(
            "proxy:\n  healthcheck: {{ interval: 200ms }}{port}\n  front: {front}\n\
             cutover: {}\nwatch: {watch}\ndrain_timeout: 2s\ndeploy_timeout: 8s",
            self.plan.cutover
        ));
        if !env.is_empty() {
            line("env:\n  clear:");
        }
        for (name, value) in env {
            line(&format!("    {name}: {value:?}"));
        }
        std::fs::write(self.dir.join("greenlight.yml"), text).expect("a folder");
    }

    fn nginx_section(&self, front: &str) -> String {
        let here = self.dir.display();
        format!(
            "{front}\n  nginx:\n    include: {here}/nginx-{{instance}}/conf.d/greenlight.conf\n    \
             conf: {here}/nginx-{{instance}}/nginx.conf\n    \
             pid: {here}/nginx-{{instance}}/nginx.pid\n    group: nogroup\n    \
             forward_headers: true"
        )
    }

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
            code: output.status.code().unwrap_or(-1),
            data: String::from_utf8_lossy(&output.stdout).into_owned(),
            talk,
        }
    }

    /// Runs a command of an operator.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(&self.control, arguments)
    }

    fn run_in(&self, namespace: &Namespace, arguments: &[&str]) -> Ran {
        let output = namespace.inside(|| self.command(arguments).output());
        let output = output.expect("the binary runs");
        Ran {
            code: output.status.code().unwrap_or(-1),
            data: String::from_utf8_lossy(&output.stdout).into_owned(),
            talk: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
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
        let deadline = Instant::now() + PATIENCE;
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

/// A role of the fleet; what it says goes to a file.
fn greenlight(dir: &Path, role: &str) -> Command {
    let logs = dir.join("logs");
    std::fs::create_dir_all(&logs).expect("a folder");
    let log = std::fs::File::create(logs.join(role)).expect("a folder");
    let mut command = Command::new(GREENLIGHT);
    command
        .current_dir(dir)
        .env_remove("DOCKER_HOST")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log);
    command
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
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let lower = text.to_ascii_lowercase();
    let release = lower
        .lines()
        .find_map(|line| line.strip_prefix("x-release: "));
    Ok(release.map_or(text.clone(), |release| release.trim().to_owned()))
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}\n{}\n{}", self.code, self.data, self.talk)
    }
}
