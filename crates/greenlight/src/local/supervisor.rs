//! Keeps processes running: one that ends without being told to is started again, at once,
//! and ever more slowly if it cannot start.

use super::backoff::Backoff;
use greenlight_shell::log_file::{self, LogFile};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a process is checked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the size of its log is checked.
const LOOK_AT_LOG: Duration = Duration::from_secs(1);
/// How long a process gets to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps processes of this program running.
pub struct Supervisor {
    program: PathBuf,
    /// Where each process's number and output are kept, by name.
    dir: PathBuf,
    /// Where processes run; here if none.
    home: Option<PathBuf>,
    ending: Arc<AtomicBool>,
    kept: Vec<Supervised>,
}

/// One process that is kept running.
pub struct Supervised {
    name: String,
    child: Arc<Mutex<Child>>,
    thread: JoinHandle<()>,
}

impl Supervisor {
    /// A supervisor for processes of `program`.
    pub fn new(program: PathBuf, dir: PathBuf, home: Option<PathBuf>) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            program,
            dir,
            home,
            ending: Arc::default(),
            kept: Vec::new(),
        })
    }

    /// Starts a process and keeps it running.
    pub fn keep(&mut self, name: &str, arguments: Vec<String>) -> io::Result<()> {
        let (program, dir) = (self.program.clone(), self.dir.clone());
        let home = self.home.clone();
        let own_name = name.to_owned();
        let log_file = LogFile::new(dir.join(format!("{name}.log")));
        let log = log_file.clone();
        let start = move || -> io::Result<Child> {
            let log = log.open()?;
            let mut command = Command::new(&program);
            if let Some(home) = &home {
                command.current_dir(home);
            }
            let child = command
                .args(&arguments)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                // An interrupt at the terminal must reach only their keeper, which ends them in
                // order.
                .process_group(0)
                .spawn()?;
            // A reader finds the old number or the new one, never half of it.
            let next = dir.join(format!("{own_name}.pid.next"));
            let noted = std::fs::write(&next, child.id().to_string())
                .and_then(|()| std::fs::rename(next, dir.join(format!("{own_name}.pid"))));
            if let Err(error) = noted {
                // It runs, so it must be kept; its number is for people.
                tracing::warn!(%error, name = own_name, "a process number could not be written");
            }
            Ok(child)
        };
        let child = Arc::new(Mutex::new(start()?));
        let (watched, ending) = (child.clone(), self.ending.clone());
        let kept = name.to_owned();
        let thread = std::thread::Builder::new()
            .name(format!("keep-{name}"))
            .spawn(move || keep_running(&kept, &watched, &log_file, &ending, &start))?;
        self.kept.push(Supervised {
            name: name.to_owned(),
            child,
            thread,
        });
        Ok(())
    }

    /// Ends every process, the last started first.
    pub fn stop(&mut self) {
        self.ending.store(true, SeqCst);
        for kept in self.kept.drain(..).rev() {
            // The thread sees that the end is meant; only then is the process told.
            let _ = kept.thread.join();
            let mut child = kept.child.lock();
            end(&mut child, &kept.name);
        }
    }
}

impl Drop for Supervisor {
    /// A fleet that could not be started whole leaves nothing behind.
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the process again whenever it has ended, until the end is meant.
fn keep_running(
    name: &str,
    child: &Mutex<Child>,
    log: &LogFile,
    ending: &AtomicBool,
    start: &impl Fn() -> io::Result<Child>,
) {
    let mut backoff = Backoff::new();
    let mut started = Instant::now();
    // When to start it again, once it has ended.
    let mut due = None;
    let mut looked_at_log = Instant::now();
    while !ending.load(SeqCst) {
        std::thread::sleep(LOOK_EVERY);
        if looked_at_log.elapsed() > LOOK_AT_LOG {
            looked_at_log = Instant::now();
            if let Err(error) = log.bound(log_file::MOST) {
                tracing::warn!(name, %error, "a log cannot be bounded");
            }
        }
        let mut child = child.lock();
        match due {
            None => {
                if let Ok(Some(status)) = child.try_wait() {
                    let killed = status.signal().is_some();
                    let pause = backoff.pause_after(started.elapsed(), killed);
                    tracing::warn!(name, %status, ?pause, "a process has ended; starting it again");
                    due = Some(Instant::now() + pause);
                }
            }
            Some(due_at) if Instant::now() < due_at => {}
            Some(_) => {
                started = Instant::now();
                match start() {
                    Ok(new) => {
                        *child = new;
                        due = None;
                    }
                    Err(error) => {
                        let pause = backoff.pause_after(Duration::ZERO, false);
                        tracing::error!(name, %error, ?pause, "a process cannot be started");
                        due = Some(Instant::now() + pause);
                    }
                }
            }
        }
    }
}

fn end(child: &mut Child, name: &str) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended already.
        let _ = kill_process(pid, Signal::TERM);
    }
    let deadline = Instant::now() + END_TIMEOUT;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    tracing::warn!(name, "a process did not end and is killed");
    let _ = child.kill();
    let _ = child.wait();
}
