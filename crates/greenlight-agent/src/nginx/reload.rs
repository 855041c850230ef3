//! From one configuration to the next: written, reloaded, and verified through Nginx itself.
//!
//! ```text
//!   HUP ──▶ master reads ──▶ new workers accept ── ~100 ms ──▶ old workers shut down
//!             │                    └───── both accept ─────┘
//!             └─ refuses it: writes that to its log, and everything stays as it was
//! ```
//!
//! It is verified when the marker has only new answers and no old worker accepts connections
//! any more. Nginx reports a refusal only in its log, so we see it only as answers that stay old.

use super::control::Nginx;
use super::error::NginxError;
use super::marker::{Marker, MarkerError};
use greenlight_shell::atomic_file::write_atomically;
use greenlight_shell::clock::monotonic_ns;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long Nginx gets to bring a configuration into effect.
const WITHIN: Duration = Duration::from_secs(5);
/// The pause between two questions.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How many new answers in a row count as proof.
const IN_A_ROW: u32 = 3;

/// What the marker answered while the configuration changed, on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadEvidence {
    /// The first answer of the new configuration.
    pub first_new_ns: u64,
    /// The last answer of the one before, if it gave any.
    pub last_old_ns: Option<u64>,
}

/// Nginx was signalled to reload, and its answers stayed old.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nginx kept its configuration when it was told to reload: after {} s its workers still say \
     {last}; its error log says why",
    WITHIN.as_secs()
)]
pub struct NotReloaded {
    /// The last answer.
    pub last: String,
    /// Whether any worker gave the new one.
    pub mixed: bool,
}

/// Tells Nginx to reload, and watches until only `wanted` is answered.
pub(crate) async fn reload(
    nginx: &Nginx,
    marker: Marker,
    wanted: &str,
) -> Result<Result<ReloadEvidence, NotReloaded>, NginxError> {
    let before = nginx.accepting()?;
    nginx.reload()?;
    let deadline = Instant::now() + WITHIN;
    let mut seen = Watch::default();
    while Instant::now() < deadline {
        let answer = marker.ask().await;
        seen.take(answer, wanted);
        if seen.in_a_row >= IN_A_ROW
            && before.iter().all(|worker| !worker.accepts())
            && let Some(first_new_ns) = seen.first_new_ns
        {
            return Ok(Ok(ReloadEvidence {
                first_new_ns,
                last_old_ns: seen.last_old_ns,
            }));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(Err(NotReloaded {
        mixed: seen.first_new_ns.is_some(),
        last: seen.last,
    }))
}

#[derive(Default)]
struct Watch {
    first_new_ns: Option<u64>,
    last_old_ns: Option<u64>,
    in_a_row: u32,
    last: String,
}

impl Watch {
    fn take(&mut self, answer: Result<String, MarkerError>, wanted: &str) {
        let now = monotonic_ns();
        match answer {
            Ok(answer) if answer == wanted => {
                self.first_new_ns.get_or_insert(now);
                self.in_a_row += 1;
                self.last = format!("`{answer}`, and old workers still accept connections");
            }
            Ok(answer) => {
                self.last_old_ns = Some(now);
                self.in_a_row = 0;
                self.last = format!("`{answer}`");
            }
            Err(error) => {
                self.in_a_row = 0;
                self.last = format!("nothing ({error})");
            }
        }
    }
}

/// Replaces a file in one step; a crash leaves the old one or the new one.
pub fn put(path: &Path, text: &str) -> Result<(), NginxError> {
    write_atomically(path, 0o644, text.as_bytes()).map_err(|source| NginxError::Files {
        path: path.to_owned(),
        source,
    })
}

/// The text of a file, if there is one.
pub(crate) fn get(path: &Path) -> Result<Option<String>, NginxError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NginxError::Files {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Brings back what a file was.
pub(crate) fn restore(path: &Path, before: Option<&str>) -> Result<(), NginxError> {
    match before {
        Some(text) => put(path, text),
        None => match std::fs::remove_file(path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(NginxError::Files {
                    path: path.to_owned(),
                    source,
                })
            }
            Ok(()) | Err(_) => Ok(()),
        },
    }
}
