//! The Nginx of an instance: whether it runs, reads our file, uses it, and reaches the gate.

use super::reloads;
use crate::nginx::{Include, Nginx, NginxError, Upstream};
use greenlight_link::doctor::{Expected, ExpectedNginx, Finding};
use greenlight_protocol::ServiceName;
use greenlight_release::ports::PortPair;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const ATTACH: &str = "run `greenlight attach nginx` there";

/// Examines the Nginx that the file describes. `root` is the folder with the machine's
/// files.
pub(super) async fn check(expected: &Expected, there: &ExpectedNginx, root: &Path) -> Vec<Finding> {
    let nginx = Nginx {
        binary: there.binary.clone(),
        conf: there.conf.clone(),
        pid: there.pid.clone(),
    };
    let mut findings = vec![match nginx.master() {
        Ok(master) => Finding::ok("nginx", format!("runs (process {})", master.pid)),
        Err(error) => Finding::problem("nginx", error.to_string(), "start nginx"),
    }];
    if let Ok(leaving) = nginx.leaving() {
        findings.push(judge_leaving(leaving));
    }
    let text = std::fs::read_to_string(&there.include).ok();
    let (include, finding) = judge_include(expected, there, text.as_deref());
    findings.push(finding);
    match nginx.dump().await {
        Ok(dump) => {
            findings.extend(judge_use(expected, there, &dump));
            findings.push(judge_shutdown(&dump));
        }
        Err(error @ (NginxError::Refused(_) | NginxError::TestTooLong)) => {
            let todo = "correct the configuration: nginx would not start with it";
            findings.push(Finding::problem(
                "nginx configuration",
                error.to_string(),
                todo,
            ));
        }
        Err(
            error @ (NginxError::NotRun { .. }
            | NginxError::NotRunning { .. }
            | NginxError::NotTold { .. }
            | NginxError::Files { .. }),
        ) => {
            let todo = "install nginx, or correct `proxy.nginx` in the file";
            findings.push(Finding::problem(
                "nginx configuration",
                error.to_string(),
                todo,
            ));
        }
    }
    let sockets = include
        .iter()
        .flat_map(|include| include.upstreams.values());
    let sockets: BTreeSet<_> = sockets
        .filter_map(|upstream| match upstream {
            Upstream::Gate(socket) => Some(socket.as_path()),
            Upstream::Slots { .. } => None,
        })
        .collect();
    let worker = nginx
        .accepting()
        .ok()
        .and_then(|workers| workers.first().copied());
    let accounts = worker.and_then(|worker| Accounts::of(worker.pid));
    findings.extend(
        sockets
            .iter()
            .map(|socket| check_gate(socket, accounts.as_ref())),
    );
    findings.extend(reloads::check(root));
    findings
}

fn judge_leaving(leaving: usize) -> Finding {
    const CHECK: &str = "nginx workers";
    match leaving {
        0 => Finding::ok(CHECK, "none is shutting down"),
        some => Finding::note(
            CHECK,
            format!("{some} of an earlier configuration are shutting down"),
            "somebody has reloaded nginx; they end with their last connection",
        ),
    }
}

/// Compares our file with what would be written.
fn judge_include(
    expected: &Expected,
    there: &ExpectedNginx,
    text: Option<&str>,
) -> (Option<Include>, Finding) {
    const CHECK: &str = "nginx include";
    let shown = there.include.display();
    let Some(text) = text else {
        let found = format!("`{shown}` is not there");
        return (None, Finding::problem(CHECK, found, ATTACH));
    };
    let include = match Include::read(text) {
        Ok(include) => include,
        Err(error) => {
            let found = format!("`{shown}` is not what greenlight wrote");
            return (None, Finding::problem(CHECK, found, error.to_string()));
        }
    };
    let drift = drift(expected, there, &include);
    let finding = match drift.is_empty() {
        true => Finding::ok(CHECK, format!("`{shown}` is as the file describes it")),
        false => Finding::problem(
            CHECK,
            format!(
                "`{shown}` is not as the file describes it: {}",
                drift.join("; ")
            ),
            ATTACH,
        ),
    };
    (Some(include), finding)
}

