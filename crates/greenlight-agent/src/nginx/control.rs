//! The Nginx of this machine: testing it, reloading it, and examining its processes.
//!
//! A reload is SIGHUP to the master, which is what `nginx -s reload` sends after it
//! has read the configuration once more. Sending the signal says nothing about whether the
//! master liked what it read: only its workers can (see `marker.rs`).

use super::dry_run::{Copied, copy_with};
use super::error::{NginxError, TEST_TIMEOUT};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// What Nginx calls a worker that accepts nothing more.
const LEAVING: &str = "is shutting down";

/// Where the Nginx of this machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nginx {
    pub binary: PathBuf,
    /// Its main configuration.
    pub conf: PathBuf,
    /// The file with the number of its master.
    pub pid: PathBuf,
}

/// A master or worker, told from a later process of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks after boot.
    started: u64,
}

impl Nginx {
    /// Tests the present configuration.
    pub async fn test(&self) -> Result<(), NginxError> {
        self.test_file(&self.conf).await
    }

    /// Tests the configuration as it would be with another text in one of its files.
    pub async fn test_with(&self, include: &Path, text: &str) -> Result<Copied, NginxError> {
        let copy = copy_with(&self.conf, include, text)?;
        let tested = self.test_file(copy.conf()).await;
        let copied = copy.copied();
        // Removed in any case, also if the test failed.
        drop(copy);
        tested.map(|()| copied)
    }

    async fn test_file(&self, conf: &Path) -> Result<(), NginxError> {
        self.read_by_nginx("-t", conf).await.map(drop)
    }

    /// The whole configuration that a start or a reload would read, each file after a line with
    /// its name.
    pub(crate) async fn dump(&self) -> Result<String, NginxError> {
        self.read_by_nginx("-T", &self.conf).await
    }

    /// Has Nginx read a configuration without running it: `-t` tests it, `-T` prints it too.
    async fn read_by_nginx(&self, how: &str, conf: &Path) -> Result<String, NginxError> {
        let mut command = Command::new(&self.binary);
        command.arg(how).arg("-q").arg("-c").arg(conf);
        command.kill_on_drop(true);
        let output = tokio::time::timeout(TEST_TIMEOUT, command.output()).await;
        let output = output.map_err(|_| NginxError::TestTooLong)?;
        let output = output.map_err(|source| NginxError::NotRun {
            program: self.binary.clone(),
            source,
        })?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(NginxError::Refused(said(&output.stderr))),
        }
    }

    /// How many workers serve their last connections.
    pub(crate) fn leaving(&self) -> Result<usize, NginxError> {
        let workers = self.workers()?;
        Ok(workers.iter().filter(|worker| worker.is_leaving()).count())
    }

    /// Whether the configuration includes a file.
    pub(crate) fn reads(&self, file: &Path) -> Result<bool, NginxError> {
        let copied = copy_with(&self.conf, file, "")?.copied();
        Ok(copied == Copied::Included)
    }

    /// The master, if it runs.
    pub(crate) fn master(&self) -> Result<Process, NginxError> {
        let not_running = |what: String| NginxError::NotRunning {
            pid: self.pid.clone(),
            what,
        };
        let text = std::fs::read_to_string(&self.pid)
            .map_err(|error| not_running(format!("cannot be read ({error})")))?;
        let pid = text
            .trim()
            .parse()
            .map_err(|_| not_running("has no process number in it".to_owned()))?;
        let stat = Stat::read(pid)
            .ok_or_else(|| not_running(format!("names process {pid}, which does not run")))?;
        // A file that a crash left may name a process that has nothing to do with it.
        match stat.name == "nginx" {
            true => Ok(stat.process),
            false => Err(not_running(format!(
                "names process {pid}, which is `{}`",
                stat.name
            ))),
        }
    }

    /// Signals the master to read its configuration again.
    pub(crate) fn reload(&self) -> Result<(), NginxError> {
        let master = self.master()?;
        let pid = Pid::from_raw(master.pid).expect("a process that runs has a number above 0");
        kill_process(pid, Signal::HUP).map_err(|error| NginxError::NotTold {
            pid: master.pid,
            source: error.into(),
        })
    }

    /// The workers that accept connections.
    pub(crate) fn accepting(&self) -> Result<Vec<Process>, NginxError> {
        let mut workers = self.workers()?;
        workers.retain(|worker| !worker.is_leaving());
        Ok(workers)
    }

    /// All workers.
    fn workers(&self) -> Result<Vec<Process>, NginxError> {
        let master = self.master()?;
        let processes = std::fs::read_dir("/proc").map_err(|source| NginxError::Files {
            path: "/proc".into(),
            source,
        })?;
        let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let workers = numbers
            .filter_map(Stat::read)
            .filter(|stat| stat.parent == master.pid && stat.state != 'Z');
        Ok(workers.map(|stat| stat.process).collect())
    }
}

impl Process {
    /// Whether it runs and takes new connections.
    pub(crate) fn accepts(self) -> bool {
        let same = Stat::read(self.pid).is_some_and(|s| s.process == self && s.state != 'Z');
        same && !self.is_leaving()
    }

    fn is_leaving(self) -> bool {
        std::fs::read(format!("/proc/{}/cmdline", self.pid))
            .is_ok_and(|title| String::from_utf8_lossy(&title).contains(LEAVING))
    }

    /// A number that no other process of this boot has.
    pub(crate) fn incarnation(self) -> u64 {
        (self.started << 22) | u64::from(self.pid.unsigned_abs())
    }
}

struct Stat {
    process: Process,
    name: String,
    state: char,
    parent: i32,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in brackets and may have anything in it, brackets included.
        let (before, rest) = text.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // Field 22 of all; the state is field 3.
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self {
            process: Process { pid, started },
            name: name.to_owned(),
            state,
            parent,
        })
    }
}

/// What Nginx wrote, without its time stamps.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(|line| {
        line.split_once("] ").map_or(line, |(_, said)| {
            said.trim_start_matches(|c: char| c.is_ascii_digit() || "#: ".contains(c))
        })
    });
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}
