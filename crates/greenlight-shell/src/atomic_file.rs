//! Files that are replaced whole: a reader finds the old content or the new content, and a power
//! failure leaves one of the two.
//!
//! The proxy's `state_file.rs` has its own: it replaces through a disk that tests can break.

use parking_lot::Mutex;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Replaces a file, which then has these permissions. When this returns, the file is on disk under
/// its name. One process writes a file: the new content is first written beside it, always under
/// the same name, so that what a killed process left there is replaced by the next write.
pub fn write_atomically(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    // Two threads must not share the file beside it.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock();
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut next = OsString::from(".");
    next.push(name);
    next.push(".next");
    let next = folder.join(next);
    let replaced = write_synced(&next, mode, bytes).and_then(|()| fs::rename(&next, path));
    if replaced.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&next);
    }
    replaced?;
    File::open(folder)?.sync_all()
}

/// Writes a new file, readable by its user alone until it has its permissions.
fn write_synced(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_permissions_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("kept");
        for (mode, text) in [(0o600, "one"), (0o644, "another")] {
            write_atomically(&path, mode, text.as_bytes()).expect("a good disk");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
            let about = fs::metadata(&path).expect("it is there");
            assert_eq!(about.permissions().mode() & 0o777, mode);
        }
        let beside = fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(beside, 1);
    }

    #[test]
    fn what_a_killed_process_left_beside_it_is_replaced_and_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("kept");
        fs::write(dir.path().join(".kept.next"), "half").expect("a folder");
        write_atomically(&path, 0o600, b"whole").expect("a good disk");
        assert_eq!(fs::read(&path).expect("it is there"), b"whole");
        let beside = fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(beside, 1);
    }

    #[test]
    fn what_cannot_be_replaced_stays_as_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a folder");
        fs::create_dir(&path).expect("it is ours");
        write_atomically(&path, 0o600, b"text").expect_err("a folder is there");
        assert!(path.is_dir());
        let beside = fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(beside, 1);
    }
}
