//! Docker's errors in Greenlight's words: what happened, and what to do about it.
//!
//! Docker distinguishes most of them only by text. The matches here serve only a better
//! message; nothing is decided by it but that a container that is gone need not be removed.

use crate::runtime::RuntimeError;
use bollard::errors::Error;

/// Whether what was asked for is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

/// Whether a name is in use already.
pub(super) fn is_name_taken(error: &Error) -> bool {
    conflict(error).is_some_and(|message| message.contains("already in use"))
}

/// Whether a removal is under way already.
pub(super) fn is_being_removed(error: &Error) -> bool {
    conflict(error).is_some_and(|message| message.contains("already in progress"))
}

/// Whether a published port is in use.
pub(super) fn is_port_taken(error: &Error) -> bool {
    let message = said(error).unwrap_or_default();
    message.contains("port is already allocated") || message.contains("address already in use")
}

/// The error of an operation, described as what was being done.
pub(super) fn explain(host: &str, doing: &str, error: &Error) -> RuntimeError {
    let Some(message) = said(error) else {
        return RuntimeError::DockerAway {
            host: host.to_owned(),
            reason: with_causes(error),
        };
    };
    if is_disk_full(message) {
        let doing = doing.to_owned();
        return RuntimeError::DiskFull { doing };
    }
    RuntimeError::Docker {
        doing: doing.to_owned(),
        reason: message.trim().to_owned(),
    }
}

/// Why an image could not be had.
pub(super) fn about_image(host: &str, image: &str, registry: &str, error: &Error) -> RuntimeError {
    let Some(message) = said(error) else {
        return explain(host, "pulling", error);
    };
    if is_disk_full(message) {
        let doing = format!("pulling `{image}`");
        return RuntimeError::DiskFull { doing };
    }
    let any = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let advice = if any(&[
        "unauthorized",
        "authentication required",
        "no basic auth",
        "denied",
    ]) {
        format!("; check `registry:` in greenlight.yml, or log this machine in to `{registry}`")
    } else if any(&["manifest unknown", "not found", "No such image"]) {
        "; push it first, or correct `image`".to_owned()
    } else if any(&[
        "no such host",
        "connection refused",
        "timeout",
        "unreachable",
    ]) {
        format!("; is `{registry}` reachable from this machine?")
    } else {
        String::new()
    };
    RuntimeError::Image {
        image: image.to_owned(),
        reason: format!("{}{advice}", message.trim()),
    }
}

fn is_disk_full(message: &str) -> bool {
    message.contains("no space left on device") || message.contains("disk quota exceeded")
}

fn conflict(error: &Error) -> Option<&str> {
    let Error::DockerResponseServerError {
        status_code: 409,
        message,
    } = error
    else {
        return None;
    };
    Some(message)
}

/// The daemon's message; `None` if no daemon answered.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the client has dozens of errors; all others mean that no answer came"
)]
fn said(error: &Error) -> Option<&str> {
    match error {
        Error::DockerResponseServerError { message, .. } | Error::JsonDataError { message, .. } => {
            Some(message)
        }
        Error::DockerStreamError { error } | Error::DockerContainerWaitError { error, .. } => {
            Some(error)
        }
        _ => None,
    }
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}
