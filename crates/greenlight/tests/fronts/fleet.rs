//! Two instances on this machine, each with an Nginx on its public port, as a user sets it up:
//! `greenlight.yml`, `up`, `attach`, `deploy`.

#[path = "../commands/last_lines.rs"]
mod last_lines;
#[path = "../commands/ran.rs"]
mod ran;

pub(crate) use ran::Ran;

use greenlight_agent::nginx::PrivateNginx;
use greenlight_ports::{reserve_address, reserve_neighbours};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The instances.
pub(crate) const NAMES: [&str; 2] = ["a", "b"];

pub(crate) struct NginxFleet {
    pub(crate) nginx: Vec<PrivateNginx>,
    pub(crate) public: Vec<SocketAddr>,
    up: Option<Up>,
    dir: PathBuf,
    _folder: tempfile::TempDir,
}

struct Up(Child);

impl NginxFleet {
    /// Both Nginx run and are attached; nothing is deployed yet.
    pub(crate) async fn start(front: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().canonicalize().expect("a folder");
        // As root, Nginx's workers are somebody else, as they are on a server.
        let is_root = rustix::process::geteuid().is_root();
        let (user, group) = match is_root {
            true => ("nobody nogroup", "\n    group: nogroup"),
            false => ("", ""),
        };
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&dir, open).expect("it is ours");
        let free = || reserve_address().expect("a port is free");
        let public = vec![free(), free()];
        let mut servers = String::new();
        for (name, address) in NAMES.iter().zip(&public) {
            let (port, blue, green) = (address.port(), free().port(), free().port());
            writeln!(
                servers,
                "  - {{ name: {name}, host: 127.0.0.1, port: {port}, \
                 ports: {{ blue: {blue}, green: {green} }} }}"
            )
            .expect("a string takes all");
        }
        let here = dir.display();
        let text = format!(
            "service: shop\ncommand: [{program}, sample-app]\nservers:\n{servers}proxy:\n  \
             front: {front}\n  nginx:\n    include: {here}/nginx-{{instance}}/conf.d/greenlight.conf\n    \
             conf: {here}/nginx-{{instance}}/nginx.conf\n    pid: {here}/nginx-{{instance}}/nginx.pid\n    \
             verify_port: {verify}{group}\nwatch: 300ms\ndeploy_timeout: 3m\n\
             cutover: {{ hold_budget: 20s, max_hold: 2m }}\n",
            program = env!("CARGO_BIN_EXE_greenlight"),
            // Both instances are on this machine, and the second has the next port.
            verify = reserve_neighbours(2).expect("two ports are free"),
        );
        std::fs::write(dir.join("greenlight.yml"), text).expect("a folder");
        let mut fleet = Self {
            nginx: Vec::new(),
            public,
            up: None,
            dir,
            _folder: folder,
        };
        fleet.up = Some(fleet.up());
        for index in 0..NAMES.len() {
            fleet.attach(index, user).await;
        }
        fleet
    }

    /// Nginx runs first, with a server of its own; then it is attached, and the location included.
    async fn attach(&mut self, index: usize, user: &str) {
        let (name, listen) = (NAMES[index], self.public[index]);
        let home = self.nginx_dir(index);
        let nginx = PrivateNginx::write(&home, user, "").expect("a folder");
        let first = PrivateNginx::start(nginx.clone())
            .await
            .expect("nginx starts");

        let shown = self.run(&["attach", "nginx", "--instance", name, "--dry-run"]);
        assert_eq!(shown.code, 0, "{shown}");
        assert!(
            shown.data.contains("+upstream greenlight_shop {"),
            "{shown}"
        );
        assert!(!home.join("conf.d/greenlight.conf").exists());
        let unseen = self.run(&["attach", "nginx", "--instance", name]);
        assert_eq!(unseen.code, 3, "{unseen}");

        let attached = self.run(&["--json", "attach", "nginx", "--instance", name, "--yes"]);
        assert_eq!(attached.code, 0, "{attached}");
        let said: Value = serde_json::from_str(&attached.data).expect("a document");
        let location = said["to_include"]["shop"].as_str().expect("a file");
        let server =
            format!("server {{ listen {listen}; location / {{ include {location}; }} }}\n");
        std::fs::write(home.join("conf.d/shop.conf"), server).expect("a folder");
        drop(first);
        let nginx = PrivateNginx::start(nginx).await;
        self.nginx.push(nginx.expect("nginx starts"));
    }

    pub(crate) fn nginx_dir(&self, index: usize) -> PathBuf {
        self.dir.join(format!("nginx-{}", NAMES[index]))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().expect("the binary runs");
        output.into()
    }

    pub(crate) fn deploy(&self, version: &str) -> Ran {
        self.run(&["deploy", "--version", version])
    }

    /// The document that a command prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(arguments);
        serde_json::from_str(&ran.data).unwrap_or_else(|error| panic!("{error}: {ran}"))
    }

    fn up(&self) -> Up {
        let mut command = self.command(&["up"]);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let stdout = child.stdout.take().expect("it is piped");
        let up = Up(child);
        let mut lines = BufReader::new(stdout).lines();
        let is_up = lines.any(|line| line.is_ok_and(|line| line.contains("is up")));
        assert!(is_up, "the fleet did not come up");
        up
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenlight"));
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env("USER", "tester")
            // What is on this machine is nothing to the tests.
            .env("GREENLIGHT_ROOT", self.dir.join("root"))
            .env_remove("GITHUB_ACTOR")
            .env_remove("GITHUB_ACTIONS")
            .env_remove("GREENLIGHT_FLEET")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for NginxFleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", last_lines::of(&self.dir.join(".greenlight/run")));
            for name in NAMES {
                eprintln!(
                    "{}",
                    last_lines::of(&self.dir.join(format!("nginx-{name}")))
                );
            }
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself; then there is nothing to take down.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}
