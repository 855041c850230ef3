//! The messages between a leader and its followers: predecessors that still have connections.
//!
//! A follower takes them on a socket of its own, beside the admin socket that it has handed over.
//! It obeys nothing else any more.

use crate::counts::CountsByService;
use crate::state_file::State;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `POST /v1/replicate`: route like this from now on. Answered when nothing more reaches a color
/// that is not open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReplicateRequest {
    /// The leader's id and its sequence number; an older request changes nothing.
    pub(crate) sequence: (u64, u64),
    /// The routing.
    pub(crate) state: State,
    /// The services whose totals begin anew.
    pub(crate) reset: Vec<String>,
}

/// `GET /v1/counts`, and the answer to a replication.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CountsAnswer {
    pub(crate) services: CountsByService,
}

/// `POST /v1/final-counts`: a follower has nothing left and ends; these are its final counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FinalCountsRequest {
    pub(crate) socket: PathBuf,
    pub(crate) services: CountsByService,
}

/// The socket of this process once it is a follower.
pub(crate) fn follower_socket(admin: &Path) -> PathBuf {
    let mut name = admin.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
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
