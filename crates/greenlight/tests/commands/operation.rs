//! A fleet that is kept up: its limits, its logs, its restarts.

use crate::shop::{Shop, TEST_TIMEOUT, ask, free_port};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, prlimit};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn proxy_and_server_raise_the_limit_of_descriptors_and_the_agent_keeps_it_for_its_applications() {
    let shop = Shop::new();
    shop.configure("");
    let up = shop.up();
    let hard = getrlimit(Resource::Nofile);
    let mut low = hard;
    low.current = Some(300);
    prlimit(Some(up.pid()), Resource::Nofile, low).expect("it is a child");

    for (role, expected) in [
        ("proxy-a", hard.maximum),
        ("server", hard.maximum),
        ("agent-a", Some(300)),
    ] {
        let before = shop.pid(role);
        kill_process(before, Signal::KILL).expect("it runs");
        wait_until(role, || {
            let now = shop.pid(role);
            now != before && limit(now) == expected
        });
    }
    let proxy = shop.dir().join(".greenlight/run/proxy-a.log");
    let log = std::fs::read_to_string(proxy).expect("it was started");
    assert!(log.contains("descriptors"), "{log}");
}

#[test]
fn a_proxy_that_is_told_twice_to_be_replaced_names_the_one_that_took_over() {
    let old = Managed::start();
    // It does not end before this does.
    let _client = std::net::TcpStream::connect(&old.listen).expect("it listens");

    old.replace();
    wait_until("a successor", || !old.family.children().is_empty());
    let successors = old.family.children();
    old.replace();

    let main = old.told("MAINPID=");
    assert_eq!(successors, [main.parse::<i32>().expect("a number")]);
}

// A service manager that has not heard of the successor takes the service for dead, and the
// successor for a leftover.
#[test]
fn a_proxy_without_users_names_the_one_that_took_over_before_it_ends() {
    for _ in 0..5 {
        let mut old = Managed::start();

        old.replace();
        let ended = old.family.0.wait().expect("it has a successor");

        assert!(ended.success(), "{ended}");
        let main = old.told("MAINPID=").parse().expect("a number");
        let main = Pid::from_raw(main).expect("a process");
        kill_process(main, Signal::KILL).expect("it runs");
    }
}

/// A proxy with a service manager.
struct Managed {
    manager: UnixDatagram,
    listen: String,
    family: Family,
    _dir: tempfile::TempDir,
}

impl Managed {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        let manager = UnixDatagram::bind(path("notify")).expect("a folder");
        let patient = manager.set_read_timeout(Some(TEST_TIMEOUT));
        patient.expect("a socket");
        let listen = format!("127.0.0.1:{}", free_port());
        let proxy = Command::new(env!("CARGO_BIN_EXE_greenlight"))
            .args(["proxy", "--threads=1", "--listen", &listen])
            .arg("--admin")
            .arg(path("admin"))
            .arg("--state")
            .arg(path("routing"))
            .env("NOTIFY_SOCKET", path("notify"))
            .spawn()
            .expect("it is built");
        let managed = Self {
            manager,
            listen,
            family: Family(proxy),
            _dir: dir,
        };
        managed.told("READY=");
        managed
    }

    fn replace(&self) {
        let own = Pid::from_child(&self.family.0);
        kill_process(own, Signal::USR2).expect("it runs");
    }

    /// Waits until the service manager is told this, and returns the value.
    fn told(&self, word: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = self.manager.recv(&mut buffer).expect(word);
            let text = String::from_utf8_lossy(&buffer[..length]);
            let line = text.lines().find_map(|line| line.strip_prefix(word));
            if let Some(value) = line {
                return value.to_owned();
            }
        }
    }
}

/// A process and its children, which end with this.
struct Family(std::process::Child);

