//! A private Nginx for the demo and the tests, beside the machine's own.
//!
//! It keeps everything in one folder, runs in the foreground as a child, and ends with this.

use super::control::Nginx;
use super::error::NginxError;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it gets to start, and to end.
const START_OR_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// More than one, as everywhere: they change one after the other.
const WORKERS: usize = 2;
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Where packages put the program; not everybody's `PATH` has that folder.
const USUAL: &str = "/usr/sbin/nginx";

/// An Nginx that runs as a child of this process.
#[derive(Debug)]
pub struct PrivateNginx {
    nginx: Nginx,
    child: Child,
}

impl PrivateNginx {
    /// Writes a main configuration into `dir`, with this text in its `http` block. `user` names
    /// the workers' user and group; the one of this process if empty.
    pub fn write(dir: &Path, user: &str, http: &str) -> io::Result<Nginx> {
        std::fs::create_dir_all(dir.join("conf.d"))?;
        let dir = dir.canonicalize()?;
        // Only root may change its user, and Nginx's default user may not exist.
        let user = match (user, rustix::process::geteuid().is_root()) {
            (_, false) => String::new(),
            ("", true) => "user root;".to_owned(),
            (user, true) => format!("user {user};"),
        };
        let here = dir.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {here}/{kind};\n"))
            .concat();
        let text = format!(
            "{user}\ndaemon off;\nworker_processes {WORKERS};\npid {here}/nginx.pid;\n\
             error_log {here}/error.log notice;\nevents {{\n    worker_connections 1024;\n}}\n\
             http {{\n    access_log {here}/access.log;\n{temporary}\
             \x20   include {here}/conf.d/*.conf;\n{http}\n}}\n"
        );
        std::fs::write(dir.join("nginx.conf"), text)?;
        let usual = PathBuf::from(USUAL);
        Ok(Nginx {
            binary: match usual.exists() {
                true => usual,
                false => "nginx".into(),
            },
            conf: dir.join("nginx.conf"),
            pid: dir.join("nginx.pid"),
        })
    }

    /// Starts it, and waits until its workers accept.
    pub async fn start(nginx: Nginx) -> Result<Self, NginxError> {
        let not_run = |source| NginxError::NotRun {
            program: nginx.binary.clone(),
            source,
        };
        let child = Command::new(&nginx.binary)
            .arg("-c")
            .arg(&nginx.conf)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt at the terminal must not reach it; its owner stops it.
            .process_group(0)
            .spawn()
            .map_err(not_run)?;
        let mut private = Self { nginx, child };
        let deadline = Instant::now() + START_OR_STOP_TIMEOUT;
        let all_accept = |nginx: &Nginx| nginx.accepting().is_ok_and(|w| w.len() >= WORKERS);
        while !all_accept(&private.nginx) {
            let gone = private.child.try_wait().is_ok_and(|ended| ended.is_some());
            if gone || Instant::now() > deadline {
                // Its output says why.
                private.nginx.test().await?;
                private.nginx.master()?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(private)
    }

    /// Where it is.
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// The numbers of the workers that accept connections.
    pub fn workers(&self) -> Result<Vec<i32>, NginxError> {
        let mut pids: Vec<_> = self.nginx.accepting()?.iter().map(|w| w.pid).collect();
        pids.sort_unstable();
        Ok(pids)
    }
}

impl Drop for PrivateNginx {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + START_OR_STOP_TIMEOUT;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
