//! The last lines that a container wrote.

use super::daemon::Daemon;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt as _;
use std::pin::pin;

/// The last `lines` lines of a container; or one line that says why they are not available.
pub(super) async fn lines(daemon: &Daemon, id: &str, lines: usize) -> Vec<String> {
    let Ok(docker) = daemon.connect().await else {
        return Vec::new();
    };
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .tail(&lines.to_string())
        .build();
    let mut output = pin!(docker.logs(id, Some(options)));
    let mut bytes = Vec::new();
    while let Some(part) = output.next().await {
        match part {
            Ok(part) => bytes.extend_from_slice(&part.into_bytes()),
            Err(error) => {
                // With some log drivers Docker cannot read what it has written.
                return vec![format!("(its output cannot be read: {error})")];
            }
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
    all[all.len().saturating_sub(lines)..].to_vec()
}
