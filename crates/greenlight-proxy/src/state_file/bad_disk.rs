//! A disk for the tests: it notes each step, can fail at one, and can be slow.

use super::disk::{Disk, Real};
use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Far longer than anything takes; only so that a failing test ends.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// What the disk was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Write(PathBuf),
    Sync(PathBuf),
    Rename(PathBuf),
}

#[derive(Debug, Default)]
pub(crate) struct BadDisk(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    steps: Vec<Step>,
    failing: Option<usize>,
    busy_until: Option<Receiver<()>>,
}

impl BadDisk {
    /// The steps since this was asked last; what fails is the last of them. The disk is good
    /// again afterwards.
    pub(crate) fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut *self.state()).steps
    }

    /// The step of this number, counted from 0, is to fail.
    pub(crate) fn fail_at(&self, number: usize) {
        self.state().failing = Some(number);
    }

    /// The next sync takes until something is received, and fails if that never comes.
    pub(crate) fn is_busy_until(&self, event: Receiver<()>) {
        self.state().busy_until = Some(event);
    }

    fn take(&self, step: Step) -> io::Result<()> {
        let mut state = self.state();
        state.steps.push(step);
        if state.failing == Some(state.steps.len() - 1) {
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Disk for BadDisk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        self.take(Step::Write(path.to_owned()))?;
        Real.write(path, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        self.take(Step::Sync(std::fs::read_link(descriptor)?))?;
        let busy_until = self.state().busy_until.take();
        if let Some(event) = busy_until {
            event
                .recv_timeout(EVENT_TIMEOUT)
                .map_err(io::Error::other)?;
        }
        Real.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.take(Step::Rename(to.to_owned()))?;
        Real.rename(from, to)
    }
}
