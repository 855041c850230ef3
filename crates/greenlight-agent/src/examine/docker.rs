//! Docker: whether it answers, what it is, and what its images need.

use super::{disk_space, procfs};
use crate::runtime::Running;
use bollard::{API_DEFAULT_VERSION, Docker};
use greenlight_link::doctor::{Expected, Finding};
use std::path::{Path, PathBuf};
use std::time::Duration;

const CHECK: &str = "docker";
const USUAL: &str = "unix:///var/run/docker.sock";
/// The oldest version whose API has what is needed.
const OLDEST: (u32, u32) = (20, 10);
const DAEMON_TIMEOUT_SECONDS: u64 = 5;

/// A daemon as it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) version: String,
    architecture: String,
    live_restore: bool,
    root: PathBuf,
    /// The largest of the images that are wanted or run, in bytes.
    image: Option<u64>,
}

/// Why a daemon did not say what it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum DaemonError {
    /// It cannot be asked.
    #[error("`{host}` does not answer: {source}")]
    Unreachable {
        host: String,
        source: bollard::errors::Error,
    },
    /// It takes too long.
    #[error("`{0}` does not answer in time")]
    Timeout(String),
}

/// Asks the daemon at `host`.
pub(super) async fn gather(
    host: Option<&str>,
    expected: &Expected,
    running: &[Running],
) -> Result<Facts, DaemonError> {
    let host = host.filter(|host| !host.is_empty()).unwrap_or(USUAL);
    let asked = ask(host, expected, running);
    let within = Duration::from_secs(DAEMON_TIMEOUT_SECONDS);
    match tokio::time::timeout(within, asked).await {
        Ok(answered) => answered.map_err(|source| DaemonError::Unreachable {
            host: host.to_owned(),
            source,
        }),
        Err(_) => Err(DaemonError::Timeout(host.to_owned())),
    }
}

async fn ask(
    host: &str,
    expected: &Expected,
    running: &[Running],
) -> Result<Facts, bollard::errors::Error> {
    let docker = Docker::connect_with_unix(host, DAEMON_TIMEOUT_SECONDS, API_DEFAULT_VERSION)?;
    let docker = docker.negotiate_version().await?;
    let version = docker.version().await?;
    let info = docker.info().await?;
    let mut names: Vec<_> = expected
        .services
        .values()
        .filter_map(|s| s.image.clone())
        .collect();
    for container in running.iter().filter_map(|r| r.container.as_ref()) {
        let inspected = docker.inspect_container(&container.id, None).await;
        names.extend(inspected.ok().and_then(|found| found.image));
    }
    let mut image = None;
    for name in names {
        if let Ok(found) = docker.inspect_image(&name).await {
            let size = found.size.and_then(|size| u64::try_from(size).ok());
            image = image.max(size);
        }
    }
    Ok(Facts {
        version: version.version.unwrap_or_default(),
        architecture: version.arch.unwrap_or_default(),
        live_restore: info.live_restore_enabled.unwrap_or(false),
        root: info.docker_root_dir.unwrap_or_default().into(),
        image,
    })
}

/// The findings about a daemon that was queried, if containers are expected.
pub(super) fn judge(facts: &Result<Facts, DaemonError>) -> Vec<Finding> {
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            let todo = "start Docker, let the agent's user use its socket, or name the socket in \
                        `DOCKER_HOST`";
            return vec![Finding::problem(CHECK, error.to_string(), todo)];
        }
    };
    let version = &facts.version;
    let found = format!("{version} on {}", facts.architecture);
    let mut findings = vec![match parsed(version) {
        Some(parsed) if parsed < OLDEST => {
            Finding::problem(CHECK, found, "update Docker to 20.10 or newer")
        }
        Some(_) => Finding::ok(CHECK, found),
        None => Finding::note(CHECK, found, "check that it is 20.10 or newer"),
    }];
    findings.push(match facts.live_restore {
        true => Finding::ok("live-restore", "containers outlive a restart of the daemon"),
        false => Finding::note(
            "live-restore",
            "a restart of the daemon ends all containers",
            "set `\"live-restore\": true` in `/etc/docker/daemon.json`",
        ),
    });
    findings.push(disk_space::images(
        &facts.root,
        disk_space::free(&facts.root),
        facts.image,
    ));
    findings
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What an application uses, in bytes: its container's, or its processes'.
pub(super) fn used(running: &Running) -> Option<u64> {
    let used = match running.container.is_some() {
        true => cgroup(running.pid).or_else(|| Some(procfs::memory(running.pid))),
        false => Some(procfs::memory(running.pid)),
    };
    used.filter(|used| *used > 0)
}

fn cgroup(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = Path::new("/sys/fs/cgroup").join(path);
    let used = std::fs::read_to_string(folder.join("memory.current")).ok()?;
    used.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::doctor::Level;

    #[test]
    fn an_old_daemon_is_a_problem_and_one_that_ends_containers_a_note() {
        let old = judge(&Ok(facts("19.03.15", true)));
        assert_eq!(old[0].level, Level::Problem);
        assert_eq!(old[1].level, Level::Ok);
        let new = judge(&Ok(facts("26.1.5+dfsg1", false)));
        assert_eq!(new[0].level, Level::Ok);
        assert_eq!(new[1].level, Level::Note);
        let away = judge(&Err(DaemonError::Timeout("unix:///x".to_owned())));
        assert_eq!(away[0].level, Level::Problem);
    }

    fn facts(version: &str, live_restore: bool) -> Facts {
        Facts {
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            live_restore,
            root: "/".into(),
            image: None,
        }
    }
}
