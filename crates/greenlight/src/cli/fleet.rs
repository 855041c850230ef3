//! Where a command finds its fleet: the credentials of an operator, and the address in them.

use super::Failure;
use super::args::{FileArg, FleetArg};
use greenlight_config::Config;
use greenlight_link::ApiClient;
use greenlight_link::api::FleetStatus;
use greenlight_protocol::ServiceName;
use greenlight_release::spec::check_version;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The folder beside `greenlight.yml` in which `up` keeps a fleet.
pub(super) const FLEET_DIR: &str = ".greenlight";

/// The folder of a local fleet for this configuration file.
pub(super) fn local_dir(file: &Path) -> PathBuf {
    let beside = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    beside.unwrap_or(Path::new(".")).join(FLEET_DIR)
}

/// Makes that folder. It has an operator's key, so it is nothing for Git, and others of this
/// machine may pass through it at most.
pub(super) fn make_local_dir(dir: &Path, mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, Permissions::from_mode(mode))?;
    std::fs::write(dir.join(".gitignore"), "*\n")
}

/// A client for the fleet that the arguments name.
pub(super) fn connect(fleet: &FleetArg, file: &FileArg) -> Result<ApiClient, Failure> {
    let dir = match &fleet.fleet {
        Some(dir) => dir.clone(),
        None => local_dir(&file.file).join("operator"),
    };
    Ok(ApiClient::from_dir(&dir)?)
}

/// The name of the person who asks, for other people to read.
pub(super) fn requested_by() -> String {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    if let Some(actor) = variable("GITHUB_ACTOR") {
        let run = variable("GITHUB_RUN_ID").map(|run| format!(" (GitHub Actions run {run})"));
        return format!("{actor}{}", run.unwrap_or_default());
    }
    let user = variable("USER")
        .or_else(|| variable("LOGNAME"))
        .or_else(account);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => user.unwrap_or_else(|| "someone".to_owned()),
        host => format!("{}@{host}", user.unwrap_or_else(|| "someone".to_owned())),
    }
}

/// The name of this process's account.
fn account() -> Option<String> {
    let own = rustix::process::getuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number == own).then(|| name.to_owned())
    })
}

/// The version given, or else the commit that is checked out beside the file.
pub(super) fn version(given: Option<&str>, file: &Path) -> Result<String, Failure> {
    if let Some(version) = given {
        check_version(version)?;
        return Ok(version.to_owned());
    }
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .current_dir(dir.unwrap_or(Path::new(".")))
            .args(arguments)
            .stderr(std::process::Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        let error = "the release needs a version, and there is no commit here to name it after";
        return Err(Failure::new(super::Exit::Usage, error).help("give one with `--version`"));
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    match changed {
        Some(changes) if !changes.is_empty() => Ok(format!("{commit}-changed")),
        Some(_) | None => Ok(commit),
    }
}

/// Where the file and the running fleet disagree about who belongs to it; a deployment would not
/// find everything that it needs.
pub(super) fn membership_mismatch(config: &Config, status: &FleetStatus) -> Vec<String> {
    let listed: BTreeSet<_> = config.instances.iter().map(|its| &its.name).collect();
    let running: BTreeSet<_> = status.instances.keys().collect();
    let missing = listed.difference(&running).map(|name| {
        format!("`{name}` is in `servers` and not in the running fleet; start the server with it")
    });
    let unlisted = running.difference(&listed).map(|name| {
        format!("`{name}` is in the running fleet and not in `servers`; add it to the file")
    });
    missing.chain(unlisted).collect()
}

/// Services that are live and that the file does not name.
pub(super) fn orphans(config: &Config, status: &FleetStatus) -> Vec<ServiceName> {
    let live = status.live.keys();
    let orphans = live.filter(|service| !config.services.contains_key(*service));
    orphans.cloned().collect()
}

/// The configuration, for commands that need one.
pub(super) fn configuration(file: &FileArg) -> Result<Config, Failure> {
    Ok(Config::load(&file.file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_with_the_operator_s_key_is_closed_and_nothing_for_git() {
        let home = tempfile::tempdir().expect("a folder");
        let dir = local_dir(&home.path().join("greenlight.yml"));

        make_local_dir(&dir, 0o700).expect("a folder");

        let mode = dir.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let ignored = std::fs::read_to_string(dir.join(".gitignore"));
        assert_eq!(ignored.expect("it is there"), "*\n");
    }
}
