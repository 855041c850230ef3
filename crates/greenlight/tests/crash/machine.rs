//! What the machine knows of a fleet: its processes, ports and files.

use super::fleet::{SERVICE, until};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;

/// A process of the fleet, as `/proc` tells of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    /// The verb it was started with, and for an application its instance and release.
    pub(crate) kind: String,
    pub(crate) pid: i32,
}

/// What a fleet at rest keeps below its folder, but for the records of what runs.
pub(crate) fn expected_files() -> BTreeSet<String> {
    let mut files: BTreeSet<String> = ["lock", "operator/server", "operator/fingerprint.key"]
        .map(ToOwned::to_owned)
        .into();
    let of_server = [
        "ca.key",
        "ca.pem",
        "fingerprint.key",
        "journal.redb",
        "fleet.json",
    ];
    files.extend(of_server.map(|name| format!("server/{name}")));
    for role in ["server", "agent-a", "agent-b", "proxy-a", "proxy-b"] {
        files.extend(["log", "pid"].map(|ending| format!("run/{role}.{ending}")));
    }
    for instance in ["instances/a", "instances/b"] {
        let names = [
            "addresses.json",
            "agent.redb",
            "proxy.sock",
            "routing",
            "docker/mark",
        ];
        files.extend(names.map(|name| format!("{instance}/{name}")));
        let logs = ["log", "previous.log"];
        files.extend(logs.map(|ending| format!("{instance}/slots/{SERVICE}-COLOR.{ending}")));
    }
    for identity in [
        "server/identity",
        "operator",
        "instances/a/identity",
        "instances/b/identity",
    ] {
        let names = ["ca.pem", "cert.pem", "key.pem"];
        files.extend(names.map(|name| format!("{identity}/{name}")));
    }
    files
}

/// What `/proc` says of a process of the fleet; `None` if it is dead or not of it.
pub(crate) fn process(pid: i32, mark: &str) -> Option<Process> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = environment.split(|byte| *byte == 0);
    let variables: BTreeSet<_> = variables.map(String::from_utf8_lossy).collect();
    if !variables.contains(mark) {
        return None;
    }
    if is_dead(pid) {
        return None;
    }
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = command.split(|byte| *byte == 0);
    let arguments: Vec<_> = arguments.map(String::from_utf8_lossy).collect();
    let variable = |name: &str| {
        let mut values = variables.iter().filter_map(|v| v.strip_prefix(name));
        values.next().unwrap_or_default().to_owned()
    };
    let verb = arguments.get(1).map_or("", |verb| verb);
    let kind = match verb {
        "sample-app" => format!(
            "{verb} {} {}",
            variable("GREENLIGHT_INSTANCE="),
            variable("VERSION=")
        ),
        "agent" | "proxy" => {
            let all = arguments.join(" ");
            let name = if all.contains("/instances/a/") {
                "a"
            } else {
                "b"
            };
            format!("{verb} {name}")
        }
        _ => verb.to_owned(),
    };
    Some(Process { kind, pid })
}

/// Ends a process with SIGKILL, and returns when it is dead: until then it might still be given
/// connections.
pub(crate) async fn kill(pid: i32) {
    signal(pid, Signal::KILL);
    until("it is dead", async || is_dead(pid)).await;
}

fn is_dead(pid: i32) -> bool {
    matches!(state(pid), None | Some('Z' | 'X'))
}

/// Whether a process was stopped, and not yet told to go on.
pub(crate) fn is_stopped(pid: i32) -> bool {
    state(pid) == Some('T')
}

/// The letter by which `/proc` tells a process's state.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, state) = stat.rsplit_once(") ")?;
    state.chars().next()
}

/// Sends a signal to a process that runs.
pub(crate) fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process number");
    kill_process(pid, signal).expect("it runs");
}
