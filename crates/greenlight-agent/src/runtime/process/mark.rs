//! The mark that everything of a slot carries in its environment, and finding it again.
//!
//! A process that died may have left children, and an agent may die between starting a process
//! and writing that down. Neither may keep a port. Children inherit the environment, so
//! the mark finds them whatever their parent is, and never finds an unrelated process.

use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;

/// The variable that carries the mark.
pub(super) const VARIABLE: &str = "GREENLIGHT_SLOT";

/// Processes that carry `mark`, or with a `mark` that ends in `/` one of those below it. Each
/// with its whole mark.
pub(super) fn find(mark: &Path) -> Vec<(i32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let wanted = format!("{VARIABLE}={}", mark.display());
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = pids.filter_map(|pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        let its = variables.find(|variable| {
            if wanted.ends_with('/') {
                variable.starts_with(wanted.as_bytes())
            } else {
                *variable == wanted.as_bytes()
            }
        })?;
        let its = String::from_utf8_lossy(its);
        let (_, its) = its.split_once('=')?;
        super::start_ticks(pid)?;
        Some((pid, its.to_owned()))
    });
    found.collect()
}

/// Ends a process that carries a mark.
pub(super) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended already.
        let _ = kill_process(pid, Signal::KILL);
    }
}
