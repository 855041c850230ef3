//! What else reloads Nginx on this machine: each reload closes kept connections, at a time that no
//! deployment chose.
//!
//! It reads files in the usual places and searches for words. It cannot know what a program
//! does that is merely named there.

use greenlight_link::doctor::Finding;
use std::path::{Path, PathBuf};

const CHECK: &str = "other reloads of nginx";
/// More of a file is not read: none of these is that long.
const LONGEST: u64 = 256 * 1024;

/// Files in which a reload may be asked for, below the root folder.
const PLACES: [&str; 14] = [
    "etc/letsencrypt/renewal-hooks/*/*",
    "etc/letsencrypt/renewal/*.conf",
    "etc/letsencrypt/cli.ini",
    "etc/crontab",
    "etc/cron.d/*",
    "etc/cron.hourly/*",
    "etc/cron.daily/*",
    "etc/cron.weekly/*",
    "etc/cron.monthly/*",
    "var/spool/cron/crontabs/*",
    "etc/logrotate.d/*",
    "etc/systemd/system/*.service",
    "etc/systemd/system/*.timer",
    "etc/systemd/system/*.service.d/*.conf",
];

/// Searches the usual places below `root`.
pub(super) fn check(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in files(root) {
        let short = std::fs::metadata(&path).is_ok_and(|meta| meta.len() <= LONGEST);
        let text = match short {
            true => std::fs::read(&path).unwrap_or_default(),
            false => continue,
        };
        let text = String::from_utf8_lossy(&text);
        let Some(line) = text.lines().find(|line| reloads(line)) else {
            continue;
        };
        findings.push(Finding::note(
            CHECK,
            format!("`{}` reloads nginx: `{}`", path.display(), line.trim()),
            advice(&path),
        ));
    }
    if findings.is_empty() {
        let found = "none found in certbot's hooks, cron, logrotate and systemd units";
        findings.push(Finding::ok(CHECK, found));
    }
    findings
}

fn files(root: &Path) -> Vec<PathBuf> {
    let patterns = PLACES.iter().filter_map(|place| {
        let folder = glob::Pattern::escape(root.to_str()?);
        Some(format!("{}/{place}", folder.trim_end_matches('/')))
    });
    let found = patterns.flat_map(|pattern| glob::glob(&pattern).into_iter().flatten());
    found
        .filter_map(Result::ok)
        .filter(|p| p.is_file())
        .collect()
}

/// Whether a line asks for a reload or restart of Nginx.
fn reloads(line: &str) -> bool {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return false;
    }
    // The nginx plugin of certbot reloads after each renewal.
    let compact: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    if compact == "installer=nginx" {
        return true;
    }
    // `ExecReload=` of a unit runs only when the unit is asked to reload.
    if line.starts_with("ExecReload") || !line.contains("nginx") {
        return false;
    }
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    words.into_iter().any(|word| {
        matches!(
            word,
            "reload"
                | "restart"
                | "force-reload"
                | "try-reload-or-restart"
                | "HUP"
                | "-HUP"
                | "SIGHUP"
                | "reload-or-restart"
                | "-1"
        )
    })
}

fn advice(path: &Path) -> &'static str {
    match path.to_str() {
        Some(path) if path.contains("/logrotate.d/") => {
            "let it reopen the logs instead: `nginx -s reopen`, or `kill -USR1` to the master"
        }
        Some(_) | None => {
            "let it run at a quiet time; with a load balancer before Nginx nobody notices if that \
             one tries again"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_told_from_a_reopening_a_comment_and_a_name() {
        for line in [
            "systemctl reload nginx",
            "post_hook = service nginx restart",
            "installer = nginx",
            "0 3 * * * root /usr/sbin/nginx -s reload",
            "kill -HUP $(cat /run/nginx.pid)",
        ] {
            assert!(reloads(line), "{line}");
        }
        for line in [
            "# systemctl reload nginx",
            "invoke-rc.d nginx rotate >/dev/null 2>&1",
            "[ -f /run/nginx.pid ] && kill -USR1 `cat /run/nginx.pid`",
            "/var/log/nginx/*.log {",
            "ExecReload=/usr/sbin/nginx -s reload",
            "systemctl reload haproxy",
        ] {
            assert!(!reloads(line), "{line}");
        }
    }
}
