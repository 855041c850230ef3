//! Ports: a slot that is to be filled needs its own free, and what runs must be what listens.

use super::procfs::{self, Named};
use crate::runtime::Running;
use greenlight_link::doctor::{Expected, Finding};
use greenlight_protocol::{Color, ServiceName, Slot};
use greenlight_release::front::FrontKind;
use greenlight_release::ports::RequestedPorts;
use std::collections::{BTreeMap, BTreeSet};

const CHECK: &str = "port";

/// A port that the file names, and what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    number: u16,
    /// What it is for.
    purpose: String,
    /// Whether the fleet should listen there now.
    expected: ExpectedHolder,
    /// Whether another port may be used in its place.
    is_replaceable: bool,
    /// The processes that listen; `None` if none does, empty if they cannot be seen.
    holders: Option<Vec<Named>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ExpectedHolder {
    Nobody,
    /// The processes of ours that should listen.
    Ours(BTreeSet<i32>),
    /// A process of this name.
    Program(&'static str),
}

/// Examines every port of the instance. `running` is what the agent's runtime runs, `slots` are the
/// ports that its slots have so far, `proxy` is the process of its proxy.
pub(super) fn check(
    expected: &Expected,
    running: &[Running],
    slots: &BTreeMap<ServiceName, RequestedPorts>,
    proxy: Option<i32>,
) -> Vec<Finding> {
    let mut requested = Vec::new();
    for (service, settings) in &expected.services {
        let chosen = slots.get(service).filter(|_| !settings.ports.is_named());
        let pair = chosen.unwrap_or(&settings.ports).pair();
        for color in [Color::Blue, Color::Green] {
            let slot = Slot {
                service: service.clone(),
                color,
            };
            let ours = running.iter().find(|running| running.launch.slot == slot);
            let expected = match ours {
                None => ExpectedHolder::Nobody,
                // Docker listens for its containers, if anybody does.
                Some(ours) if ours.container.is_some() => ExpectedHolder::Program("docker-proxy"),
                Some(ours) => ExpectedHolder::Ours([ours.pid].into()),
            };
            let is_replaceable = !settings.ports.is_named();
            requested.push((pair.of(color), slot.to_string(), expected, is_replaceable));
        }
    }
    let public = match (expected.front, proxy) {
        (FrontKind::Builtin, None) => ExpectedHolder::Nobody,
        (FrontKind::Builtin, Some(pid)) => ExpectedHolder::Ours([pid].into()),
        (FrontKind::Nginx | FrontKind::NginxReload, _) => ExpectedHolder::Program("nginx"),
    };
    requested.push((expected.port, "users".to_owned(), public, false));
    let listening = listening();
    let inodes = listening.values().flatten().copied().collect();
    let known = procfs::holders(&inodes);
    let ports = requested
        .into_iter()
        .map(|(number, purpose, expected, is_replaceable)| Port {
            number,
            purpose,
            expected: with_descendants(expected, &listening, &known, number),
            is_replaceable,
            holders: listening.get(&number).map(|inodes| {
                let holders = inodes.iter().filter_map(|inode| known.get(inode));
                let mut holders: Vec<_> = holders.flatten().cloned().collect();
                // A proxy listens once for each of its threads.
                holders.sort_by_key(|holder| holder.pid);
                holders.dedup();
                holders
            }),
        });
    ports.map(|port| judge(&port)).collect()
}

/// Processes that belong to a process of ours are ours as well.
fn with_descendants(
    expected: ExpectedHolder,
    listening: &BTreeMap<u16, Vec<u64>>,
    known: &BTreeMap<u64, Vec<Named>>,
    number: u16,
) -> ExpectedHolder {
    let ExpectedHolder::Ours(mut ours) = expected else {
        return expected;
    };
    let leaders: Vec<_> = ours.iter().copied().collect();
    let inodes = listening.get(&number).into_iter().flatten();
    for holder in inodes.filter_map(|inode| known.get(inode)).flatten() {
        if leaders.iter().any(|l| procfs::belongs_to(holder.pid, *l)) {
            ours.insert(holder.pid);
        }
    }
    ExpectedHolder::Ours(ours)
}

fn judge(port: &Port) -> Finding {
    let Port {
        number, purpose, ..
    } = port;
    let place = format!("{number} for {purpose}");
    match (&port.expected, &port.holders) {
        (ExpectedHolder::Nobody, None) => Finding::ok(CHECK, format!("{place} is free")),
        (ExpectedHolder::Nobody, Some(holders)) if port.is_replaceable => Finding::note(
            CHECK,
            format!("{place} is taken by {}", listed(holders)),
            "a deployment uses another port in its place",
        ),
        (ExpectedHolder::Nobody, Some(holders)) => Finding::problem(
            CHECK,
            format!("{place} is taken by {}", listed(holders)),
            "stop that program, or configure another port",
        ),
        (ExpectedHolder::Ours(_), None) => Finding::problem(
            CHECK,
            format!("no process listens on {place}, although the release should"),
            "look at `greenlight logs` and at the agent's log",
        ),
        (ExpectedHolder::Ours(ours), Some(holders)) => {
            match holders.iter().all(|holder| ours.contains(&holder.pid)) {
                true => Finding::ok(CHECK, format!("{place} is held by {}", listed(holders))),
                false => Finding::problem(
                    CHECK,
                    format!(
                        "{place} is held by {}, which is not the release",
                        listed(holders)
                    ),
                    "stop that program: it gets requests that are meant for the release",
                ),
            }
        }
        // If Docker routes in the kernel only, no process listens.
        (ExpectedHolder::Program("docker-proxy"), None) => {
            Finding::ok(CHECK, format!("{place} is a container's"))
        }
        (ExpectedHolder::Program(program), None) => Finding::note(
            CHECK,
            format!("no process listens on {place}"),
            format!("start `{program}`, or correct `port` in `servers` to where it listens"),
        ),
        (ExpectedHolder::Program(program), Some(holders)) => {
            let all = holders.iter().all(|holder| holder.name == *program);
            match all {
                true => Finding::ok(CHECK, format!("{place} is held by {}", listed(holders))),
                false => Finding::problem(
                    CHECK,
                    format!("{place} is held by {}, not {program}", listed(holders)),
                    "stop that program, or configure another port",
                ),
            }
        }
    }
}

fn listed(holders: &[Named]) -> String {
    if holders.is_empty() {
        return "a program that only root can see".to_owned();
    }
    let mut names: Vec<_> = holders
        .iter()
        .map(|holder| format!("`{}` (process {})", holder.name, holder.pid))
        .collect();
    let more = names.len().saturating_sub(3);
    names.truncate(3);
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// By port: the sockets that listen there in a way that a slot's own would collide with.
fn listening() -> BTreeMap<u16, Vec<u64>> {
    let mut all: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        for (port, inode) in text.lines().filter_map(listener) {
            all.entry(port).or_default().push(inode);
        }
    }
    all
}

/// The port and socket of a line of `/proc/net/tcp`, if it is one that listens.
fn listener(line: &str) -> Option<(u16, u64)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let _remote = fields.next()?;
    if fields.next()? != LISTEN {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((port, fields.nth(5)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::doctor::Level;

    #[test]
    fn a_listener_is_read_and_a_connection_is_not() {
        let listens = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 \
                       00000000     0        0 4242 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listener(listens), Some((8080, 4242)));
        assert_eq!(listener(&listens.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn a_stranger_on_a_port_is_named_whether_the_port_should_be_free_or_ours() {
        let stranger = Named {
            pid: 7,
            name: "redis".to_owned(),
        };
        for expected in [ExpectedHolder::Nobody, ExpectedHolder::Ours([8].into())] {
            let finding = judge(&port(expected, Some(vec![stranger.clone()])));
            assert_eq!(finding.level, Level::Problem);
            assert!(finding.found.contains("`redis` (process 7)"), "{finding:?}");
        }
        let mut replaceable = port(ExpectedHolder::Nobody, Some(vec![stranger.clone()]));
        replaceable.is_replaceable = true;
        assert_eq!(judge(&replaceable).level, Level::Note);
        let ours = judge(&port(
            ExpectedHolder::Ours([7].into()),
            Some(vec![stranger]),
        ));
        assert_eq!(ours.level, Level::Ok);
        assert_eq!(judge(&port(ExpectedHolder::Nobody, None)).level, Level::Ok);
        assert_eq!(
            judge(&port(ExpectedHolder::Ours([7].into()), None)).level,
            Level::Problem
        );
    }

    fn port(expected: ExpectedHolder, holders: Option<Vec<Named>>) -> Port {
        Port {
            number: 8080,
            purpose: "shop/blue".to_owned(),
            expected,
            is_replaceable: false,
            holders,
        }
    }
}
