//! Room for two copies: disk where images and state lie, memory while both releases run.

use super::procfs;
use greenlight_link::doctor::Finding;
use std::path::Path;

/// State grows by records of a few kilobytes; below this something else fills the disk.
const STATE_NEEDS: u64 = 100 * MIB;
/// What an image whose size is not known yet may need.
const UNKNOWN_IMAGE: u64 = 1024 * MIB;
/// Deployments add a few kilobytes each: a journal larger than this had an uncommon cause.
const LARGE_JOURNAL: u64 = 1024 * MIB;
const MIB: u64 = 1024 * 1024;

/// What a folder has left, in bytes.
pub(super) fn free(path: &Path) -> Option<u64> {
    // What is not there yet will be in the nearest folder that is.
    let there = path.ancestors().find(|path| path.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(found.f_bavail * found.f_frsize)
}

/// The disk of Greenlight's own files.
pub(super) fn state(path: &Path, free: Option<u64>) -> Finding {
    let shown = path.display();
    match free {
        None => Finding::note(
            "disk of the state",
            format!("`{shown}` cannot be read"),
            "run the agent as a user who may",
        ),
        Some(free) if free < STATE_NEEDS => Finding::problem(
            "disk of the state",
            format!("`{shown}` has {} left", mib(free)),
            "free some space: without a durable record no instance may switch",
        ),
        Some(free) => Finding::ok(
            "disk of the state",
            format!("`{shown}` has {} left", mib(free)),
        ),
    }
}

/// The disk of images: the present one stays while the next is pulled.
pub(super) fn images(root: &Path, free: Option<u64>, present: Option<u64>) -> Finding {
    const CHECK: &str = "disk of images";
    let shown = root.display();
    let Some(free) = free else {
        return Finding::note(
            CHECK,
            format!("`{shown}` cannot be read"),
            "check with `docker system df` that there is room for one more image",
        );
    };
    let what = match present {
        Some(size) => format!("the present image takes {}", mib(size)),
        None => "the image's size is not known yet".to_owned(),
    };
    let found = format!("`{shown}` has {} left; {what}", mib(free));
    match free < present.unwrap_or(UNKNOWN_IMAGE) {
        false => Finding::ok(CHECK, found),
        true => Finding::problem(
            CHECK,
            found,
            "free space for one more image, for example with `docker system prune`",
        ),
    }
}

/// The available memory, from `/proc/meminfo`, in bytes.
pub(super) fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    procfs::kilobytes(&text, "MemAvailable:")
}

/// Memory for a second copy of everything. `needs` is its size, unless nothing is known.
pub(super) fn memory(available: Option<u64>, needs: Option<u64>) -> Finding {
    const CHECK: &str = "memory";
    let (Some(available), Some(needs)) = (available, needs) else {
        let found = match available {
            Some(available) => format!("{} available", mib(available)),
            None => "how much is available is not known".to_owned(),
        };
        let todo = "set `memory`, or ask again when a release runs: two copies run side by side";
        return Finding::note(
            CHECK,
            format!("{found}; what a release uses is not known"),
            todo,
        );
    };
    let found = format!(
        "{} available; a second copy takes {}",
        mib(available),
        mib(needs)
    );
    match available < needs {
        false => Finding::ok(CHECK, found),
        true => Finding::problem(
            CHECK,
            found,
            "give the machine more memory or the release less: two copies run side by side",
        ),
    }
}

/// The journal's size, if it exists.
pub(super) fn journal(path: &Path) -> Option<Finding> {
    let size = std::fs::metadata(path).ok()?.len();
    let found = format!("`{}` takes {}", path.display(), mib(size));
    Some(match size > LARGE_JOURNAL {
        false => Finding::ok("journal", found),
        true => Finding::note(
            "journal",
            found,
            "find out what is so large: the journal keeps the last hundred deployments or so",
        ),
    })
}

fn mib(bytes: u64) -> String {
    match bytes / MIB {
        0..10_240 => format!("{} MiB", bytes / MIB),
        _ => format!("{} GiB", bytes / MIB / 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::doctor::Level;

    #[test]
    fn a_second_copy_must_fit_beside_the_first() {
        let small = Some(100 * MIB);
        let large = Some(200 * MIB);
        assert_eq!(memory(small, large).level, Level::Problem);
        assert_eq!(memory(large, small).level, Level::Ok);
        assert_eq!(memory(large, None).level, Level::Note);
        let root = Path::new("/var/lib/docker");
        assert_eq!(images(root, small, large).level, Level::Problem);
        assert_eq!(images(root, large, small).level, Level::Ok);
        assert_eq!(images(root, small, None).level, Level::Problem);
        assert_eq!(state(root, Some(MIB)).level, Level::Problem);
    }
}
