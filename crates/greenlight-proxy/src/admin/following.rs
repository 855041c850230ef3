//! The words between a proxy and the predecessors that still have connections.
//!
//! They are spoken on the predecessor's own socket, beside the admin socket that it has passed
//! on. A predecessor obeys nothing else any more.

use crate::counts::CountsByService;
use crate::state_file::State;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `POST /v1/follow`: route like this from now on. Answered when nothing more reaches a color
/// that is not open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FollowRequest {
    /// Which proxy leads, and its how many-eth word this is; an older one changes nothing.
    pub(crate) turn: (u64, u64),
    /// The routing.
    pub(crate) state: State,
    /// The services whose totals begin anew.
    pub(crate) reset: Vec<String>,
}

/// `GET /v1/counts`, and the answer to following.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CountsAnswer {
    pub(crate) services: CountsByService,
}

/// `POST /v1/left`: a predecessor has nothing left and ends; these are its last counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LeftRequest {
    pub(crate) socket: PathBuf,
    pub(crate) services: CountsByService,
}

/// The socket of this process once it is a predecessor.
pub(crate) fn socket_beside(admin: &Path) -> PathBuf {
    let mut name = admin.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}

/// The sockets of all predecessors there may be; some may be left over from dead ones. That they
/// are found by name also finds them after this proxy, too, was killed.
pub(crate) fn sockets_beside(admin: &Path) -> Vec<PathBuf> {
    let folder = admin.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let Some(stem) = admin.file_name().and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    let is_predecessor = |name: &str| {
        let number = name
            .strip_prefix(stem)
            .and_then(|rest| rest.strip_prefix('.'));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_predecessor))
        .map(|entry| folder.join(entry.file_name()))
        .collect()
}
