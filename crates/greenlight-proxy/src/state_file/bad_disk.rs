//! A disk for the tests: it notes each step, and can fail at one.

use super::disk::{Disk, Real};
use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

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
        Real.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.take(Step::Rename(to.to_owned()))?;
        Real.rename(from, to)
    }
}
