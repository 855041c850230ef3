//! `docker-compose.yml`: which of its services serve the web, and the settings of each.
//!
//! Compose knows one machine and Greenlight a fleet, so the servers are left to the person.

mod mounts;
mod names;
mod ports;
mod reach;
mod service;
mod service_kind;
mod time;
mod variable;

use super::draft::{Draft, Noted};
use super::scalar::Scalar;
use super::section::Section;
use super::unsupported::UnsupportedKeys;
use super::{ImportError, Source};
use names::Names;
use serde_json::Value;
use service_kind::Kind;

const AT_THE_TOP: &[(&str, &str)] = &[
    ("version", ""),
    ("name", ""),
    ("networks", ""),
    ("volumes", ""),
    (
        "secrets",
        "greenlight mounts no secrets; name variables under `env.secret`, or mount a file with `volumes`",
    ),
    (
        "configs",
        "greenlight mounts no configs; put the file into the image, or mount it with `volumes`",
    ),
    (
        "include",
        "other files are not read; write `docker compose config` to a file and import that",
    ),
];

/// Reads a file; of several services only the one of that name, if one is given.
pub(super) fn draft(
    file: &Value,
    only: Option<&str>,
    unsupported: &mut UnsupportedKeys,
) -> Result<Draft, ImportError> {
    let mut top = Section::whole(file);
    let missing = ImportError::NotThatTool("services", Source::Compose);
    let services = top.section("services", unsupported).ok_or(missing)?;
    let (chosen, some_stay) = choose(services, only, unsupported)?;
    let names = Names::of(&top, some_stay, unsupported);
    let mut draft = Draft::default();
    let mut public = Vec::new();
    for (name, section) in chosen {
        let (service, published) =
            service::service(&name, section, &names, &mut draft, unsupported);
        public.extend(published.map(|port| (name, port)));
        draft.services.push(service);
    }
    // Of several, one that is usual for the web.
    public.sort_by_key(|(_, port)| !ports::is_usual(*port));
    draft.port = public.first().map(|(_, port)| *port);
    for (name, port) in &public {
        if let Some(shared) = draft.port.filter(|shared| shared != port) {
            let why = format!(
                "it was public on {port}; all services of an instance share the public port, \
                 {shared}, and differ by `host` or `path_prefix`"
            );
            unsupported.add(format!("services.{name}.ports"), why);
        }
    }
    tell_apart(&mut draft);
    top.leave(AT_THE_TOP, unsupported);
    Ok(draft)
}

/// The services that serve the web, and whether some stay in Compose that they may need. What
/// becomes of each other one is said.
fn choose(
    mut services: Section,
    only: Option<&str>,
    unsupported: &mut UnsupportedKeys,
) -> Result<(Vec<(String, Section)>, bool), ImportError> {
    let mut some_stay = false;
    let known: Vec<_> = services.keys().map(|name| format!("`{name}`")).collect();
    let mut chosen = Vec::new();
    for (name, section) in services.sections() {
        let kind = Kind::of(&section);
        let path = section.own_path().to_owned();
        some_stay |= matches!(kind, Kind::Backend(_) | Kind::Worker);
        match (only, kind) {
            (Some(wanted), _) if wanted == name => chosen.push((name, section)),
            (Some(_), _) => unsupported.add(path, "another service; keep it in Compose"),
            (None, Kind::Web) => chosen.push((name, section)),
            (None, Kind::Backend(what)) => {
                unsupported.add(
                    path,
                    format!("greenlight deploys what serves requests; keep {what} in Compose"),
                );
            }
            (None, Kind::Proxy(what)) => unsupported.add(
                path,
                format!("greenlight's own proxy takes the place of {what}; TLS must end before it"),
            ),
            (None, Kind::Worker) => unsupported.add(
                path,
                "it publishes no port, so it serves no requests; keep it in Compose (`--service` \
                 imports it all the same)",
            ),
        }
    }
    services.leave(&[], unsupported);
    match (chosen.is_empty(), only) {
        (false, _) => Ok((chosen, some_stay)),
        (true, None) => Err(ImportError::NothingToServe),
        (true, Some(name)) => Err(ImportError::NoSuchService {
            name: name.to_owned(),
            known: known.join(", "),
        }),
    }
}

/// Requests must find their service, so each of several has a host of its own.
fn tell_apart(draft: &mut Draft) {
    if draft.services.len() < 2 {
        return;
    }
    for service in &mut draft.services {
        if service.hosts.value.is_empty() && service.path_prefix.is_none() {
            let host = format!("{}.example.com", service.name);
            service.hosts = Noted {
                value: Scalar::literal(&host).into_iter().collect(),
                note: Some("Put in the host that users request.".to_owned()),
            };
        }
    }
}
