//! A fleet of the real binary: `greenlight up` with two instances, and everything it leaves.

use super::points::Points;
use greenlight::api::{FleetStatus, History};
use greenlight::link::ApiClient;
use greenlight_protocol::message::Healthy;
use greenlight_protocol::{Color, InstanceId, Outcome, StageView};
use greenlight_proxy::admin::AdminClient;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(15);
const PROGRAM: &str = env!("CARGO_BIN_EXE_greenlight");
pub(crate) const SERVICE: &str = "shop";

/// One instance as it was configured.
struct Instance {
    name: &'static str,
    listen: SocketAddr,
    blue: u16,
    green: u16,
}

/// The fleet under test. Dropping it ends everything that it started.
pub(crate) struct Fleet {
    dir: TempDir,
    up: Child,
    api: ApiClient,
    instances: Vec<Instance>,
    versions: u32,
    /// The label of what the fleet serves.
    live: String,
}

/// A `greenlight deploy` that runs, and what it says on standard error.
pub(crate) struct Deploy {
    pub(crate) version: String,
    child: Child,
    said: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` if it was killed.
    pub(crate) code: Option<i32>,
    /// What it said on standard error.
    pub(crate) said: String,
}

/// A process of the fleet, as `/proc` tells of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    /// The verb it was started with, and for an application its instance and release.
    pub(crate) kind: String,
    pub(crate) pid: i32,
}

impl Fleet {
    /// Starts the fleet and brings releases to it: the second replaces one, as all later ones do.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("crash")).expect("a folder");
        let instances: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|name| Instance {
                name,
                listen: ([127, 0, 0, 1], free_port()).into(),
                blue: free_port(),
                green: free_port(),
            })
            .collect();
        write_configuration(dir.path(), &instances, &[]);
        let log = File::create(dir.path().join("up.log")).expect("a log");
        let up = Command::new(PROGRAM)
            .args(["up", "--file", &path(&dir, "greenlight.yml")])
            .args(["--state", &path(&dir, "state")])
            .env("GREENLIGHT_CRASH_DIR", dir.path().join("crash"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        let operator = dir.path().join("state/operator");
        let deadline = Instant::now() + PATIENCE;
        let api = loop {
            match ApiClient::from_dir(&operator) {
                Ok(api) => break api,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let mut fleet = Self {
            dir,
            up,
            api,
            instances,
            versions: 0,
            live: String::new(),
        };
        until("all are connected", async || {
            let status = fleet.status().await;
            status.is_some_and(|status| status.instances.values().all(Option::is_some))
        })
        .await;
        for _ in 0..2 {
            let ended = fleet.deploy().ended().await;
            assert_eq!(ended.code, Some(0), "{}", ended.said);
            fleet.settled().await;
        }
        fleet
    }

    /// Where users come in.
    pub(crate) fn targets(&self) -> Vec<SocketAddr> {
        self.instances
            .iter()
            .map(|instance| instance.listen)
            .collect()
    }

    /// The label of what the fleet serves, as it was when it last settled.
    pub(crate) fn live(&self) -> &str {
        &self.live
    }

    /// The crash points of a role, such as `server` or `agent-b`.
    pub(crate) fn points(&self, role: &str) -> Points {
        Points::new(self.dir.path().join("crash"), role)
    }

    /// The file in which the applications note what POSTs have changed.
    pub(crate) fn effects(&self) -> PathBuf {
        self.dir.path().join("effects")
    }

    /// Gives the releases to come other settings in their environment.
    pub(crate) fn configure(&self, env: &[(&str, &str)]) {
        write_configuration(self.dir.path(), &self.instances, env);
    }

    /// Starts to deploy a release with a label that was never used before.
    pub(crate) fn deploy(&mut self) -> Deploy {
        self.versions += 1;
        let version = format!("v{}", self.versions);
        self.deploy_again(&version)
    }

    /// Starts to deploy a release with this label.
    pub(crate) fn deploy_again(&self, version: &str) -> Deploy {
        let said = tempfile::NamedTempFile::new().expect("a file");
        let (file, said) = said.keep().expect("it can be kept");
        let child = Command::new(PROGRAM)
            .args(["deploy", "--version", version, "--json"])
            .args(["--file", &path(&self.dir, "greenlight.yml")])
            .args(["--fleet", &path(&self.dir, "state/operator")])
            .env("USER", "a person")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the binary runs");
        Deploy {
            version: version.to_owned(),
            child,
            said,
        }
    }

    /// How the fleet says it stands; `None` while its server is away.
    pub(crate) async fn status(&self) -> Option<FleetStatus> {
        self.api.get("/v1/status").await.ok()
    }

    /// How the latest deployment of a release ended.
    pub(crate) async fn outcome(&self, version: &str) -> Option<Outcome> {
        let history: History = self.api.get("/v1/deployments").await.ok()?;
        let mut receipts = history.deployments.into_iter().rev();
        let its = receipts.find(|r| r.releases.values().any(|v| v == version))?;
        its.outcome
    }

    /// The state of one instance's gate, such as `held`.
    pub(crate) async fn gate(&self, instance: &str) -> Option<String> {
        let socket = format!("state/instances/{instance}/proxy.sock");
        let admin = AdminClient::new(self.dir.path().join(socket));
        let status = admin.status().await.ok()?;
        Some(status.services.get(SERVICE)?.state.clone())
    }

    /// The number of a role's process.
    pub(crate) fn pid(&self, role: &str) -> i32 {
        let file = self.dir.path().join(format!("state/run/{role}.pid"));
        let text = fs::read_to_string(file).expect("it was started");
        text.trim().parse().expect("a process number")
    }

    /// Ends a role's process with SIGKILL; it is started again.
    pub(crate) fn kill(&self, role: &str) {
        signal(self.pid(role), Signal::KILL);
    }

    /// Nothing that dies is started again, until [`Fleet::supervise`].
    pub(crate) fn neglect(&self) {
        signal(process_number(&self.up), Signal::STOP);
    }

    /// What died is started again from here on.
    pub(crate) fn supervise(&self) {
        signal(process_number(&self.up), Signal::CONT);
    }

    /// Lets a role go on that was paused at a point.
    pub(crate) fn resume(&self, role: &str) {
        signal(self.pid(role), Signal::CONT);
    }

    /// Waits for a release's application on an instance, and returns its process.
    pub(crate) async fn application(&self, instance: &str, version: &str) -> i32 {
        let kind = format!("sample-app {instance} {version}");
        let find = || self.processes().into_iter().find(|p| p.kind == kind);
        until(&format!("`{kind}` runs"), async || find().is_some()).await;
        find().expect("it was just there").pid
    }

    /// Every process of the fleet.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mark = format!("GREENLIGHT_CRASH_DIR={}", path(&self.dir, "crash"));
        let entries = fs::read_dir("/proc").expect("Linux");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut processes: Vec<_> = pids.filter_map(|pid| process(pid, &mark)).collect();
        processes.sort();
        processes
    }

    /// Waits until the fleet has come to rest, and checks that it is whole: one release on all
    /// instances, healthy, gates open, and nothing else left behind.
    pub(crate) async fn settled(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let live = loop {
            match self.unrest().await {
                Ok(live) => break live,
                Err(unrest) => assert!(
                    Instant::now() < deadline,
                    "the fleet did not come to rest: {unrest}\n{}",
                    self.logs()
                ),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        self.live = live;
    }

    /// The one release that the fleet serves, or what keeps it from rest.
    async fn unrest(&self) -> Result<String, String> {
        let status = self.status().await.ok_or("the server is away")?;
        if let Some(deployment) = &status.deployment {
            return Err(format!("{deployment:?}"));
        }
        if status.retiring || status.warm {
            return Err("an earlier release is still warm".to_owned());
        }
        let mut versions = BTreeSet::new();
        let mut known = expected_files();
        for (name, instance) in &status.instances {
            let instance = instance.as_ref().ok_or(format!("`{name}` is away"))?;
            if instance.stage != StageView::Settled {
                return Err(format!("`{name}` is {:?}", instance.stage));
            }
            for live in instance.live.values() {
                if live.healthy != Healthy::Yes {
                    return Err(format!("`{name}` is not healthy"));
                }
                versions.insert(live.version.clone());
            }
            let color = instance.live.values().next().map(|live| live.color);
            known.extend(color.map(|c| format!("instances/{name}/slots/{SERVICE}-{c}.json")));
            self.instance_at_rest(name, color).await?;
        }
        let versions: Vec<_> = versions.into_iter().collect();
        let [version] = &versions[..] else {
            return Err(format!("the fleet serves {versions:?}")); // G2
        };
        let wanted = [
            "agent a".to_owned(),
            "agent b".to_owned(),
            "proxy a".to_owned(),
            "proxy b".to_owned(),
            format!("sample-app a {version}"),
            format!("sample-app b {version}"),
            "server".to_owned(),
            "up".to_owned(),
        ];
        let running: Vec<_> = self.processes().into_iter().map(|p| p.kind).collect();
        if running != wanted {
            return Err(format!("these run: {running:?}")); // G2
        }
        let left: Vec<_> = self.files().difference(&known).cloned().collect();
        if !left.is_empty() {
            return Err(format!("these files were left behind: {left:?}"));
        }
        Ok(version.clone())
    }

    /// Only the live color's port is taken, and the gate is open to it.
    async fn instance_at_rest(&self, name: &InstanceId, live: Option<Color>) -> Result<(), String> {
        let mut instances = self.instances.iter();
        let instance = instances.find(|instance| instance.name == name.0);
        let instance = instance.expect("it was configured");
        let idle = match live {
            Some(Color::Blue) => instance.green,
            Some(Color::Green) => instance.blue,
            None => return Err(format!("`{name}` serves nothing")),
        };
        if TcpListener::bind(("127.0.0.1", idle)).is_err() {
            return Err(format!("port {idle} of `{name}` is still taken"));
        }
        match self.gate(&name.0).await.as_deref() {
            Some("open") => Ok(()),
            other => Err(format!("the gate of `{name}` is {other:?}")),
        }
    }

    /// Every file of the fleet; the two colors' logs are as one.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let root = self.dir.path().join("state");
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&root).expect("it is below");
                let name = name.display().to_string();
                files.insert(
                    name.replace("-blue.log", "-COLOR.log")
                        .replace("-green.log", "-COLOR.log"),
                );
            }
        }
        files
    }

    /// The last lines of every log, for whoever has to find out.
    pub(crate) fn logs(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let run = self.dir.path().join("state/run");
        let logs = fs::read_dir(run).into_iter().flatten().flatten();
        for log in logs.filter(|entry| entry.path().extension().is_some_and(|e| e == "log")) {
            let all = fs::read_to_string(log.path()).unwrap_or_default();
            let lines: Vec<_> = all.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            let _ = writeln!(text, "--- {}\n{}", log.path().display(), last.join("\n"));
        }
        let _ = writeln!(text, "--- running\n{:?}", self.processes());
        text
    }

    /// Takes the fleet down, and checks that nothing of it is left: no process, no port.
    pub(crate) fn stop(mut self) {
        signal(process_number(&self.up), Signal::TERM);
        let ended = tokio::task::block_in_place(|| self.up.wait());
        assert!(ended.expect("it ends").success(), "{}", self.logs());
        assert_eq!(self.processes(), [], "{}", self.logs());
        for instance in &self.instances {
            for port in [instance.listen.port(), instance.blue, instance.green] {
                let free = TcpListener::bind(("127.0.0.1", port));
                assert!(free.is_ok(), "port {port} is still taken");
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Nothing is left to run when a test has failed. The supervisor goes first.
        let _ = self.up.kill();
        let _ = self.up.wait();
        for process in self.processes() {
            if let Some(pid) = Pid::from_raw(process.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Deploy {
    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.said).expect("its standard error")
    }

    /// Waits until it has said something; gives up when it has ended without.
    pub(crate) async fn says(&mut self, text: &str) -> bool {
        while !self.said().contains(text) {
            if self.child.try_wait().expect("it is a child").is_some() {
                return self.said().contains(text);
            }
            tokio::time::sleep(LOOK_EVERY / 5).await;
        }
        true
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is a child");
        self.child.wait().expect("it is a child");
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end: {}",
                self.said()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        };
        Ended {
            code: status.code(),
            said: self.said(),
        }
    }
}

impl Drop for Deploy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.said);
    }
}

/// Waits for something that only looking can tell.
pub(crate) async fn until(what: &str, happened: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened().await {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(LOOK_EVERY / 5).await;
    }
}

fn write_configuration(dir: &Path, instances: &[Instance], env: &[(&str, &str)]) {
    use std::fmt::Write as _;
    let mut text = format!("service: {SERVICE}\ncommand: [{PROGRAM:?}, sample-app]\nservers:\n");
    for Instance {
        name,
        listen,
        blue,
        green,
    } in instances
    {
        let port = listen.port();
        let ports = format!("{{ blue: {blue}, green: {green} }}");
        let line = format!("{{ name: {name}, host: 127.0.0.1, port: {port}, ports: {ports} }}");
        writeln!(text, "  - {line}").expect("a string takes it");
    }
    let effects = dir.join("effects").display().to_string();
    let mut all = BTreeMap::from([
        ("EFFECTS", effects.as_str()),
        // G4: a request that comes before the checks have passed is answered 500.
        ("NEEDS_CHECKS", "2"),
    ]);
    all.extend(env.iter().copied());
    text.push_str("env:\n  clear:\n");
    for (name, value) in all {
        writeln!(text, "    {name}: {value:?}").expect("a string takes it");
    }
    // The barrier has time on a machine that is busy with other tests.
    text.push_str(
        "proxy:\n  healthcheck: { interval: 100ms, timeout: 5s }\n\
         cutover: { hold_budget: 1s, max_hold: 20s }\n\
         watch: 300ms\nkeep_warm: 100ms\ndrain_timeout: 300ms\nstop_timeout: 5s\n\
         deploy_timeout: 20s\n",
    );
    let file = dir.join("greenlight.yml");
    fs::write(file, text).expect("it can be written");
}

/// What a fleet at rest keeps below its folder, but for the records of what runs.
fn expected_files() -> BTreeSet<String> {
    let mut files: BTreeSet<String> = ["lock", "operator/server"].map(ToOwned::to_owned).into();
    let of_server = ["ca.key", "ca.pem", "journal.redb", "receipts.json"];
    files.extend(of_server.map(|name| format!("server/{name}")));
    for role in ["server", "agent-a", "agent-b", "proxy-a", "proxy-b"] {
        files.extend(["log", "pid"].map(|ending| format!("run/{role}.{ending}")));
    }
    for instance in ["instances/a", "instances/b"] {
        let names = ["agent.redb", "proxy.sock", "routing"];
        files.extend(names.map(|name| format!("{instance}/{name}")));
        let logs = ["log", "log.1"];
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
fn process(pid: i32, mark: &str) -> Option<Process> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = environment.split(|byte| *byte == 0);
    let variables: BTreeSet<_> = variables.map(String::from_utf8_lossy).collect();
    if !variables.contains(mark) {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, state) = stat.rsplit_once(") ")?;
    if state.starts_with(['Z', 'X']) {
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

/// A port that nobody uses, outside the range from which connections get theirs: the port of an
/// idle slot must stay free.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % 17_000).expect("it is small");
    loop {
        let port = 15_000 + (offset + NEXT.fetch_add(1, SeqCst)) % 17_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

fn process_number(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("process numbers fit")
}

/// Ends a process with SIGKILL, and returns when it is dead: until then it might still be given
/// connections.
pub(crate) async fn kill(pid: i32) {
    signal(pid, Signal::KILL);
    until("it is dead", async || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ");
        state.is_none_or(|(_, state)| state.starts_with(['Z', 'X']))
    })
    .await;
}

fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process number");
    kill_process(pid, signal).expect("it runs");
}
