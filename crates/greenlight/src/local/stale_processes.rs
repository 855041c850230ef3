//! Ends the processes that a fleet keeps running after its keeper was killed.
//!
//! Server, agents and proxies are ended, so that new ones can replace them.
//! Applications are left alone: the next agents adopt them.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::path::Path;

/// How long each of them gets to end after SIGTERM.
const TERMINATION_TIMEOUT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Ends the roles that a killed keeper of the fleet in `dir` left behind; returns how many.
///
/// The caller holds the fleet's lock, so no other process keeps them.
pub fn end_stale_processes(dir: &Path) -> usize {
    let (Ok(dir), Ok(entries)) = (dir.canonicalize(), std::fs::read_dir(dir.join("run"))) else {
        return 0;
    };
    let noted = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pid"));
    let running: Vec<_> = noted.filter_map(|note| open(&note, &dir)).collect();
    for process in &running {
        // It may have ended already.
        let _ = pidfd_send_signal(process, Signal::TERM);
    }
    for process in &running {
        if !has_ended(process) {
            let _ = pidfd_send_signal(process, Signal::KILL);
            // Its ports and its journal are free only now.
            has_ended(process);
        }
    }
    running.len()
}

/// Waits for the end of a process, for a limited time.
fn has_ended(process: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut ended, Some(&TERMINATION_TIMEOUT)), Ok(1))
}

/// The process whose number was noted, if it still is one of the fleet in `dir`: numbers are
/// given out again, but not to a process that was started with a path in that folder.
fn open(note: &Path, dir: &Path) -> Option<OwnedFd> {
    let pid: i32 = std::fs::read_to_string(note).ok()?.trim().parse().ok()?;
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Read after the descriptor is open, so that it is about the process that gets the signal.
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = arguments.split(|byte| *byte == 0);
    let ours = arguments.any(|argument| {
        let argument = std::str::from_utf8(argument).unwrap_or_default();
        Path::new(argument).starts_with(dir)
    });
    ours.then_some(process)
}
