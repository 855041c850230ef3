//! The process runtime: a command with `PORT` set, in a process group of its own.
//!
//! Applications outlive the agent. Each slot has a file that describes what runs there: the
//! process, when it started, and in which boot of the machine; together they tell a process from
//! another that was given the same number later. Output goes to a file, because a pipe would die
//! with the agent; the agent keeps it to a bound. Death is noticed by pidfd, which also works for
//! processes that are not our children. What an application leaves behind when it dies is ended
//! with it, found by its mark.

mod mark;

use super::{Launch, Running, Runtime, RuntimeError};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_protocol::Slot;
use greenlight_release::spec::Artifact;
use greenlight_shell::atomic_file::write_atomically;
use greenlight_shell::log_file::{self, LogFile};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpid,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// At most this much of a log is read, in bytes, however much an application has written:
/// its death must be reported at once.
const TAIL: u64 = 1024 * 1024;
/// How often the size of a log is checked.
const LOOK_AT_LOG: Duration = Duration::from_secs(1);
/// How long to wait between two checks for what must be gone.
const GONE_PAUSE: Duration = Duration::from_millis(5);

/// Variables of the service manager for the agent alone: an application that used them
/// would speak for the agent.
const OF_THE_AGENT: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// Runs releases as processes of this machine.
#[derive(Clone, Debug)]
pub struct ProcessRuntime {
    dir: PathBuf,
    /// Held while a process runs and is not yet written down.
    starting: Arc<Mutex<()>>,
}

/// The content of the slot's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ProcessRecord {
    running: Running,
    /// Field 22 of `/proc/PID/stat`: clock ticks after boot.
    started: u64,
    boot: String,
}

impl ProcessRecord {
    /// Whether it speaks of this run. Its secrets are not written down, so they do not count.
    fn is(&self, running: &Running) -> bool {
        let (record, launch) = (&self.running.launch, &running.launch);
        self.running.pid == running.pid && record.incarnation == launch.incarnation
    }
}

