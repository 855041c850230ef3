//! The status that a proxy reports, for callers that only read it.

use greenlight_admin::{AdminClient, AdminError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A proxy answers in microseconds, or not at all.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// A proxy's status, as it reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyStatus {
    /// Its process.
    pub(crate) pid: i32,
    /// Its version; empty if it does not say.
    pub(crate) version: String,
    /// Where users come in.
    pub(crate) listening: Vec<String>,
}

/// Why a proxy did not report its status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyStatusError {
    /// It takes too long.
    #[error("no process answers on `{}`", .0.display())]
    Timeout(PathBuf),
    /// It cannot be asked.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// Asks the proxy on this admin socket.
pub(crate) async fn ask_proxy_status(admin: &Path) -> Result<ProxyStatus, ProxyStatusError> {
    let client = AdminClient::new(admin);
    let asked = tokio::time::timeout(STATUS_TIMEOUT, client.status()).await;
    let status = asked.map_err(|_| ProxyStatusError::Timeout(admin.to_owned()))??;
    Ok(ProxyStatus {
        pid: i32::try_from(status.pid).unwrap_or_default(),
        version: status.version,
        listening: status.listening,
    })
}
