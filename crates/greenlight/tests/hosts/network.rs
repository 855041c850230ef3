//! Network namespaces: each is a machine of its own to whatever runs in it.
//!
//! A namespace ends with this process' guard: what still runs in it is killed by its number, and
//! links, bridges and addresses go with it.

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long killed processes get to be gone.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

static MADE: AtomicU32 = AtomicU32::new(0);

/// One network namespace.
pub(crate) struct Namespace {
    name: String,
}

/// A process that ends with this.
pub(crate) struct Running(Child);

impl Namespace {
    pub(crate) fn new(label: &str) -> Self {
        let number = MADE.fetch_add(1, Relaxed);
        let name = format!("greenlight-{}-{number}-{label}", std::process::id());
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.name));
    }

    /// Does something in it. What is started there stays there.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let path = format!("/run/netns/{}", self.name);
                let file = File::open(path).expect("the namespace is there");
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(file.as_fd(), kind).expect("only root may do this");
                act()
            });
            thread.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub(crate) fn start(&self, command: &mut Command) -> Running {
        let program = command.get_program().display().to_string();
        let child = self.inside(|| command.spawn());
        Running(child.unwrap_or_else(|error| panic!("`{program}`: {error}")))
    }

    /// A bridge with this address.
    pub(crate) fn bridge(&self, name: &str, address: &str) {
        self.ip(&format!("link add {name} type bridge"));
        self.ip(&format!("addr add {address} dev {name}"));
        self.ip(&format!("link set {name} up"));
    }

    /// A cable to another namespace; the end there has the name and address given, the end here
    /// is called `end`.
    pub(crate) fn cable(&self, end: &str, there: &Self, name: &str, address: &str) {
        ip(&format!(
            "link add {end} netns {} type veth peer name {name} netns {}",
            self.name, there.name
        ));
        there.ip(&format!("addr add {address} dev {name}"));
        there.ip(&format!("link set {name} up"));
        self.ip(&format!("link set {end} up"));
    }

    /// The processes in it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let listed = Command::new("ip")
            .args(["netns", "pids", &self.name])
            .output()
            .expect("`ip` runs");
        let text = String::from_utf8_lossy(&listed.stdout);
        text.split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            for pid in left.into_iter().filter_map(Pid::from_raw) {
                // It may have ended already.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Also while a test fails; there is nobody to tell.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(arguments: &str) {
    let ran = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("`ip` runs");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "`ip {arguments}`: {said}");
}
