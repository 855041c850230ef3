//! `greenlight setup` on machines with a real `sshd`: what it installs serves, a second run
//! changes nothing, and one machine that is away does not keep the others.

use crate::fleet::Ran;
use crate::machine::{Keys, Machine};
use crate::network::Namespace;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const GREENLIGHT: &str = env!("CARGO_BIN_EXE_greenlight");
const TEST_TIMEOUT: Duration = Duration::from_mins(3);

#[test]
#[ignore = "needs root, ip, sshd, sudo, python3"]
fn setup_over_sshd_installs_a_server_and_two_hosts_that_then_take_a_release() {
    let site = Site::new(&["server", "a", "b"], "root");

    let dry = site.run(&["setup", "--dry-run"]);
    assert_eq!(dry.code, 0, "{dry}");
    assert!(
        dry.talk.contains("10.77.0.11: would join the fleet as `a`"),
        "{dry}"
    );
    assert!(!site.machine("a").path("/usr/local/bin/greenlight").exists());

    let first = site.run(&["setup"]);
    assert_eq!(first.code, 0, "{first}\n{}", site.logs());
    assert_eq!(first.data.matches("connected").count(), 2, "{first}");
    let second = site.run(&["setup"]);
    assert_eq!(second.code, 0, "{second}");
    assert_eq!(
        second.data.matches("nothing to change").count(),
        3,
        "{second}"
    );

    let deployed = site.run(&["deploy", "--version", "v1"]);
    assert_eq!(deployed.code, 0, "{deployed}\n{}", site.logs());
    for name in ["a", "b"] {
        assert_eq!(site.release(name), "v1");
        let key = site
            .machine(name)
            .path("/var/lib/greenlight/instance/identity/key.pem");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &key.metadata().expect("it is there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    let asked = site.run(&["setup", "--remove"]);
    assert_eq!(asked.code, 0, "{asked}");
    assert_eq!(site.release("a"), "v1");
    let removed = site.run(&["setup", "--remove", "--yes"]);
    assert_eq!(removed.code, 0, "{removed}");
    for (name, machine) in &site.machines {
        assert!(
            !machine.path("/usr/local/bin/greenlight").exists(),
            "{name}"
        );
        assert!(!machine.path("/var/lib/greenlight").exists(), "{name}");
        assert!(
            machine
                .commands()
                .iter()
                .any(|command| command.contains("sshd"))
        );
        site.wait_until("no process of it is left", |_| {
            machine
                .commands()
                .iter()
                .all(|command| !command.contains("greenlight"))
        });
    }
    let again = site.run(&["setup", "--remove", "--yes"]);
    assert_eq!(
        again.data.matches("nothing to change").count(),
        3,
        "{again}"
    );
}

#[test]
#[ignore = "needs root, ip, sshd, sudo, python3"]
fn setup_over_sshd_goes_on_without_a_host_that_is_away_and_comes_back_for_it() {
    let site = Site::new(&["server", "a", "b"], "deploy");
    site.hub.ip("link set ctl-b down");

    let first = site.run(&["setup"]);
    assert_eq!(first.code, 1, "{first}");
    let names_it = "error: `10.77.0.12`: it cannot be reached";
    assert!(first.talk.contains(names_it), "{first}");
    assert!(
        first.talk.contains("run `greenlight setup` again"),
        "{first}"
    );
    assert!(
        first.data.contains("instance a") && first.data.contains("connected"),
        "{first}"
    );

    site.hub.ip("link set ctl-b up");
    let second = site.run(&["setup"]);
    assert_eq!(second.code, 0, "{second}\n{}", site.logs());
    assert!(!second.talk.contains("10.77.0.11: join"), "{second}");
    assert!(second.talk.contains("10.77.0.12: join"), "{second}");

    // An agent that stands still is ended and started again: its own loop feeds the watchdog.
    let a = site.machine("a");
    a.run(
        "mkdir /etc/systemd/system/greenlight-agent.service.d\n\
         printf '[Service]\\nWatchdogSec=10\\n' \
         > /etc/systemd/system/greenlight-agent.service.d/soon.conf\n\
         systemctl daemon-reload\nsystemctl restart greenlight-agent.service",
    );
    let before = a.process("greenlight-agent.service");
    a.run(&format!("kill -STOP {before}"));
    site.wait_until("the agent is another", |site| {
        let now = site.machine("a").process("greenlight-agent.service");
        now != 0 && now != before
    });
    let said = site.machine("a").read("/var/log/standin.log");
    assert!(said.contains("gave no sign of life"), "{said}");
}

#[test]
#[ignore = "needs root, ip, sshd, sudo, python3"]
fn setup_over_sshd_upgrades_a_proxy_without_an_error_to_any_user() {
    let site = Site::new(&["a"], "root");
    // The coordinator is on the only host; its proxy must soon give a sign of life.
    let folder = "/etc/systemd/system/greenlight-proxy.service.d";
    let soon =
        format!("mkdir {folder} && printf '[Service]\\nWatchdogSec=10\\n' > {folder}/soon.conf");
    site.machine("a").run(&soon);
    let first = site.run(&["setup"]);
    assert_eq!(first.code, 0, "{first}\n{}", site.logs());
    let deployed = site.run(&["deploy", "--version", "v1"]);
    assert_eq!(deployed.code, 0, "{deployed}\n{}", site.logs());
    // The same program with another digest.
    let newer = site.dir.join("greenlight-newer");
    let mut bytes = std::fs::read(GREENLIGHT).expect("it is a file");
    bytes.extend(b"newer");
    std::fs::write(&newer, bytes).expect("a folder");
    let a = site.machine("a");
    let before = a.process("greenlight-proxy.service");
    let asking = Asking::begin(&site, "a");

    let newer = newer.display().to_string();
    let second = site.run(&["setup", "--program", &newer]);

    assert_eq!(second.code, 0, "{second}\n{}", site.logs());
    assert!(
        second
            .talk
            .contains("upgrade `greenlight-proxy.service` under traffic"),
        "{second}"
    );
    let after = a.process("greenlight-proxy.service");
    assert_ne!(after, before);
    let lives = format!("greenlight-proxy.service ({after}) lives");
    site.wait_until("the new proxy gives a sign of life", |site| {
        site.machine("a")
            .read("/var/log/standin.log")
            .contains(&lives)
    });
    // While no proxy runs, its listeners are there, and who comes waits.
    a.run("systemctl stop greenlight-proxy.service");
    let waits = std::thread::scope(|scope| {
        let asked = scope.spawn(|| site.hub.inside(|| ask(a.address)));
        a.run("systemctl start greenlight-proxy.service");
        asked.join().expect("it does not panic")
    });
    assert!(
        waits
            .expect("it waited in the kernel")
            .contains("x-release: v1")
    );
    let (asked, failed) = asking.end();
    assert!(asked > 0);
    assert_eq!(failed, [""; 0]); // G3
}

/// Someone who asks a host again and again, each time on a new connection.
struct Asking {
    enough: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<(usize, Vec<String>)>,
}

impl Asking {
    fn begin(site: &Site, name: &str) -> Self {
        let enough = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let (address, seen) = (site.machine(name).address, enough.clone());
        let thread = site.hub.inside(|| {
            std::thread::spawn(move || {
                let (mut asked, mut failed) = (0, Vec::new());
                while !seen.load(std::sync::atomic::Ordering::Relaxed) {
                    asked += 1;
                    match ask(address) {
                        Ok(answer) if answer.contains("x-release: v1") => {}
                        Ok(answer) => failed.push(answer),
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                (asked, failed)
            })
        });
        Self { enough, thread }
    }

    /// How many requests there were, and what went wrong.
    fn end(self) -> (usize, Vec<String>) {
        self.enough
            .store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

/// Machines on one cable, and the folder from which they are set up.
struct Site {
    machines: Vec<(&'static str, Machine)>,
    hub: Namespace,
    dir: PathBuf,
    _folder: tempfile::TempDir,
}

impl Site {
    fn new(names: &[&'static str], user: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().canonicalize().expect("a folder");
        let hub = Namespace::new("hub");
        hub.bridge("ctl", "10.77.0.1/24");
        let keys = Keys::make(&dir);
        let machines = names.iter().zip(10..);
        let machines = machines
            .map(|(name, last)| (*name, Machine::boot(&hub, &keys, &dir, name, last)))
            .collect();
        let site = Self {
            machines,
            hub,
            dir,
            _folder: folder,
        };
        site.configure(&keys, user);
        site
    }

    fn configure(&self, keys: &Keys, user: &str) {
        let mut text = format!(
            "service: shop\ncommand: [/usr/local/bin/greenlight, sample-app]\nwatch: 300ms\n\
             proxy: {{ healthcheck: {{ interval: 200ms }} }}\ncutover: {{ hold_budget: 1s }}\n\
             setup:\n  server: 10.77.0.10\n  ssh:\n    user: {user}\n    identity: {}\n    \
             options: [UserKnownHostsFile={}, ConnectTimeout=3]\nservers:\n",
            keys.identity().display(),
            keys.known_hosts().display(),
        );
        let instances = self.machines.iter().filter(|(name, _)| *name != "server");
        for (name, machine) in instances {
            let host = machine.address;
            writeln!(text, "  - {{ name: {name}, host: {host} }}").expect("a string takes all");
        }
        std::fs::write(self.dir.join("greenlight.yml"), text).expect("a folder");
    }

    fn machine(&self, name: &str) -> &Machine {
        let mut machines = self.machines.iter();
        let found = machines.find(|(known, _)| *known == name);
        &found.expect("it is one of ours").1
    }

    /// Runs a command of the operator.
    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(GREENLIGHT);
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env("USER", "tester")
            .env_remove("GITHUB_ACTIONS")
            .env_remove("GREENLIGHT_FLEET")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        let output = self.hub.inside(|| command.output());
        output.expect("the binary runs").into()
    }

    /// Which release a host serves.
    fn release(&self, name: &str) -> String {
        let address = self.machine(name).address;
        let answer = self.hub.inside(|| ask(address));
        let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        let release = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-release: "));
        release.map_or(answer.clone(), |release| release.trim().to_owned())
    }

    /// Waits until something holds.
    fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "it never came that {what}\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> String {
        let machines = self.machines.iter();
        machines.map(|(_, machine)| machine.logs()).collect()
    }
}

fn ask(address: Ipv4Addr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(address, 80).into(), TEST_TIMEOUT)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.to_ascii_lowercase())
}