/// What differs between the file and what is wanted.
fn drift(expected: &Expected, there: &ExpectedNginx, include: &Include) -> Vec<String> {
    let mut drift = Vec::new();
    if include.verify_port != there.verify_port {
        drift.push(format!(
            "`verify_port` is {}, not {}",
            include.verify_port, there.verify_port
        ));
    }
    if include.forward_headers != there.forward_headers {
        drift.push("`forward_headers` differs".to_owned());
    }
    let known: BTreeMap<_, _> = include
        .upstreams
        .iter()
        .map(|(label, upstream)| (ServiceName(label.to_string()), upstream))
        .collect();
    for (service, settings) in &expected.services {
        match known.get(service) {
            None => drift.push(format!("`{service}` is missing")),
            Some(Upstream::Gate(_))
                if expected.front == greenlight_release::front::FrontKind::NginxReload =>
            {
                drift.push(format!("`{service}` goes to a gate"));
            }
            Some(Upstream::Slots { .. })
                if expected.front == greenlight_release::front::FrontKind::Nginx =>
            {
                drift.push(format!("`{service}` goes past the gate"));
            }
            Some(Upstream::Slots { blue, green, .. }) => {
                let PortPair { blue: b, green: g } = settings.ports.pair();
                if (*blue, *green) != (b, g) {
                    drift.push(format!(
                        "`{service}` has ports {blue} and {green}, not {b} and {g}"
                    ));
                }
            }
            Some(Upstream::Gate(_)) => {}
        }
    }
    for service in known.keys().filter(|s| !expected.services.contains_key(*s)) {
        drift.push(format!("`{service}` is not in `greenlight.yml`"));
    }
    drift
}

/// Whether our files are read, by what `nginx -T` shows.
fn judge_use(expected: &Expected, there: &ExpectedNginx, dump: &str) -> Vec<Finding> {
    const CHECK: &str = "nginx use";
    let include = there.include.display();
    if !reads(dump, &there.include) {
        let found = format!("`{}` does not include `{include}`", there.conf.display());
        let todo = format!("add `include {include};` to its `http` block, and reload nginx");
        return vec![Finding::problem(CHECK, found, todo)];
    }
    let folder = there.include.parent().unwrap_or(Path::new("/"));
    let services = expected.services.keys().map(|service| {
        let location = folder.join(format!("greenlight_{service}.location"));
        match reads(dump, &location) || passes_by_hand(dump, service) {
            true => Finding::ok(CHECK, format!("a server passes requests to `{service}`")),
            false => Finding::problem(
                CHECK,
                format!("no server passes requests to `{service}`"),
                format!(
                    "write `include {};` in a `location` of your server, and reload nginx",
                    location.display()
                ),
            ),
        }
    });
    services.collect()
}

fn reads(dump: &str, file: &Path) -> bool {
    let line = format!("# configuration file {}:", file.display());
    dump.lines().any(|other| other == line)
}

/// Whether a server passes requests to our upstream without our location.
fn passes_by_hand(dump: &str, service: &ServiceName) -> bool {
    let pass = format!("proxy_pass http://greenlight_{service}");
    dump.lines().any(|line| {
        let rest = line.trim().strip_prefix(&pass);
        // Our own file checks whether the gate exists, which passes no user's request.
        rest.is_some_and(|rest| rest.starts_with(';'))
    })
}

