//! What must change on a machine, and the script that changes it.

use super::desired::DesiredState;
use super::facts::Facts;
use super::units::{AGENT, PROXY, SOCKET, Unit};
use super::{INSTANCE_STATE, PROGRAM, SERVER_USER, UNITS, USER, remove};
use greenlight_link::Role;
use greenlight_release::digest::sha256_hex;
use std::fmt;

/// One change. Changes are made in the order of this list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A user for services.
    User(&'static str),
    /// The program, copied, checked by its digest, and renamed into place.
    Program {
        /// Its SHA-256.
        digest: String,
    },
    /// A unit file.
    Unit(Unit),
    /// A certificate, by a token.
    Join { name: String },
    /// A unit starts with the machine.
    Enable(&'static str),
    /// A unit is started.
    Start(&'static str),
    /// A unit is stopped and started again.
    Restart(&'static str),
    /// The proxy hands everything to a new one, and drops nothing.
    TakeOver,
    /// Everything that setup brought, and what it has kept since, goes.
    Remove,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "create the user `{name}`"),
            Self::Program { digest } => write!(f, "install `{PROGRAM}` ({})", &digest[..12]),
            Self::Unit(unit) => write!(f, "write `{UNITS}/{}`", unit.name),
            Self::Join { name } => write!(f, "join the fleet as `{name}`"),
            Self::Enable(unit) => write!(f, "enable `{unit}`"),
            Self::Start(unit) => write!(f, "start `{unit}`"),
            Self::Restart(unit) => write!(f, "restart `{unit}`"),
            Self::Remove => f.write_str("stop and remove everything of greenlight"),
            Self::TakeOver => write!(f, "upgrade `{PROXY}` under traffic"),
        }
    }
}

/// What must change, in order. `authority` is the SHA-256 of the file with the authority's
/// certificate, if there is one yet.
pub(super) fn changes(
    desired: &DesiredState,
    facts: &Facts,
    digest: &str,
    authority: Option<&str>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let users = [
        (SERVER_USER, desired.server),
        (USER, desired.instance.is_some()),
    ];
    for (name, is_needed) in users {
        if is_needed && !facts.has_user(name) {
            changes.push(Change::User(name));
        }
    }
    if facts.digest(PROGRAM) != Some(digest) {
        let digest = digest.to_owned();
        changes.push(Change::Program { digest });
    }
    let mut written = Vec::new();
    for unit in &desired.units {
        let path = format!("{UNITS}/{}", unit.name);
        if facts.digest(&path) != Some(&sha256_hex(unit.text.as_bytes())) {
            written.push(unit.name);
            changes.push(Change::Unit(unit.clone()));
        }
    }
    let mut joins = false;
    if let Some(name) = &desired.instance {
        let kept = facts.digest(&format!("{INSTANCE_STATE}/identity/ca.pem"));
        let role = Role::Agent(name.0.clone()).dns_name();
        joins = kept.is_none() || kept != authority || facts.role() != Some(&role);
        if joins {
            let name = name.0.clone();
            changes.push(Change::Join { name });
        }
    }
    for unit in &desired.units {
        if !facts.is_enabled(unit.name) {
            changes.push(Change::Enable(unit.name));
        }
    }
    let moved = written.contains(&SOCKET) && facts.is_active(SOCKET);
    for unit in &desired.units {
        let anew = written.contains(&unit.name) || joins && unit.name == AGENT;
        let anew = anew || moved && unit.name == PROXY;
        changes.extend(start(unit, facts, digest, anew));
    }
    changes
}

/// What makes a unit run as it should.
fn start(unit: &Unit, facts: &Facts, digest: &str, anew: bool) -> Option<Change> {
    let name = unit.name;
    if !facts.is_active(name) {
        return Some(Change::Start(name));
    }
    let Some(command) = &unit.command else {
        return anew.then_some(Change::Restart(name));
    };
    // A proxy that has taken over has `--take-over` in its command line, and is otherwise the same.
    let runs = facts.command_of(name).unwrap_or_default();
    let runs = runs.strip_suffix(" --take-over").unwrap_or(runs);
    if anew || runs != command {
        return Some(Change::Restart(name));
    }
    if facts.program_of(name) == Some(digest) {
        return None;
    }
    Some(match name {
        PROXY => Change::TakeOver,
        _ => Change::Restart(name),
    })
}

