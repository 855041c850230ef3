//! A program and the libraries that it runs with, as the files of an image.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Makes the dynamic loader say what it would load, and run nothing. That is all that `ldd` does.
const LIST_LIBRARIES: &str = "LD_TRACE_LOADED_OBJECTS";

/// A tar of the program as `place`, and each of its libraries, the loader too, where it is here.
pub(super) fn pack(program: &Path, place: &str) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    // Linkers leave holes in programs, and Docker does not know the header of a file with holes.
    tar.sparse(false);
    let mut folders = BTreeSet::new();
    tar.append_path_with_name(program, inside(Path::new(place)))?;
    for library in libraries(program)? {
        for folder in library.ancestors().skip(1) {
            if folder.parent().is_some() {
                folders.insert(inside(folder));
            }
        }
        // Links are followed: what a link led to here may be elsewhere there.
        tar.append_path_with_name(&library, inside(&library))?;
    }
    for folder in folders {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, folder, io::empty())?;
    }
    tar.into_inner()
}

/// The files that the loader loads for a program. A static program has no loader: it runs, says
/// its version, and has no libraries.
fn libraries(program: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let listed = Command::new(program)
        .arg("--version")
        .env(LIST_LIBRARIES, "1")
        .stdin(Stdio::null())
        .output()?;
    if !listed.status.success() {
        let said = String::from_utf8_lossy(&listed.stderr).into_owned();
        return Err(io::Error::other(format!(
            "its libraries cannot be listed: {said}"
        )));
    }
    Ok(paths(&String::from_utf8_lossy(&listed.stdout)))
}

/// Lines are `libc.so.6 => /lib/…/libc.so.6 (0x…)`, or `/lib64/ld-linux-….so.2 (0x…)`.
fn paths(listed: &str) -> BTreeSet<PathBuf> {
    let words = listed.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn inside(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_the_loader_says_the_files_are_taken() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => \
                      /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 \
                      (0x00007f)\n";
        let found: Vec<_> = paths(listed).into_iter().collect();
        assert_eq!(
            found,
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(paths("greenlight 0.1.0\n").is_empty());
    }

    #[test]
    fn a_program_with_holes_is_packed_as_a_plain_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("program");
        std::fs::write(&path, "#!/bin/true\n").expect("it is ours");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, executable).expect("it is ours");
        let file = std::fs::File::options().write(true).open(&path);
        file.and_then(|file| file.set_len(8 << 20))
            .expect("it is ours");

        let packed = pack(&path, "/program").expect("it can be read");

        let mut tar = tar::Archive::new(packed.as_slice());
        for entry in tar.entries().expect("a tar") {
            let kind = entry.expect("a tar").header().entry_type();
            assert!(kind.is_file() || kind.is_dir(), "{kind:?}");
        }
    }

    #[test]
    fn a_program_is_packed_with_every_library_and_its_folders() {
        let program = std::env::current_exe().expect("a test is a program");
        let packed = pack(&program, "/program").expect("it can be read");
        let mut tar = tar::Archive::new(packed.as_slice());
        let names: Vec<_> = tar
            .entries()
            .expect("a tar")
            .map(|entry| entry.and_then(|e| Ok(e.path()?.into_owned())))
            .collect::<Result<_, _>>()
            .expect("a tar");
        let libraries = libraries(&program).expect("it can be asked");
        assert!(names.contains(&PathBuf::from("program")), "{names:?}");
        for library in libraries {
            assert!(names.contains(&inside(&library)), "{names:?}");
        }
    }
}