impl Family {
    fn children(&self) -> Vec<i32> {
        let own = self.0.id();
        let listed = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let listed = listed.unwrap_or_default();
        let numbers = listed.split_whitespace();
        numbers.filter_map(|number| number.parse().ok()).collect()
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        for child in self.children().into_iter().filter_map(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_role_that_cannot_start_is_started_ever_more_slowly_and_up_says_so_and_still_ends_at_once() {
    let shop = Shop::new();
    shop.configure("");
    let said = shop.dir().join("said");
    let up = shop.up_saying(std::fs::File::create(&said).expect("a folder").into());
    let identity = shop.dir().join(".greenlight/instances/b/identity");
    std::fs::rename(&identity, identity.with_extension("away")).expect("it is there");

    shop.kill_agent("b");

    let lines = || -> Vec<String> {
        let said = std::fs::read_to_string(&said).expect("it was made");
        let lines = said.lines().filter(|line| line.contains("agent-b"));
        lines.map(ToOwned::to_owned).collect()
    };
    wait_until("the eighth pause", || lines().len() == 8);
    for (line, pause) in lines()
        .iter()
        .zip(["50", "100", "200", "400", "800", "1.6", "3.2", "6.4"])
    {
        assert!(line.contains("a process has ended"), "{line}");
        assert!(line.contains(pause), "{line}");
    }
    // In the pause of 6.4 seconds `up` does as it is told.
    drop(up);
    assert_eq!(lines().len(), 8);
}

#[test]
fn the_lines_of_each_log_name_the_deployment_the_cut_over_the_instance_and_the_service() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up_with(&[("GREENLIGHT_LOG", "debug"), ("NO_COLOR", "1")]);

    assert_eq!(shop.run(&["deploy", "--version", "v1"]).code, 0);

    let deployment = shop.json(&["receipt", "--json"])["deployment"].clone();
    let deployment = deployment.as_str().expect("it has a name");
    for (role, fields) in [
        (
            "server",
            vec![
                &*format!("deployment={deployment}"),
                "epoch=1",
                "phase=watching",
            ],
        ),
        // Whichever instance answers last takes the cut-over a step further.
        ("server", vec!["instance=", "epoch=1"]),
        (
            "agent-a",
            vec!["instance=a", "epoch=1", "service=shop", "healthy"],
        ),
        ("proxy-a", vec!["epoch=1", "service=\"shop\"", "held"]),
    ] {
        let path = shop.dir().join(format!(".greenlight/run/{role}.log"));
        let log = std::fs::read_to_string(path).expect("it was started");
        let has_all = |line: &str| fields.iter().all(|field| line.contains(field));
        assert!(log.lines().any(has_all), "{fields:?} in\n{log}");
    }
}

#[test]
fn the_log_of_a_role_is_put_aside_when_it_is_full() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    let run = shop.dir().join(".greenlight/run");
    let log = std::fs::File::options()
        .append(true)
        .open(run.join("agent-a.log"));
    let mut log = log.expect("the role has one");
    log.write_all(&vec![b'x'; 11 * 1024 * 1024])
        .expect("a disk");

    wait_until("it is put aside", || run.join("agent-a.log.1").exists());
    wait_until("it is empty", || {
        log.metadata().expect("it is there").len() < 1024 * 1024
    });
    assert!(!run.join("agent-b.log.1").exists());
}

#[test]
fn instances_on_different_loopback_addresses_share_a_public_port_and_nothing_else() {
    let shop = Shop::on_two_addresses();
    let public = shop.public();
    assert_eq!(public[0].port(), public[1].port());
    shop.configure("");
    let file = shop.dir().join("greenlight.yml");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let pairs: Vec<_> = text
        .lines()
        .filter_map(|line| line.split("ports: ").nth(1))
        .collect();

    // Applications listen on one address, whatever their instance is called.
    std::fs::write(&file, text.replace(pairs[1], pairs[0])).expect("a folder");
    let alike = shop.run(&["plan", "--version", "v1"]);
    assert_eq!(alike.code, 2, "{alike}");
    assert!(
        alike.talk.contains("is used twice on this machine"),
        "{alike}"
    );

    std::fs::write(&file, &text).expect("a folder");
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    assert_eq!(shop.serves(), ["v1", "v1"]);
    let [a, b] = crate::pids(&shop);
    assert_ne!(a, b, "each has an application of its own");
}

#[test]
fn a_proxy_that_has_lost_its_routes_is_told_them_again() {
    let shop = Shop::new();
    shop.configure("");
    let up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    drop(up);
    let routing = shop.dir().join(".greenlight/instances/a/routing");
    std::fs::remove_file(routing).expect("it was kept");

    let _up = shop.up();
    shop.wait_until_served("v1");
    shop.run(&["deploy", "--version", "v2"]).ended(0);
    assert_eq!(shop.serves(), ["v2", "v2"]);
}

#[test]
fn up_prints_where_each_proxy_tells_its_metrics_on_loopback() {
    let shop = Shop::new();
    shop.configure("");
    let (_up, document) = shop.up_json();

    for instance in ["a", "b"] {
        let status = document["status"][instance].as_str().expect("an address");
        let status: SocketAddr = status.parse().expect("an address");
        assert!(status.ip().is_loopback());
        let metrics = ask(status, "/metrics").expect("it is told");
        assert!(
            metrics.contains("greenlight_proxy_draining_processes 0"),
            "{metrics}"
        );
    }
    let named = document["instances"].as_object().expect("a map");
    assert_eq!(named.len(), 2);
}

#[test]
fn what_cannot_be_written_to_a_full_disk_is_a_failure_that_says_so() {
    let shop = Shop::new();
    shop.configure("");
    let full = || std::fs::File::options().write(true).open("/dev/full");
    for arguments in [
        &["schema"][..],
        &["completions", "bash"],
        &["doctor", "--local"],
    ] {
        let mut command = shop.command(arguments);
        let output = command.stdout(full().expect("linux has it")).output();
        let ran = crate::shop::Ran::from(output.expect("the binary runs"));
        assert_eq!(ran.code, 4, "{arguments:?}: {ran}");
        assert!(
            ran.talk.contains("standard output cannot be written"),
            "{arguments:?}: {ran}"
        );
    }
}

#[test]
fn a_lateness_out_of_range_is_refused_with_the_range() {
    let shop = Shop::new();
    for late in ["18446744073709551615h", "18446744073709551615ms", "61s"] {
        let ran = shop.run(&["demo", "--inject-delay", late]);
        assert_eq!(ran.code, 2, "{late}: {ran}");
        assert!(ran.talk.contains("0ms to 1m"), "{late}: {ran}");
    }
}

/// The soft limit of descriptors of a process.
fn limit(process: Pid) -> Option<u64> {
    let path = format!("/proc/{}/limits", process.as_raw_nonzero());
    let limits = std::fs::read_to_string(path).ok()?;
    let mut lines = limits.lines();
    let files = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    files.split_whitespace().next()?.parse().ok()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
