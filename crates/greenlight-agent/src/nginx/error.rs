//! Why Nginx did not do as it was told.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long a test of a configuration may take; names may have to be resolved for it.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Why Nginx did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum NginxError {
    /// The program cannot be run.
    #[error("`{program}` cannot be run: {source}; name it in `proxy.nginx.binary`")]
    NotRun {
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It does not end in time.
    #[error("`nginx -t` did not end within {} s", TEST_TIMEOUT.as_secs())]
    TestTooLong,
    /// The configuration is not good.
    #[error("nginx refuses the configuration: {0}")]
    Refused(String),
    /// There is no master.
    #[error("nginx does not run: `{pid}` {what}; start it, or correct `proxy.nginx.pid`", pid = .pid.display())]
    NotRunning {
        /// Its file.
        pid: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The master cannot be signalled.
    #[error("nginx (process {pid}) cannot be signalled to reload: {source}")]
    NotTold {
        /// The master.
        pid: i32,
        /// The system's error.
        source: io::Error,
    },
    /// Its files cannot be used.
    #[error("`{path}` cannot be used: {source}", path = .path.display())]
    Files {
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
