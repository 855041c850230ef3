//! A log that another process appends to, and that must not grow without bound.
//!
//! The writer keeps it open and does not know us, so it cannot be replaced while it is open:
//! past the bound it is copied aside and emptied, as logrotate's `copytruncate` does. What is
//! written between the two is lost; a pipe would lose nothing, but dies with who reads it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// How large one file may become, in bytes.
pub const MOST: u64 = 10 * 1024 * 1024;
/// How many full ones are kept beside it.
pub const KEPT: u32 = 3;

/// A log and the full ones beside it: `x.log`, then `x.log.1` and so on, ever older.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: PathBuf,
}

impl LogFile {
    /// The log at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for a process that is to write it.
    pub fn open(&self) -> io::Result<File> {
        File::options().create(true).append(true).open(&self.path)
    }

    /// Puts what was written aside if it is more than `most` bytes; of what has grown far beyond
    /// that between two checks, twice as many. An interruption leaves the log as it was, and
    /// perhaps a part of it twice.
    pub fn bound(&self, most: u64) -> io::Result<()> {
        let length = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if length <= most {
            return Ok(());
        }
        for number in (1..KEPT).rev() {
            rename(&self.part(number), &self.part(number + 1))?;
        }
        let mut log = File::options().read(true).write(true).open(&self.path)?;
        log.seek(SeekFrom::Start(length.saturating_sub(2 * most)))?;
        io::copy(&mut log, &mut File::create(self.part(1))?)?;
        log.set_len(0)
    }

    /// The last `most` bytes, from the beginning of a line, also of what was put aside.
    pub fn tail(&self, most: u64) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut left = most;
        let mut is_cut = false;
        for number in 0..=KEPT {
            let mut file = match File::open(self.part(number)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let length = file.metadata()?.len();
            let skipped = length.saturating_sub(left);
            file.seek(SeekFrom::Start(skipped))?;
            let mut part = Vec::new();
            file.take(left).read_to_end(&mut part)?;
            left = left.saturating_sub(length);
            part.append(&mut text);
            text = part;
            if left == 0 {
                is_cut = skipped > 0 || self.part(number + 1).exists();
                break;
            }
        }
        if is_cut {
            let line = text.iter().position(|byte| *byte == b'\n');
            text.drain(..line.map_or(0, |end| end + 1));
        }
        Ok(text)
    }

    /// Makes it, with what was put aside, the log at another place; what was there is gone.
    pub fn become_the(&self, other: &Self) -> io::Result<()> {
        for number in 0..=KEPT {
            let (from, to) = (self.part(number), other.part(number));
            if !rename(&from, &to)? {
                remove(&to)?;
            }
        }
        Ok(())
    }

    /// The log itself, or what was put aside, the latest first.
    fn part(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        if number > 0 {
            path.push(format!(".{number}"));
        }
        path.into()
    }
}

/// Whether there was anything to rename.
fn rename(from: &Path, to: &Path) -> io::Result<bool> {
    match std::fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_log_is_read_across_what_was_put_aside_and_the_oldest_is_let_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(dir.path().join("shop.log"));
        let mut writer = log.open().expect("a folder");
        for line in 0..100 {
            writeln!(writer, "line {line:02}").expect("a disk");
            log.bound(64).expect("a disk");
        }

        assert_eq!(text(&log, 30), "line 97\nline 98\nline 99\n");
        let all = text(&log, u64::MAX);
        let lines: Vec<_> = all.lines().collect();
        assert_eq!(lines.last(), Some(&"line 99"));
        // Nothing is missing in between, and what is kept has a bound.
        let first = 100 - lines.len();
        assert_eq!(lines[0], format!("line {first:02}"));
        assert!((24..36).contains(&lines.len()), "{all}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 4);
    }

    #[test]
    fn of_a_log_that_has_grown_unwatched_the_end_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(dir.path().join("shop.log"));
        let mut writer = log.open().expect("a folder");
        writer.write_all(&[b'x'; 1000]).expect("a disk");
        writer.write_all(b"\nlast\n").expect("a disk");

        log.bound(100).expect("a disk");
        writer.write_all(b"later\n").expect("a disk");

        assert_eq!(std::fs::read(log.part(1)).expect("it was kept").len(), 200);
        assert_eq!(std::fs::read(log.path()).expect("it goes on"), b"later\n");
        assert_eq!(text(&log, 20), "last\nlater\n");
    }

    #[test]
    fn the_log_of_another_takes_the_place_of_an_earlier_one_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(dir.path().join("shop.log"));
        let previous = LogFile::new(dir.path().join("shop.previous.log"));
        std::fs::write(previous.part(2), "old").expect("a folder");
        std::fs::write(log.part(1), "one\n").expect("a folder");
        std::fs::write(log.path(), "two\n").expect("a folder");

        log.become_the(&previous).expect("a folder");

        assert_eq!(text(&previous, 100), "one\ntwo\n");
        assert_eq!(text(&log, 100), "");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 2);
    }

    fn text(log: &LogFile, most: u64) -> String {
        String::from_utf8(log.tail(most).expect("a folder")).expect("text")
    }
}
