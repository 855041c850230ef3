//! The steps of replacing a file, separately, so that tests can record them and make them fail.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

/// A disk.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Writes a whole file.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<File>;
    /// Returns when a file's contents, or a folder's names, survive the machine. Of a file that
    /// was opened anew it might not learn what went wrong with the earlier writing.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Puts a file in the place of another one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The machine's own.
#[derive(Debug)]
pub(crate) struct Real;

impl Disk for Real {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        Ok(file)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
}
