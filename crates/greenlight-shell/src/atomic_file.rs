//! Files that are replaced whole: a reader finds the old content or the new content, and a power
//! failure leaves one of the two.
//!
//! The proxy's `state_file.rs` has its own: it replaces through a disk that tests can break.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Replaces a file, which then has these permissions. When this returns, the file is on disk under
/// its name.
pub fn write_atomically(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // Readable by its user alone until it has its permissions.
    let mut next = tempfile::Builder::new()
        .prefix(".greenlight-")
        .tempfile_in(folder)?;
    next.write_all(bytes)?;
    next.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    next.as_file().sync_all()?;
    next.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
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
            assert_eq!(std::fs::read_to_string(&path).expect("it is there"), text);
            let about = std::fs::metadata(&path).expect("it is there");
            assert_eq!(about.permissions().mode() & 0o777, mode);
        }
        let beside = std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(beside, 1);
    }

    #[test]
    fn what_cannot_be_replaced_stays_as_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a folder");
        std::fs::create_dir(&path).expect("it is ours");
        write_atomically(&path, 0o600, b"text").expect_err("a folder is there");
        assert!(path.is_dir());
        let beside = std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(beside, 1);
    }
}
