//! How a fleet of hosts is built: cables, roles, Nginx, balancer, and the file that is deployed.

use super::{
    Fleet, FleetPlan, Front, GREENLIGHT, Host, PEER_PORT, PUBLIC, SERVER, STATUS_PORT,
    control_address, user_address,
};
use crate::balancer::{Balancer, Check, ToHosts};
use crate::docker::Daemon;
use crate::network::Namespace;
use greenlight_agent::nginx::PrivateNginx;
use greenlight_link::{Authority, Role};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

impl Fleet {
    /// Everything runs and is attached, `v1` serves, and the balancer has found that out.
    pub(crate) fn start(plan: FleetPlan) -> Self {
        Self::start_with(plan, |_| {})
    }

    /// The same; something is done before the first deployment.
    pub(crate) fn start_with(plan: FleetPlan, before: impl FnOnce(&Self)) -> Self {
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

    fn start_empty(plan: FleetPlan) -> Self {
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
        match plan.injected_delay {
            Some((late, how)) if late == name => {
                agent.args(["--inject-delay", how]);
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
        // A release that can become ready does so before, however busy the machine is.
        let ready_within = match env.is_empty() {
            true => "3m",
            false => "15s",
        };
        line(&format!(
            "proxy:\n  healthcheck: {{ interval: 200ms }}{port}\n  front: {front}\n\
             cutover: {}\nwatch: {watch}\ndrain_timeout: 2s\ndeploy_timeout: {ready_within}",
            self.plan.cutover
        ));
        if !env.is_empty() {
            line("env:\n  clear:");
        }
        for (name, value) in env {
            line(&format!("    {name}: {value:?}"));
        }
        std::fs::write(self.file(), text).expect("a folder");
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
