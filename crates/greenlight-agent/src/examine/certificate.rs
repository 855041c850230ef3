//! The certificates of the link: an agent whose own has run out reaches no server.

use greenlight_link::doctor::Finding;
use greenlight_shell::clock::wall_ms;
use std::path::Path;
use x509_parser::prelude::parse_x509_pem;

const SOON_DAYS: i64 = 30;
const RENEW: &str = "agents renew it while they reach the server, so look at the agent's log; then \
                     `greenlight join` with a new token, or start `greenlight up` again";

/// Examines a certificate in PEM.
pub(super) fn check(path: &Path) -> Option<Finding> {
    let text = std::fs::read(path).ok()?;
    let (_, pem) = parse_x509_pem(&text).ok()?;
    let until = pem.parse_x509().ok()?.validity().not_after.timestamp();
    let now = i64::try_from(wall_ms() / 1000).unwrap_or(i64::MAX);
    Some(judge(&path.display().to_string(), (until - now) / 86_400))
}

fn judge(path: &str, days: i64) -> Finding {
    const CHECK: &str = "certificate";
    let found = format!("`{path}` is valid for {days} more days");
    match days {
        ..1 => Finding::problem(CHECK, format!("`{path}` has expired"), RENEW),
        1..SOON_DAYS => Finding::note(CHECK, found, RENEW),
        SOON_DAYS.. => Finding::ok(CHECK, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::doctor::Level;

    #[test]
    fn a_certificate_that_runs_out_is_said_in_time() {
        assert_eq!(judge("x", -1).level, Level::Problem);
        assert_eq!(judge("x", 10).level, Level::Note);
        assert_eq!(judge("x", 100).level, Level::Ok);
    }
}
