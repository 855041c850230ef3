//! The sockets of followers: predecessors that still have connections.
//!
//! A follower takes its leader's messages on a socket of its own, beside the admin socket that it
//! has handed over. It obeys nothing else any more.

use std::path::{Path, PathBuf};

/// The socket of this process once it is a follower.
pub(crate) fn follower_socket(admin: &Path) -> PathBuf {
    let mut name = admin.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}

/// The name of the follower with this socket. Each process may spell the folder in its own way.
pub(crate) fn follower_name(socket: &Path) -> String {
    let name = socket.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The sockets of all followers there may be; some may be left over from dead ones. That they
/// are found by name also finds them after this proxy, too, was killed.
pub(crate) fn follower_sockets(admin: &Path) -> Vec<PathBuf> {
    let folder = admin.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let Some(stem) = admin.file_name().and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    let is_follower = |name: &str| {
        let number = name
            .strip_prefix(stem)
            .and_then(|rest| rest.strip_prefix('.'));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_follower))
        .map(|entry| folder.join(entry.file_name()))
        .collect()
}
