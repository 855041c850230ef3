//! `servers`: the machines of the web role are the fleet; other roles stay with Kamal.

use super::parts::{environment, logging, pairs, scalars, written};
use super::ruby::{UNWRITABLE, scalar};
use crate::import::draft::{Draft, ServiceDraft};
use crate::import::section::{Section, listed, text_of};
use crate::import::traefik::Rule;
use crate::import::unsupported::UnsupportedKeys;
use serde_json::Value;

const ROLE: &[(&str, &str)] = &[
    ("proxy", "write what differs under the `proxy` at the top"),
    (
        "healthcheck",
        "write what differs under the `proxy` at the top",
    ),
    ("traefik", ""),
    (
        "asset_path",
        "serve assets from a place that both releases share, such as a CDN",
    ),
];

/// Reads `servers` into the fleet, and the settings of the web role into the service.
pub(super) fn servers(
    top: &mut Section,
    service: &mut ServiceDraft,
    draft: &mut Draft,
    unsupported: &mut UnsupportedKeys,
) {
    let primary = top.text("primary_role", unsupported);
    let primary = primary.unwrap_or_else(|| "web".to_owned());
    let Some(value) = top.take("servers") else {
        return;
    };
    let roles = match value {
        Value::Object(roles) => roles,
        hosts @ Value::Array(_) => std::iter::once((primary.clone(), hosts)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            unsupported.add("servers", "neither a list nor roles; write it by hand");
            return;
        }
    };
    for (role, value) in roles {
        let path = format!("servers.{role}");
        let section = match value.is_array() {
            true => Section::of_role(&path, value),
            false => Section::at(&path, value),
        };
        let Some(mut section) = section else {
            unsupported.add(path, "its shape is not supported; write it by hand");
            continue;
        };
        let is_primary = role == primary;
        if !is_primary && !serves(&section) {
            let cmd = section.text("cmd", unsupported);
            let cmd = cmd.map_or_else(String::new, |cmd| format!(" (`{cmd}`)"));
            let why = format!(
                "a role{cmd} that serves no requests; keep it with Kamal, `kamal deploy --roles {role}`"
            );
            unsupported.add(path, why);
            continue;
        }
        hosts(&mut section, draft, unsupported);
        // `true` is the default here.
        section.word("proxy");
        if is_primary {
            settings(&mut section, service, unsupported);
            section.leave(ROLE, unsupported);
        } else {
            let same = "every instance of a service runs the same; what needs settings of its own \
                        is a service of its own";
            let known = ["cmd", "env", "options", "labels", "logging"].map(|key| (key, same));
            let mut reasons = ROLE.to_vec();
            reasons.extend(known);
            section.leave(&reasons, unsupported);
        }
    }
}

/// Whether a role that is not the primary one is behind the proxy.
fn serves(role: &Section) -> bool {
    let mut role = role.clone();
    let mut is_on = |key| role.take(key).is_some_and(|value| value != false);
    is_on("proxy") || is_on("traefik")
}

fn hosts(role: &mut Section, draft: &mut Draft, unsupported: &mut UnsupportedKeys) {
    let path = role.path("hosts");
    for host in role.take("hosts").map(listed).into_iter().flatten() {
        // `host: tag`, or `host: [tag, tag]`.
        let name = if let Some(tagged) = host.as_object() {
            let why = "every instance has the same environment";
            unsupported.add(format!("{path} (tags)"), why);
            tagged.keys().next().cloned()
        } else {
            text_of(&host)
        };
        match name.as_deref().and_then(scalar) {
            Some(name) if draft.servers.contains(&name) => {}
            Some(name) => draft.servers.push(name),
            None => unsupported.add(&path, UNWRITABLE),
        }
    }
}

/// What the web role has beside its machines.
fn settings(role: &mut Section, service: &mut ServiceDraft, unsupported: &mut UnsupportedKeys) {
    let path = role.path("cmd");
    if let Some(cmd) = role.text("cmd", unsupported) {
        let words = shlex::split(&cmd).unwrap_or_default();
        let words: Option<Vec<_>> = words.iter().map(|word| scalar(word)).collect();
        match words {
            Some(words) if !words.is_empty() => service.cmd = words,
            Some(_) | None => {
                unsupported.add(path, "it cannot be split into words; write it under `cmd`");
            }
        }
    }
    if let Some(env) = role.section("env", unsupported) {
        environment(env, service, unsupported);
    }
    if let Some(own) = logging(role, unsupported) {
        service.logging = Some(own);
    }
    let path = role.path("labels");
    for (name, value) in pairs(role, "labels", unsupported) {
        let at = format!("{path}.{name}");
        if name.to_string().starts_with("traefik.") {
            route(&value.to_string(), service, &at, unsupported);
        } else {
            service.labels.push((name, value));
        }
    }
    let Some(mut options) = role.section("options", unsupported) else {
        return;
    };
    for (key, place) in [
        ("memory", &mut service.memory),
        ("cpus", &mut service.cpus),
        ("user", &mut service.user),
        ("restart", &mut service.restart),
    ] {
        *place = written(&mut options, key, unsupported);
    }
    service.networks.value = scalars(&mut options, "network", unsupported);
    options.leave(&[], unsupported);
}

/// Kamal 1 routes by labels of Traefik.
fn route(value: &str, service: &mut ServiceDraft, at: &str, unsupported: &mut UnsupportedKeys) {
    let rule = Rule::read(value.trim_matches('"'));
    if rule.hosts.is_empty() && rule.path_prefix.is_none() {
        unsupported.add(
            at,
            "it is for Traefik; greenlight's own proxy takes its place",
        );
        return;
    }
    service
        .hosts
        .value
        .extend(rule.hosts.iter().filter_map(|host| scalar(host)));
    service.path_prefix = rule.path_prefix.as_deref().and_then(scalar);
    if let Some(why) = rule.others {
        unsupported.add(at, why);
    }
}