fn judge_shutdown(dump: &str) -> Finding {
    const CHECK: &str = "worker_shutdown_timeout";
    let set = dump.lines().find_map(|line| {
        let rest = line.trim().strip_prefix(CHECK)?;
        Some(rest.trim().trim_end_matches(';').to_owned())
    });
    match set {
        Some(set) => Finding::ok(
            CHECK,
            format!("{set}: a reload ends connections after that"),
        ),
        None => Finding::note(
            CHECK,
            "not set: after a reload old workers stay as long as their longest connection",
            "set it in the main configuration if long connections are many, for example to 1m",
        ),
    }
}

/// The user and groups of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Accounts {
    user: u32,
    groups: BTreeSet<u32>,
}

impl Accounts {
    fn of(pid: i32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let numbers = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(
                line.split_whitespace()
                    .filter_map(|n| n.parse().ok())
                    .collect::<Vec<u32>>(),
            )
        };
        let mut groups: BTreeSet<_> = numbers("Groups:")?.into_iter().collect();
        // Real, effective, saved, file system.
        groups.insert(*numbers("Gid:")?.get(1)?);
        Some(Self {
            user: *numbers("Uid:")?.get(1)?,
            groups,
        })
    }

    /// Whether the bit of `rwx` (4, 2, 1) is theirs.
    fn may(&self, (owner, group, mode): (u32, u32, u32), bit: u32) -> bool {
        let shift = match () {
            () if self.user == 0 => return true,
            () if self.user == owner => 6,
            () if self.groups.contains(&group) => 3,
            () => 0,
        };
        mode >> shift & bit != 0
    }
}

/// Whether a worker can reach the gate's socket.
fn check_gate(socket: &Path, worker: Option<&Accounts>) -> Finding {
    const CHECK: &str = "gate socket";
    let shown = socket.display();
    let standing = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.uid(), meta.gid(), meta.mode()))
    };
    if standing(socket).is_none() {
        return Finding::problem(
            CHECK,
            format!("`{shown}`, where nginx passes requests, is not there"),
            "start `greenlight proxy` with `--listen unix:` and that path",
        );
    }
    let Some(worker) = worker else {
        return Finding::ok(CHECK, format!("`{shown}` is there"));
    };
    let mut folders = socket
        .ancestors()
        .skip(1)
        .filter(|f| !f.as_os_str().is_empty());
    let closed = folders.find(|folder| standing(folder).is_some_and(|s| !worker.may(s, 1)));
    if let Some(folder) = closed {
        return Finding::problem(
            CHECK,
            format!("nginx's workers may not enter `{}`", folder.display()),
            "let their group enter it (`chmod g+x` and `chgrp`), or keep the socket elsewhere",
        );
    }
    match standing(socket).is_some_and(|s| worker.may(s, 2)) {
        true => Finding::ok(CHECK, format!("nginx's workers may connect to `{shown}`")),
        false => Finding::problem(
            CHECK,
            format!("nginx's workers may not connect to `{shown}`"),
            "name their group: `proxy.nginx.group`, or `greenlight proxy --socket-group`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::doctor::Level;

    #[test]
    fn what_nginx_reads_is_seen_in_what_it_prints() {
        let dump = "# configuration file /etc/nginx/nginx.conf:\nevents {}\n\
                    # configuration file /etc/nginx/conf.d/greenlight.conf:\n";
        assert!(reads(dump, Path::new("/etc/nginx/conf.d/greenlight.conf")));
        assert!(!reads(dump, Path::new("/etc/nginx/conf.d/other.conf")));
        assert_eq!(judge_shutdown(dump).level, Level::Note);
        let set = format!("{dump}worker_shutdown_timeout 10s;\n");
        assert_eq!(judge_shutdown(&set).level, Level::Ok);
    }

    #[test]
    fn permissions_are_those_of_the_first_class_that_fits() {
        let worker = Accounts {
            user: 33,
            groups: [33, 50].into(),
        };
        assert!(worker.may((0, 50, 0o660), 2));
        assert!(!worker.may((0, 51, 0o660), 2));
        assert!(!worker.may((33, 50, 0o060), 2));
        assert!(worker.may((0, 0, 0o711), 1));
    }
}