impl ProcessRuntime {
    /// A runtime that keeps its files in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, RuntimeError> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).map_err(|source| files(&dir, source))?;
        // The folder's name is part of the mark, so it must be the same for every agent.
        let dir = dir.canonicalize().map_err(|source| files(&dir, source))?;
        let starting = Arc::default();
        Ok(Self { dir, starting })
    }

    fn path(&self, slot: &Slot, ending: &str) -> PathBuf {
        self.dir
            .join(format!("{}-{}.{ending}", slot.service, slot.color))
    }

    fn log(&self, slot: &Slot) -> LogFile {
        LogFile::new(self.path(slot, "log"))
    }

    /// Keeps the application's log within its bound. Never returns.
    async fn bound_log(&self, slot: &Slot) {
        loop {
            tokio::time::sleep(LOOK_AT_LOG).await;
            let log = self.log(slot);
            let bounded = tokio::task::spawn_blocking(move || log.bound(log_file::MOST)).await;
            if let Ok(Err(error)) = bounded {
                tracing::warn!(%slot, %error, "an application's log cannot be bounded");
            }
        }
    }

    /// What everything that was ever started in the slot carries in its environment.
    fn mark(&self, slot: &Slot) -> PathBuf {
        self.dir
            .join(format!("{}-{}", slot.service, slot.color))
            .join("")
    }

    /// The same for one incarnation.
    fn mark_of(&self, launch: &Launch) -> PathBuf {
        self.mark(&launch.slot).join(launch.incarnation.to_string())
    }

    fn spawn(&self, launch: Launch) -> Result<Running, RuntimeError> {
        let _starting = self.starting.lock();
        let slot = launch.slot.clone();
        let fill = |text: &str| {
            text.replace("${PORT}", &launch.port.to_string())
                .replace("${VERSION}", &launch.version)
        };
        let Artifact::Command {
            command,
            working_dir,
        } = &launch.artifact
        else {
            return Err(RuntimeError::Unsuited(slot));
        };
        let Some((program, arguments)) = command.split_first() else {
            return Err(RuntimeError::EmptyCommand(slot));
        };
        if std::net::TcpListener::bind(("127.0.0.1", launch.port)).is_err() {
            let port = launch.port;
            return Err(RuntimeError::PortTaken { slot, port });
        }
        let log = self.log(&slot);
        // The last application's output is what a person asks for after a failure.
        let previous = LogFile::new(self.path(&slot, "previous.log"));
        let moved = log.become_the(&previous).and_then(|()| log.open());
        let output = moved.map_err(|source| files(log.path(), source))?;
        let errors = output.try_clone();
        let errors = errors.map_err(|source| files(log.path(), source))?;
        let program = fill(program);
        let secrets = launch.secrets.env.iter();
        let mut command = bare(&program);
        command
            .args(arguments.iter().map(|argument| fill(argument)))
            .envs(launch.env.iter().map(|(name, value)| (name, fill(value))))
            .envs(secrets.map(|(name, value)| (name, value.expose())))
            .env("PORT", launch.port.to_string())
            .env("VERSION", &launch.version)
            .env("GREENLIGHT_SERVICE", &slot.service.0)
            .env("GREENLIGHT_COLOR", slot.color.to_string())
            .env("GREENLIGHT_INCARNATION", launch.incarnation.to_string())
            .env(mark::VARIABLE, self.mark_of(&launch))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        if let Some(dir) = working_dir {
            command.current_dir(dir);
        }
        let child = command
            .spawn()
            .map_err(|source| RuntimeError::Spawn { program, source })?;
        let pid = i32::try_from(child.id()).expect("process numbers fit");
        let running = Running {
            address: ([127, 0, 0, 1], launch.port).into(),
            launch,
            pid,
            container: None,
        };
        let record = ProcessRecord {
            started: start_ticks(pid).unwrap_or(0),
            boot: boot_id(),
            running: running.clone(),
        };
        let path = self.path(&slot, "json");
        if let Err(source) = write_synced(&path, &record) {
            // Unrecorded it would be lost to the next agent: better not to have it at all.
            signal_group(pid, Signal::KILL);
            return Err(files(&path, source));
        }
        Ok(running)
    }

    fn written(&self, slot: &Slot) -> Option<ProcessRecord> {
        let bytes = std::fs::read(self.path(slot, "json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The content of the slot's file, if the process still exists.
    fn recorded(&self, slot: &Slot) -> Option<ProcessRecord> {
        let record = self.written(slot)?;
        (record.boot == boot_id() && start_ticks(record.running.pid) == Some(record.started))
            .then_some(record)
    }

    /// What runs according to the slots' files. Any other process here has lost its leader, or its
    /// agent died before writing it down. It is ended, because no record mentions it.
    fn found(&self) -> Result<Vec<Running>, RuntimeError> {
        let _starting = self.starting.lock();
        let entries = std::fs::read_dir(&self.dir).map_err(|source| files(&self.dir, source))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "next") {
                // An agent died while it wrote this; what it spoke of is found by its mark.
                drop(std::fs::remove_file(&path));
            }
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let record: Option<ProcessRecord> = std::fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match record.and_then(|record| self.recorded(&record.running.launch.slot)) {
                Some(record) => found.push(record.running),
                // It speaks of a process that is gone.
                None => drop(std::fs::remove_file(&path)),
            }
        }
        let known: BTreeSet<_> = found
            .iter()
            .map(|running| self.mark_of(&running.launch).display().to_string())
            .collect();
        for (pid, its) in mark::find(&self.dir.join("")) {
            if !known.contains(&its) {
                mark::kill(pid);
            }
        }
        Ok(found)
    }

    async fn end(&self, slot: Slot, timeout: Duration) -> Result<(), RuntimeError> {
        if let Some(record) = self.recorded(&slot) {
            let pid = record.running.pid;
            signal_group(pid, Signal::TERM);
            // When patience ends the rest is killed with what is left.
            let _ = tokio::time::timeout(timeout, died(&record)).await;
            signal_group(pid, Signal::KILL);
            while start_ticks(pid) == Some(record.started) {
                tokio::time::sleep(GONE_PAUSE).await;
            }
            reap(pid);
        }
        end_rest(&self.mark(&slot)).await;
        let path = self.path(&slot, "json");
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(files(&path, source)),
        }
    }

    /// Resolves when the application is dead. What it leaves behind is ended beside that, because
    /// the fleet must know at once.
    async fn supervise(self, running: Running) -> String {
        let slot = running.launch.slot.clone();
        let recorded = self.recorded(&slot);
        if let Some(record) = recorded.filter(|record| record.is(&running)) {
            tokio::select! {
                () = died(&record) => {}
                () = self.bound_log(&slot) => {}
            }
        }
        let ended = reap(running.pid);
        tokio::spawn(async move {
            end_rest(&self.mark_of(&running.launch)).await;
            let _starting = self.starting.lock();
            if self
                .written(&slot)
                .is_some_and(|record| record.is(&running))
            {
                // If it cannot be removed, it at least names no running process.
                let _ = std::fs::remove_file(self.path(&slot, "json"));
            }
        });
        ended.unwrap_or_else(|| "it ended while no agent was watching".to_owned())
    }
}