impl Change {
    /// The script that makes the change, as root. `install.rs` says what it reads from its input.
    pub(super) fn script(&self, desired: &DesiredState, server: &str) -> String {
        let agent = if desired.agent_is_root { "root" } else { USER };
        match self {
            // Its folders are made by the units that need them.
            Self::User(name) => format!(
                "useradd --system --user-group --home-dir /nonexistent --no-create-home \
                 --shell /usr/sbin/nologin {name}\n"
            ),
            Self::Program { digest } => format!(
                "next=$(mktemp {PROGRAM}.XXXXXX)\ntrap 'rm -f \"$next\"' EXIT\n\
                 cat > \"$next\"\necho \"{digest}  $next\" | sha256sum --check --quiet\n\
                 chmod 0755 \"$next\"\nsync \"$next\"\nmv -f \"$next\" {PROGRAM}\n"
            ),
            // Nothing in a unit ends the text early: its values have no line ends.
            Self::Unit(Unit { name, text, .. }) => format!(
                "cat > {UNITS}/.{name}.next << 'END OF UNIT'\n{text}END OF UNIT\n\
                 chmod 0644 {UNITS}/.{name}.next\n\
                 mv -f {UNITS}/.{name}.next {UNITS}/{name}\nsystemctl daemon-reload\n"
            ),
            Self::Join { .. } => {
                let identity = format!("{INSTANCE_STATE}/identity");
                let run = match agent {
                    "root" => String::new(),
                    user => format!("runuser -u {user} -- "),
                };
                format!(
                    "install -d -m 0755 /var/lib/greenlight\n\
                     install -d -o {agent} -g {agent} -m 0750 {INSTANCE_STATE}\n\
                     {run}{PROGRAM} join --server {server} --token - --dir {identity} > /dev/null\n"
                )
            }
            Self::Enable(unit) => format!("systemctl enable --quiet {unit}\n"),
            Self::Start(unit) => format!("systemctl start {unit}\n"),
            // A socket cannot be opened anew while its service has it.
            Self::Restart(SOCKET) => {
                format!("systemctl stop {PROXY} {SOCKET}\nsystemctl start {SOCKET}\n")
            }
            Self::Restart(unit) => format!("systemctl restart {unit}\n"),
            Self::Remove => remove::script(),
            Self::TakeOver => format!(
                "systemctl reload {PROXY}\n\
                 tries=0\n\
                 until [ /proc/$(systemctl show --property MainPID --value {PROXY})/exe \
                 -ef {PROGRAM} ]; do\n\
                 tries=$((tries + 1))\n\
                 if [ $tries -gt 100 ]; then\n\
                 echo 'no new proxy took over, and the old one goes on; \
                 look at `journalctl -u {PROXY}`' >&2\nexit 1\nfi\nsleep 0.2\ndone\n"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::desired::machines;
    use crate::setup::units::SERVER;
    use greenlight_config::Config;

    const DIGEST: &str = "0123456789abcdef";

    #[test]
    fn an_empty_machine_gets_everything_in_the_order_in_which_it_is_needed() {
        let desired = desired();
        let changes = changes(&desired, &Facts::read(""), DIGEST, None);
        let said: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "create the user `greenlight-server`",
                "create the user `greenlight`",
                "install `/usr/local/bin/greenlight` (0123456789ab)",
                "write `/etc/systemd/system/greenlight-server.service`",
                "write `/etc/systemd/system/greenlight-proxy.socket`",
                "write `/etc/systemd/system/greenlight-proxy.service`",
                "write `/etc/systemd/system/greenlight-agent.service`",
                "join the fleet as `a`",
                "enable `greenlight-server.service`",
                "enable `greenlight-proxy.socket`",
                "enable `greenlight-proxy.service`",
                "enable `greenlight-agent.service`",
                "start `greenlight-server.service`",
                "start `greenlight-proxy.socket`",
                "start `greenlight-proxy.service`",
                "start `greenlight-agent.service`",
            ]
        );
    }

    #[test]
    fn a_machine_that_has_everything_is_left_alone() {
        assert_eq!(after(|_| {}), []);
    }

    #[test]
    fn the_coordinator_s_user_is_nobody_else_s() {
        for unit in desired().units {
            let own = unit.text.contains("User=greenlight-server\n");
            let closed = unit
                .text
                .contains("InaccessiblePaths=-/var/lib/greenlight/server\n");
            let is_server = unit.name == SERVER;
            assert_eq!(own, is_server, "{}", unit.name);
            assert_eq!(
                closed,
                !is_server && unit.command.is_some(),
                "{}",
                unit.name
            );
        }
        let lacking =
            after(|lines| lines.retain(|line| !line.starts_with("user greenlight-server")));
        assert_eq!(lacking, [Change::User(SERVER_USER)]);
    }

    #[test]
    fn a_newer_program_is_installed_and_only_the_proxy_is_not_restarted() {
        let changed = after(|lines| {
            lines.retain(|line| !line.starts_with("file /usr/local"));
            for line in lines {
                if line.starts_with("program") {
                    *line = line.replace(DIGEST, "older");
                }
            }
        });
        let digest = DIGEST.to_owned();
        let expected = [
            Change::Program { digest },
            Change::Restart(SERVER),
            Change::TakeOver,
            Change::Restart(AGENT),
        ];
        assert_eq!(changed, expected);
    }

    #[test]
    fn an_interrupted_upgrade_is_finished_by_the_next_run() {
        let changed = after(|lines| {
            for line in lines {
                if line.starts_with("program greenlight-proxy") {
                    *line = line.replace(DIGEST, "older");
                }
            }
        });
        assert_eq!(changed, [Change::TakeOver]);
    }

    #[test]
    fn a_proxy_that_has_taken_over_is_the_one_that_is_wanted() {
        let changed = after(|lines| {
            for line in lines {
                if line.starts_with("command greenlight-proxy") {
                    line.push_str(" --take-over");
                }
            }
        });
        assert_eq!(changed, []);
    }

    #[test]
    fn a_certificate_of_another_fleet_or_instance_is_replaced() {
        for (of, other) in [("ca", "another"), ("a.agent.", "b.agent.")] {
            let changed = after(|lines| {
                for line in lines {
                    if line.starts_with("role") || line.contains("identity/ca.pem") {
                        *line = line.replace(&format!("\t{of}"), &format!("\t{other}"));
                    }
                }
            });
            let name = "a".to_owned();
            assert_eq!(changed, [Change::Join { name }, Change::Restart(AGENT)]);
        }
    }

    fn desired() -> DesiredState {
        let text = "service: shop\ncommand: [shop]\nservers: [{ name: a, host: 10.0.0.1 }]\n";
        let config = Config::parse("greenlight.yml", text, []).expect("a good file");
        let machines = machines(&config).expect("addresses");
        let facts = Facts::read("cores\t2\nsystemd\t252\n");
        DesiredState::of(&config, &machines, &machines[0], &facts).expect("good values")
    }

    /// What must change on a machine that has everything, once something was done to it.
    fn after(act: impl FnOnce(&mut Vec<String>)) -> Vec<Change> {
        let desired = desired();
        let mut lines = vec![
            format!("user {USER}\tyes"),
            format!("user {SERVER_USER}\tyes"),
            format!("file {PROGRAM}\t{DIGEST}"),
            format!("file {INSTANCE_STATE}/identity/ca.pem\tca"),
            format!("role\t{}", Role::Agent("a".to_owned()).dns_name()),
        ];
        for Unit {
            name,
            text,
            command,
        } in &desired.units
        {
            let digest = sha256_hex(text.as_bytes());
            lines.push(format!("file {UNITS}/{name}\t{digest}"));
            lines.push(format!("enabled {name}\tenabled"));
            lines.push(format!("active {name}\tactive"));
            if let Some(command) = command {
                lines.push(format!("program {name}\t{DIGEST}"));
                lines.push(format!("command {name}\t{command}"));
            }
        }
        act(&mut lines);
        changes(
            &desired,
            &Facts::read(&lines.join("\n")),
            DIGEST,
            Some("ca"),
        )
    }
}
