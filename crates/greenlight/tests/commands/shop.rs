//! A folder with a `greenlight.yml`, its fleet, and what users see of it.

#[path = "last_lines.rs"]
mod last_lines;
#[path = "ran.rs"]
mod ran;

pub(crate) use ran::Ran;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything that is waited for may take.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_mins(3);

pub(crate) struct Shop {
    dir: tempfile::TempDir,
    public: [SocketAddr; 2],
    slots: [u16; 4],
}

/// A fleet that is up; it is taken down when this is dropped.
pub(crate) struct Up(Child);

impl Shop {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder"),
            public: [free_port(), free_port()].map(|port| ([127, 0, 0, 1], port).into()),
            slots: std::array::from_fn(|_| free_port()),
        }
    }

    /// One whose instances have the same public port, each on a loopback address of its own.
    pub(crate) fn on_two_addresses() -> Self {
        let mut shop = Self::new();
        shop.public[1] = ([127, 0, 0, 2], shop.public[0].port()).into();
        shop
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes `greenlight.yml` for the sample, with a short watch, and what is added.
    pub(crate) fn configure(&self, added: &str) {
        let program = env!("CARGO_BIN_EXE_greenlight");
        self.configure_for(&format!("command: [{program}, sample-app]"), added);
    }

    /// Writes `greenlight.yml` for an application, with a short watch, and what is added. No busy
    /// machine reaches the other timers.
    pub(crate) fn configure_for(&self, application: &str, added: &str) {
        let [a, b] = self.public.map(|public| {
            let (host, port) = (public.ip(), public.port());
            format!("host: {host}, port: {port}")
        });
        let [a_blue, a_green, b_blue, b_green] = self.slots;
        let timers = ["watch: 300ms\n", "deploy_timeout: 3m\n"];
        let timers = timers.into_iter().filter(|timer| {
            let key = timer.split(':').next().expect("it has a key");
            !added.contains(key)
        });
        let text = format!(
            "service: shop\n\
             {application}\n\
             servers:\n\
             \x20 - {{ name: a, {a}, ports: {{ blue: {a_blue}, green: {a_green} }} }}\n\
             \x20 - {{ name: b, {b}, ports: {{ blue: {b_blue}, green: {b_green} }} }}\n\
             {timers}{added}\
             cutover: {{ hold_budget: 20s, max_hold: 2m }}\n",
            timers = timers.collect::<String>(),
        );
        std::fs::write(self.dir().join("greenlight.yml"), text).expect("a folder");
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().expect("the binary runs");
        output.into()
    }

    /// The document that a command prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(arguments);
        serde_json::from_str(&ran.data).unwrap_or_else(|error| panic!("{error}: {ran}"))
    }

    pub(crate) fn up(&self) -> Up {
        self.up_saying(Stdio::inherit())
    }

    /// The same, with its talk written somewhere else.
    pub(crate) fn up_saying(&self, talk: Stdio) -> Up {
        Self::up_of(self.command(&["up"]).stderr(talk))
    }

    /// The same, in an environment with these variables.
    pub(crate) fn up_with(&self, variables: &[(&str, &str)]) -> Up {
        let mut command = self.command(&["up"]);
        Self::up_of(command.envs(variables.iter().copied()))
    }

    fn up_of(command: &mut Command) -> Up {
        let child = command.stdout(Stdio::piped());
        let mut up = Up(child.spawn().expect("the binary runs"));
        let stdout = up.0.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let is_up = lines.any(|line| line.is_ok_and(|line| line.contains("is up")));
        assert!(is_up, "the fleet did not come up");
        up
    }

    /// A fleet that is up, and the document that `up` prints.
    pub(crate) fn up_json(&self) -> (Up, Value) {
        let mut command = self.command(&["up", "--json"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut up = Up(child.spawn().expect("the binary runs"));
        let stdout = up.0.stdout.take().expect("it is piped");
        let mut documents = serde_json::Deserializer::from_reader(stdout).into_iter();
        let document = documents.next().expect("it comes up").expect("it is JSON");
        (up, document)
    }

    /// Which release answers on each instance.
    pub(crate) fn serves(&self) -> [String; 2] {
        self.public
            .map(|address| release(address).unwrap_or_else(|error| format!("nothing: {error}")))
    }

    pub(crate) fn wait_until_served(&self, version: &str) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while self.serves() != [version, version] {
            assert!(Instant::now() < deadline, "{:?}", self.serves());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where users come in.
    pub(crate) fn public(&self) -> [SocketAddr; 2] {
        self.public
    }

    /// What is answered for a path on each instance.
    pub(crate) fn bodies(&self, path: &str) -> [String; 2] {
        self.public.map(|address| {
            let answer = ask(address, path).unwrap_or_default();
            let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
            body.unwrap_or_default().to_owned()
        })
    }

    /// Waits until `status --json` is as wanted.
    pub(crate) fn wait_until(&self, mut wanted: impl FnMut(&Value) -> bool) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let status = self.json(&["status", "--json"]);
            if wanted(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "{status:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends an instance's agent with SIGKILL; its supervisor starts it again.
    pub(crate) fn kill_agent(&self, name: &str) {
        let agent = self.pid(&format!("agent-{name}"));
        kill_process(agent, Signal::KILL).expect("it runs");
    }

    /// The process of a role of the fleet.
    pub(crate) fn pid(&self, role: &str) -> Pid {
        let path = self.dir().join(format!(".greenlight/run/{role}.pid"));
        let pid = std::fs::read_to_string(path).expect("it was started");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
        pid.expect("a process number")
    }

    /// Listens on a slot's port: blue and green of the first instance, then of the second.
    pub(crate) fn take_port(&self, slot: usize) -> TcpListener {
        TcpListener::bind(("127.0.0.1", self.slots[slot])).expect("it is free")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenlight"));
        command
            .args(arguments)
            .current_dir(self.dir())
            .env("USER", "tester")
            .env_remove("GITHUB_ACTOR")
            .env_remove("GREENLIGHT_FLEET")
            .stdin(Stdio::null());
        command
    }
}

impl Up {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Ends `up` so that it cannot take anything down.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it is our child");
    }
}

impl Drop for Shop {
    /// Ends what a killed `up` left, if the test did not get as far as another one. Whoever finds
    /// out why a test failed needs what the roles wrote.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", last_lines::of(&self.dir().join(".greenlight/run")));
        }
        let Ok(fleet) = self.dir().join(".greenlight").canonicalize() else {
            return;
        };
        greenlight::local::end_stale_processes(&fleet);
        let mark = format!("GREENLIGHT_SLOT={}/", fleet.display());
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            if !variables.any(|variable| variable.starts_with(mark.as_bytes())) {
                continue;
            }
            let pid = process
                .file_name()
                .to_str()
                .and_then(|pid| pid.parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                // It may have ended already.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself; then there is nothing to take down.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// A slot's port has no listener for long, and must still be free when a release starts there.
pub(crate) fn free_port() -> u16 {
    greenlight_ports::reserve_port().expect("a port is free")
}

fn release(address: SocketAddr) -> std::io::Result<String> {
    let answer = ask(address, "/")?;
    let header = answer
        .lines()
        .find_map(|line| line.strip_prefix("x-release: "));
    Ok(header.unwrap_or("no release").to_owned())
}

/// The whole answer to a request on a connection of its own.
pub(crate) fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
