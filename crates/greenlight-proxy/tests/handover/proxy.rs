//! A proxy as a process, and a fixture of one service with two applications behind it.

use crate::app::App;
use crate::client::Client;
use greenlight_admin::{
    AdminClient, Color, HoldRequest, OnUncertain, OpenRequest, ServiceSettings, StatusAnswer,
};
use greenlight_proxy::{Address, IfRunning, Limits, ProxyOptions};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, prlimit, waitpid};
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Where the options of a proxy process are.
pub(crate) const OPTIONS: &str = "GREENLIGHT_TEST_PROXY";
/// Far longer than anything takes; only so that a failing test ends.
const EVENT_TIMEOUT: Duration = Duration::from_mins(2);
/// Between two looks at something that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(3);

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Options {
    pub(crate) listen: Vec<Address>,
    pub(crate) admin: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) status: Option<SocketAddr>,
    pub(crate) threads: usize,
    pub(crate) handover: bool,
    pub(crate) stop_timeout: Duration,
}

/// Runs a proxy in this process.
pub(crate) fn run(options: &str) -> ExitCode {
    let options: Options = serde_json::from_str(options).expect("options of the test");
    let if_running = if options.handover {
        IfRunning::TakeOver
    } else {
        IfRunning::Fail
    };
    let ended = greenlight_proxy::run(&ProxyOptions {
        listen: options.listen,
        socket_group: None,
        admin: options.admin,
        state: options.state,
        status: options.status,
        threads: options.threads,
        if_running,
        limits: Limits {
            stop_timeout: options.stop_timeout,
            ..Limits::default()
        },
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn spawn(options: &Options) -> Self {
        Self::spawn_with(options, &[])
    }

    /// The same, in an environment that has more.
    pub(crate) fn spawn_with(options: &Options, environment: &[(&str, String)]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let options = serde_json::to_string(options).expect("plain data");
        let child = Command::new(program)
            .env(OPTIONS, options)
            .envs(environment.iter().cloned())
            .stderr(Stdio::piped())
            .spawn();
        Self {
            child: child.expect("this program runs"),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// It does nothing any more, not even end. Returns when all its threads stand still: until
    /// the first of them has seen the signal, the others go on.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let pid = Pid::from_child(&self.child);
        let stopped = waitpid(Some(pid), WaitOptions::UNTRACED);
        let (_, status) = stopped.expect("a child").expect("it was waited for");
        assert!(status.stopped(), "it has ended instead");
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// The kernel ends it as soon as it has written so many bytes to one file and writes more.
    pub(crate) fn die_at_a_file_of(&self, bytes: u64) {
        let limit = Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        let pid = Pid::from_child(&self.child);
        prlimit(Some(pid), Resource::Fsize, limit).expect("a child's limits can be lowered");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("the process ends");
    }

    /// Waits until it ends by itself; returns what it said.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let status = until("the process ends", async || {
            self.child.try_wait().expect("a child")
        })
        .await;
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut said).expect("text");
        (status, said)
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One service, `shop`, with two applications, and a place for proxies.
pub(crate) struct Shop {
    pub(crate) blue: App,
    pub(crate) green: App,
    pub(crate) options: Options,
    pub(crate) admin: AdminClient,
    _folder: tempfile::TempDir,
}

impl Shop {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let admin = folder.path().join("proxy.sock");
        Self {
            blue: App::start("blue").await,
            green: App::start("green").await,
            options: Options {
                listen: vec!["127.0.0.1:0".parse().expect("an address")],
                state: folder.path().join("routing"),
                status: None,
                threads: 2,
                handover: false,
                stop_timeout: Duration::from_secs(30),
                admin: admin.clone(),
            },
            admin: AdminClient::new(admin),
            _folder: folder,
        }
    }

    /// With a proxy that serves blue.
    pub(crate) async fn open() -> (Self, Process, SocketAddr) {
        let shop = Self::new().await;
        let (process, address) = shop.start().await;
        shop.define().await;
        shop.open_to(0, Color::Blue).await;
        (shop, process, address)
    }

    pub(crate) async fn define(&self) {
        let settings = ServiceSettings {
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            blue: self.blue.address.to_string(),
            green: self.green.address.to_string(),
            request_timeout_ms: 60_000,
        };
        self.admin.define("shop", &settings).await.expect("defined");
    }

    pub(crate) async fn open_to(&self, epoch: u64, color: Color) -> u64 {
        let services = [("shop".to_owned(), Some(color))].into();
        let request = OpenRequest { epoch, services };
        self.admin.open(&request).await.expect("opened").released
    }

    pub(crate) fn hold(epoch: u64) -> HoldRequest {
        HoldRequest {
            epoch,
            services: vec!["shop".to_owned()],
            max_hold_ms: 60_000,
            on_uncertain: OnUncertain::ServeOld,
            exclusive_ms: None,
        }
    }

    /// Starts a proxy; returns when it leads.
    pub(crate) async fn start(&self) -> (Process, SocketAddr) {
        self.start_with(&self.options).await
    }

    /// Starts a successor; returns when it leads.
    pub(crate) async fn handover(&self, threads: usize) -> Process {
        let options = Options {
            handover: true,
            threads,
            ..self.options.clone()
        };
        self.start_with(&options).await.0
    }

    pub(crate) async fn start_with(&self, options: &Options) -> (Process, SocketAddr) {
        let process = Process::spawn(options);
        let status = self.led_by(&process).await;
        let address = status.listening[0].parse().expect("a TCP address");
        (process, address)
    }

    pub(crate) async fn led_by(&self, process: &Process) -> StatusAnswer {
        until("the process leads", async || {
            let status = self.admin.status().await.ok();
            status.filter(|status| status.pid == process.pid())
        })
        .await
    }

    /// Waits until so many requests wait, or have waited, at the gates of this cut-over.
    pub(crate) async fn held(&self, epoch: u64, requests: u64) {
        until("requests wait", async || {
            let evidence = self.admin.evidence(epoch).await.expect("evidence");
            let held = evidence.services.get("shop").map_or(0, |seen| seen.held);
            (held == requests).then_some(())
        })
        .await;
    }

    /// A plain question on the admin socket.
    pub(crate) async fn ask_admin(&self, method: &str, path: &str) -> crate::client::Response {
        let stream = UnixStream::connect(&self.options.admin).await;
        let mut client = Client::new(stream.expect("the admin socket"));
        client.ask(method, path, "").await.expect("a response")
    }
}

pub(crate) async fn get(address: SocketAddr) -> String {
    let mut client = Client::connect(address).await.expect("a connection");
    client.get("/").await.expect("a response").body
}

/// How many connections to a port have been accepted and are open: only those have an inode.
pub(crate) fn accepted(address: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let port = format!(":{:04X}", address.port());
    let is_accepted = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&port) && fields[3] == "01" && fields[9] != "0"
    };
    table.lines().skip(1).filter(is_accepted).count()
}

/// A request that is sent now and answered later.
pub(crate) fn send(
    mut client: Client<TcpStream>,
    path: &'static str,
) -> tokio::task::JoinHandle<crate::client::Response> {
    tokio::spawn(async move { client.get(path).await.expect("a response") })
}

/// The sockets of predecessors.
pub(crate) fn follower_sockets(admin: &Path) -> usize {
    let folder = admin.parent().expect("a folder");
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("proxy.sock."))
        .count()
}

/// Looks until there is something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let found = tokio::time::timeout(EVENT_TIMEOUT, looking).await;
    found.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
