//! A fleet of the real binary: `greenlight up` with two instances, and everything it leaves.

use super::command::Deploy;
use super::failpoints::Points;
use super::last_lines;
use super::machine::{Process, expected_files, is_stopped, process, signal};
use greenlight_admin::AdminClient;
use greenlight_link::ApiClient;
use greenlight_link::api::{FleetStatus, History};
use greenlight_link::receipt::Receipt;
use greenlight_ports::{reserve_address, reserve_port};
use greenlight_protocol::message::Healthy;
use greenlight_protocol::{Color, InstanceId, Outcome, ParticipationView};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_mins(4);
/// How long something that may not happen at all is waited for.
const SOON: Duration = Duration::from_secs(3);
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(15);
/// Deployments that bring the fleet up, before there are users.
const BEFORE_TRAFFIC: usize = 2;
/// What each instance has in flight at all times.
const WEB_SOCKETS: u64 = 1;
const PROGRAM: &str = env!("CARGO_BIN_EXE_greenlight");
/// Short, because most releases are good.
const WATCH: &str = "300ms";
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
    /// The version of what the fleet serves.
    live: String,
    /// The deployment that was judged last, with its outcome and all that was said of it.
    latest: String,
}

impl Fleet {
    /// Starts the fleet and brings releases to it: the second replaces one, as all later ones do.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("failpoints")).expect("a folder");
        let instances: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|name| Instance {
                name,
                listen: reserve_address().expect("a port is free"),
                blue: reserve_port().expect("a port is free"),
                green: reserve_port().expect("a port is free"),
            })
            .collect();
        write_configuration(dir.path(), &instances, &[], WATCH);
        let log = File::create(dir.path().join("up.log")).expect("a log");
        let up = Command::new(PROGRAM)
            .args(["up", "--file", &path(&dir, "greenlight.yml")])
            .args(["--state", &path(&dir, "state")])
            .env("GREENLIGHT_FAILPOINT_DIR", dir.path().join("failpoints"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        let operator = dir.path().join("state/operator");
        let deadline = Instant::now() + TEST_TIMEOUT;
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
            latest: String::new(),
        };
        until("all are connected", async || {
            let status = fleet.status().await;
            status.is_some_and(|status| status.instances.values().all(Option::is_some))
        })
        .await;
        for _ in 0..BEFORE_TRAFFIC {
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

    /// The version of what the fleet serves, as it was when it last settled.
    pub(crate) fn live(&self) -> &str {
        &self.live
    }

    /// The failpoints of a role, such as `server` or `agent-b`.
    pub(crate) fn points(&self, role: &str) -> Points {
        Points::new(self.dir.path().join("failpoints"), role)
    }

    /// The file in which the applications note what POSTs have changed.
    pub(crate) fn effects(&self) -> PathBuf {
        self.dir.path().join("effects")
    }

    /// Gives the releases to come other settings in their environment.
    pub(crate) fn configure(&self, env: &[(&str, &str)]) {
        write_configuration(self.dir.path(), &self.instances, env, WATCH);
    }

    /// The same, and watches these releases for so long.
    pub(crate) fn configure_watched(&self, env: &[(&str, &str)], watch: &str) {
        write_configuration(self.dir.path(), &self.instances, env, watch);
    }

    /// Starts to deploy a release with a label that was never used before.
    pub(crate) fn deploy(&mut self) -> Deploy {
        self.versions += 1;
        let version = format!("v{}", self.versions);
        self.deploy_again(&version)
    }

    /// Starts to deploy a release with this label.
    pub(crate) fn deploy_again(&self, version: &str) -> Deploy {
        let file = path(&self.dir, "greenlight.yml");
        let fleet = path(&self.dir, "state/operator");
        Deploy::start(PROGRAM, version, &["--file", &file, "--fleet", &fleet])
    }

    /// How the fleet says it stands; `None` while its server is away.
    pub(crate) async fn status(&self) -> Option<FleetStatus> {
        self.api.get("/v1/status").await.ok()
    }

    /// Notes what became of a deployment, so that a test that fails says so.
    pub(crate) fn note(&mut self, latest: String) {
        self.latest = latest;
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

    /// Waits until a role has paused itself at the point of its plan.
    pub(crate) async fn paused(&self, role: &str) {
        self.points(role).reached().await;
        // It says so before it does, and until then there is nothing to resume.
        let pid = self.pid(role);
        until("it is stopped", async || is_stopped(pid)).await;
    }

    /// Lets a role go on that was paused at a point.
    pub(crate) fn resume(&self, role: &str) {
        self.points(role).leave();
        signal(self.pid(role), Signal::CONT);
    }

    /// Waits for a release's application on an instance, and returns its process.
    pub(crate) async fn application(&self, instance: &str, version: &str) -> i32 {
        let find = || self.find_application(instance, version);
        let what = format!("`{version}` runs on `{instance}`");
        until(&what, async || find().is_some()).await;
        find().expect("it was just there")
    }

    /// The same, if it runs before long.
    pub(crate) async fn application_soon(&self, instance: &str, version: &str) -> Option<i32> {
        let application = self.application(instance, version);
        let soon = tokio::time::timeout(SOON, application);
        soon.await.ok()
    }

    /// How many applications of an instance its agent has seen killed.
    pub(crate) fn killed(&self, instance: &str) -> usize {
        let log = self
            .dir
            .path()
            .join(format!("state/run/agent-{instance}.log"));
        let log = fs::read_to_string(log).expect("it was started");
        log.matches("it was killed by signal 9").count()
    }

    fn find_application(&self, instance: &str, version: &str) -> Option<i32> {
        let kind = format!("sample-app {instance} {version}");
        let mut processes = self.processes().into_iter();
        processes.find(|p| p.kind == kind).map(|p| p.pid)
    }

    /// Of the holds of late at one instance or the other: how many there were, and how many have
    /// found a request in the application's hands, or on its way there.
    pub(crate) async fn holds(&self) -> (usize, usize) {
        let history: History = self.api.get("/v1/deployments").await.expect("a history");
        let mut under_load: Vec<Receipt> = Vec::new();
        for summary in history.deployments.iter().skip(BEFORE_TRAFFIC) {
            let path = format!("/v1/deployments/{}", summary.deployment);
            under_load.push(self.api.get(&path).await.expect("its receipt"));
        }
        let cut_overs = under_load.iter().flat_map(|receipt| &receipt.cut_overs);
        let instances = cut_overs.flat_map(|cut_over| cut_over.instances.values());
        let holds = instances.filter_map(|instance| instance.held.as_ref());
        let met = holds.map(|held| held.in_flight + held.recalled > WEB_SOCKETS);
        let met: Vec<_> = met.collect();
        (met.len(), met.iter().filter(|met| **met).count())
    }

    /// Every process of the fleet.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mark = format!("GREENLIGHT_FAILPOINT_DIR={}", path(&self.dir, "failpoints"));
        let entries = fs::read_dir("/proc").expect("Linux");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut processes: Vec<_> = pids.filter_map(|pid| process(pid, &mark)).collect();
        processes.sort();
        processes
    }

    /// Waits until the fleet has come to rest, and checks that it is whole: one release on all
    /// instances, healthy, gates open, and nothing else left behind.
    pub(crate) async fn settled(&mut self) {
        let deadline = Instant::now() + TEST_TIMEOUT;
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
        let history: History = self
            .api
            .get("/v1/deployments")
            .await
            .map_err(|error| error.to_string())?;
        let receipts = history.deployments.iter();
        known.extend(receipts.map(|its| format!("server/receipts/{}.json", its.deployment)));
        for (name, instance) in &status.instances {
            let instance = instance.as_ref().ok_or(format!("`{name}` is away"))?;
            if instance.participation != ParticipationView::Idle {
                return Err(format!("`{name}` is {:?}", instance.participation));
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
                let is_log = name.extension().is_some_and(|extension| extension == "log");
                let mut name = name.display().to_string();
                if is_log {
                    name = name.replace("-blue.", "-COLOR.");
                    name = name.replace("-green.", "-COLOR.");
                }
                files.insert(name);
            }
        }
        files
    }

    /// The last lines of every log, for whoever has to find out.
    pub(crate) fn logs(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for folder in [self.dir.path(), &self.dir.path().join("state/run")] {
            text += &last_lines::of(folder);
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
        if std::thread::panicking() {
            eprintln!("the latest: {}\n{}", self.latest, self.logs());
        }
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

/// Waits for something that only looking can tell.
pub(crate) async fn until(what: &str, happened: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !happened().await {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(LOOK_EVERY / 5).await;
    }
}

fn write_configuration(dir: &Path, instances: &[Instance], env: &[(&str, &str)], watch: &str) {
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
        // Something is in its hands whenever it is held, stopped or killed; the others show at
        // once who answers.
        ("ANSWER_MS", "50"),
        ("SLOW_EVERY", "3"),
    ]);
    all.extend(env.iter().copied());
    text.push_str("env:\n  clear:\n");
    for (name, value) in all {
        writeln!(text, "    {name}: {value:?}").expect("a string takes it");
    }
    // No busy machine reaches these: what ends a deployment is what the test did to it.
    text.push_str(
        "proxy:\n  healthcheck: { interval: 100ms, timeout: 30s }\n\
         cutover: { hold_budget: 30s, max_hold: 2m }\n\
         keep_warm: 100ms\ndrain_timeout: 150ms\nstop_timeout: 30s\n\
         deploy_timeout: 2m\n",
    );
    writeln!(text, "watch: {watch}").expect("a string takes it");
    let file = dir.join("greenlight.yml");
    fs::write(file, text).expect("it can be written");
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

fn process_number(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("process numbers fit")
}