impl Runtime for ProcessRuntime {
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Running, RuntimeError>> {
        async move { self.spawn(launch) }.boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Running>, RuntimeError>> {
        async move { self.found() }.boxed()
    }

    fn exited(&self, running: Running) -> BoxFuture<'static, String> {
        self.clone().supervise(running).boxed()
    }

    fn stop(&self, slot: Slot, timeout: Duration) -> BoxFuture<'_, Result<(), RuntimeError>> {
        self.end(slot, timeout).boxed()
    }

    fn logs<'a>(&'a self, slot: &'a Slot, lines: usize) -> BoxFuture<'a, Vec<String>> {
        async move {
            let text = self.log(slot).tail(TAIL).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let all: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
            all[all.len().saturating_sub(lines)..].to_vec()
        }
        .boxed()
    }
}

/// Ends the children that applications with this mark have left behind.
async fn end_rest(mark: &Path) {
    loop {
        let rest = mark::find(mark);
        if rest.is_empty() {
            return;
        }
        for (pid, _) in rest {
            mark::kill(pid);
        }
        tokio::time::sleep(GONE_PAUSE).await;
    }
}

/// Resolves when the process is dead.
async fn died(record: &ProcessRecord) {
    let Some(pid) = Pid::from_raw(record.running.pid) else {
        return;
    };
    let Ok(fd) = pidfd_open(pid, PidfdFlags::NONBLOCK) else {
        return;
    };
    if start_ticks(record.running.pid) != Some(record.started) {
        // Its number belongs to another by now.
        return;
    }
    let (sender, dead) = tokio::sync::oneshot::channel();
    // A pidfd becomes readable once, when its process ends. A thread of its own waits for that:
    // it needs no unsafe code, and an instance has few applications.
    let waiting = std::thread::Builder::new()
        .name("pidfd".to_owned())
        .spawn(move || {
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            while poll(&mut fds, None).is_err() {}
            // The caller may be gone.
            let _ = sender.send(());
        });
    if let Err(error) = waiting {
        tracing::error!(%error, "an application cannot be followed");
        std::future::pending::<()>().await;
    }
    // The thread sends before it ends.
    let _ = dead.await;
}

/// Takes the exit status of a child, so that it does not stay a zombie.
fn reap(pid: i32) -> Option<String> {
    let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG).ok()??;
    Some(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("it ended with exit status {code}"),
        (None, Some(signal)) => format!("it was killed by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    })
}

fn signal_group(pid: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(pid) {
        // The group may be gone already, which is what is wanted.
        let _ = kill_process_group(group, signal);
    }
}

/// Clock ticks after boot at which the process started; `None` if it is dead. A zombie of another
/// parent cannot be reaped here, and holds no port and no memory.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, but it ends at the last parenthesis.
    let (_, rest) = stat.rsplit_once(") ")?;
    if rest.starts_with('Z') {
        return None;
    }
    rest.split(' ').nth(19)?.parse().ok()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn write_synced(path: &Path, record: &ProcessRecord) -> io::Result<()> {
    let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
    write_atomically(path, 0o600, &bytes)
}

fn files(path: &Path, source: io::Error) -> RuntimeError {
    RuntimeError::Files {
        path: path.display().to_string(),
        source,
    }
}

/// A program with the agent's environment, but for what is the agent's alone.
fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    for variable in OF_THE_AGENT {
        command.env_remove(variable);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_does_not_hear_of_the_agent_s_service_manager() {
        let command = bare("shop");
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"] {
            let mut changed = command.get_envs();
            assert!(changed.any(|change| change == (variable.as_ref(), None)));
        }
    }
}
