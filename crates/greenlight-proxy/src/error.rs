//! Why a proxy cannot start or continue.

use crate::routing::SettingsError;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a proxy cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A listening address is not to be had.
    #[error("cannot listen on `{address}`: {source}")]
    Listen {
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// Another process listens where this one should, and would be left half of the users.
    #[error(
        "`{address}` is taken by another process; stop it, or name its `--admin` and `--take-over`"
    )]
    AddressInUse { address: SocketAddr },
    /// A file is to be in a folder that is not there.
    #[error("there is no folder `{folder}` for `{path}`; make it, or name another with `{option}`")]
    NoFolder {
        folder: PathBuf,
        path: PathBuf,
        /// What names the file.
        option: &'static str,
    },
    /// The service manager passed something else than a listening socket.
    #[error("the socket `{name}` that the service manager passed cannot be used: {source}")]
    Passed {
        /// What it calls the socket.
        name: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The admin socket belongs to a running proxy.
    #[error(
        "`{path}` belongs to a running proxy; stop that one first, or start with `--take-over`"
    )]
    AdminInUse { path: PathBuf },
    /// The proxy that runs did not hand over.
    #[error(
        "the proxy on `{path}` did not hand over ({reason}); it goes on serving, \
         so try again, or stop it and start without `--take-over`"
    )]
    Handover {
        /// Its admin socket.
        path: PathBuf,
        reason: String,
    },
    /// The routing state exists and cannot be used. It is never silently replaced.
    #[error(
        "the routing state `{path}` cannot be used ({source}); \
         restore it, or move it away to start with no routes"
    )]
    State {
        path: PathBuf,
        /// What is wrong with it.
        source: StateError,
    },
    /// The routing state cannot be read or written.
    #[error("cannot keep the routing state in `{path}`: {source}")]
    Keep {
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A thread or its runtime could not be started.
    #[error("cannot start the proxy's threads: {0}")]
    Threads(#[source] io::Error),
}

/// What is wrong with a routing state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is not even text.
    #[error("it is not text")]
    NotText,
    /// It does not begin as this version's files do.
    #[error("it was not written by this version of greenlight")]
    OtherVersion,
    /// It has no contents.
    #[error("it is cut off")]
    CutOff,
    /// It was changed, or written in part.
    #[error("its checksum does not match")]
    Checksum,
    /// Its contents are not a routing.
    #[error(transparent)]
    Contents(#[from] serde_json::Error),
    /// A service in it cannot be routed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl ProxyError {
    /// An error if a file's folder is not there.
    pub(crate) fn need_folder(path: &Path, option: &'static str) -> Result<(), Self> {
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                let (folder, path) = (folder.to_owned(), path.to_owned());
                Err(Self::NoFolder {
                    folder,
                    path,
                    option,
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}
