//! A program that a benchmark started: it ends with the benchmark, however that ends.

use crate::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program gets to end after SIGTERM.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// A running program.
pub(crate) struct Child {
    process: std::process::Child,
}

impl Child {
    /// Starts a program, on one core only if `core` says so, with its output in `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        env: &[(&str, String)],
        core: Option<usize>,
        log: &Path,
    ) -> Outcome<Self> {
        let mut command = match core {
            Some(core) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &core.to_string()]).arg(program);
                pinned
            }
            None => Command::new(program),
        };
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)?;
        let process = command
            .args(arguments)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("`{}` cannot be started: {error}", program.display()))?;
        Ok(Self { process })
    }

    /// The program's process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + EXIT_TIMEOUT;
        while Instant::now() < deadline {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where a program is; Debian keeps servers in `/usr/sbin`, which is not on everyone's path.
pub(crate) fn find(program: &str) -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    let found = folders.into_iter().map(|folder| folder.join(program));
    found
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            format!(
                "`{program}` is not installed; run `scripts/install-test-tools {program}={program}`"
            )
            .into()
        })
}
