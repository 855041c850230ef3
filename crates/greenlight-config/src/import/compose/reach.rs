//! How a service of Compose is reached: its ports, its health check, and the labels for a proxy.

use super::ports::{Published, is_usual, published};
use super::time::time;
use super::variable::{UNWRITABLE, scalar};
use crate::import::draft::{Noted, ServiceDraft};
use crate::import::scalar::Scalar;
use crate::import::section::{Section, listed};
use crate::import::traefik;
use crate::import::unsupported::UnsupportedKeys;

const HEALTHCHECK: &[(&str, &str)] = &[
    (
        "start_period",
        "a release that is starting may fail its check for as long as `deploy_timeout`",
    ),
    (
        "start_interval",
        "a release that is starting is asked more often by itself",
    ),
    (
        "disable",
        "greenlight switches only to a release that was healthy",
    ),
];

/// The published ports and then the exposed ones; the first is taken for the web's.
pub(super) fn ports(section: &mut Section, unsupported: &mut UnsupportedKeys) -> Vec<Published> {
    let path = section.path("ports");
    let mut found = Vec::new();
    for entry in section.take("ports").map(listed).into_iter().flatten() {
        match published(&entry) {
            Some(port) => found.push(port),
            None => unsupported.add(&path, format!("{entry} is no single TCP port")),
        }
    }
    found.sort_by_key(|port| !port.outside.is_some_and(is_usual));
    for port in found.iter().skip(1) {
        let why = format!(
            "greenlight passes requests on to one port of a service, here {}",
            found[0].inside
        );
        unsupported.add(format!("{path} ({})", port.inside), why);
    }
    for port in section.texts("expose", unsupported) {
        found.extend(port.parse().ok().map(|inside| Published {
            inside,
            outside: None,
        }));
    }
    found
}

pub(super) fn health(
    section: &mut Section,
    service: &mut ServiceDraft,
    unsupported: &mut UnsupportedKeys,
    ports: &mut Vec<Published>,
) {
    let guess =
        "The path that must answer 200 to 299 when the service is ready; check that yours does.";
    service.health.path.note = Some(guess.to_owned());
    let Some(mut check) = section.section("healthcheck", unsupported) else {
        return;
    };
    let words = check.texts("test", unsupported).join(" ");
    if let Some((port, path)) = asked_of_itself(&words) {
        service.health.path = Noted {
            value: Scalar::literal(&path),
            note: None,
        };
        if let (Some(inside), true) = (port, ports.is_empty()) {
            ports.push(Published {
                inside,
                outside: None,
            });
        }
    } else if !words.is_empty() {
        let why = "greenlight asks over HTTP and runs no command; put the path under \
                   `healthcheck.path`";
        unsupported.add(check.path("test"), why);
    }
    service.health.interval = time(&mut check, "interval", unsupported);
    service.health.timeout = time(&mut check, "timeout", unsupported);
    service.health.failures = check.count("retries", unsupported);
    check.leave(HEALTHCHECK, unsupported);
}

/// The port and path that a command asks this container for, as in `curl http://localhost:3000/up`.
fn asked_of_itself(command: &str) -> Option<(Option<u16>, String)> {
    for host in ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"] {
        for (at, _) in command.match_indices(host) {
            let after = &command[at + host.len()..];
            let end = after.find(|c: char| c.is_whitespace() || "'\"|;&)".contains(c));
            let address = &after[..end.unwrap_or(after.len())];
            let (port, path) = match address.split_once('/') {
                Some((port, path)) => (port, format!("/{path}")),
                None if address.starts_with(':') => (address, "/".to_owned()),
                None => continue,
            };
            return Some((port.trim_start_matches(':').parse().ok(), path));
        }
    }
    None
}

pub(super) fn labels(
    section: &mut Section,
    service: &mut ServiceDraft,
    unsupported: &mut UnsupportedKeys,
) {
    let path = section.path("labels");
    for (name, value) in section.pairs("labels", unsupported) {
        let at = format!("{path}.{name}");
        let value = value.unwrap_or_default();
        let of_traefik = name.strip_prefix("traefik.");
        if of_traefik.is_some_and(|name| name.rsplit('.').next() == Some("rule")) {
            let rule = traefik::Rule::read(&value);
            for host in &rule.hosts {
                add_host(service, host, &at, unsupported);
            }
            if let Some(prefix) = &rule.path_prefix {
                service.path_prefix = scalar(prefix);
            }
            if let Some(why) = rule.others {
                unsupported.add(at, why);
            }
        } else if of_traefik.is_some_and(|name| name.contains(".loadbalancer.server.")) {
            // The published or exposed port says the same.
        } else if ["traefik.", "caddy"]
            .iter()
            .any(|tool| name.starts_with(tool))
        {
            unsupported.add(at, "it is for another proxy; greenlight's takes its place");
        } else {
            match (Scalar::literal(&name), scalar(&value)) {
                (Some(name), Some(value)) => service.labels.push((name, value)),
                _ => unsupported.add(at, UNWRITABLE),
            }
        }
    }
}

pub(super) fn add_host(
    service: &mut ServiceDraft,
    host: &str,
    at: &str,
    unsupported: &mut UnsupportedKeys,
) {
    match scalar(host) {
        Some(host) if service.hosts.value.contains(&host) => {}
        Some(host) => service.hosts.value.push(host),
        None => unsupported.add(at, UNWRITABLE),
    }
}
