//! One service of Compose that serves the web.

use super::mounts::{networks, volumes};
use super::names::Names;
use super::ports::Published;
use super::reach::{add_host, health, labels, ports};
use super::time::time;
use super::variable::{UNWRITABLE, known_now, only, scalar};
use crate::import::draft::{Draft, LoggingDraft, Noted, SecretDraft, ServiceDraft, label};
use crate::import::scalar::Scalar;
use crate::import::section::{Section, text_of};
use crate::import::unsupported::UnsupportedKeys;
use greenlight_release::duration::parse_duration;
use serde_json::Value;

const SERVICE: &[(&str, &str)] = &[
    (
        "build",
        "greenlight runs images and does not build them; build and push in the CI job before",
    ),
    ("pull_policy", ""),
    ("container_name", ""),
    ("init", "give the image an init of its own, such as tini"),
    (
        "hostname",
        "blue and green run at the same time; each has the name of its container",
    ),
    ("profiles", ""),
    (
        "depends_on",
        "greenlight starts only what it deploys; what the service needs must already run",
    ),
    (
        "links",
        "use `networks`; a container is reached by its name there",
    ),
    (
        "external_links",
        "use `networks`; a container is reached by its name there",
    ),
    (
        "env_file",
        "the file is not read; write its variables under `env.clear`, and the names of secret ones under \
         `env.secret`",
    ),
    (
        "entrypoint",
        "put it into the image; `cmd` replaces its arguments alone",
    ),
    ("working_dir", "put it into the image"),
    (
        "secrets",
        "name variables under `env.secret`, or mount a file with `volumes`",
    ),
    (
        "configs",
        "put the file into the image, or mount it with `volumes`",
    ),
    (
        "extends",
        "write `docker compose config` to a file and import that",
    ),
    (
        "network_mode",
        "blue and green would share its ports; join a network with `networks`",
    ),
    ("expose", ""),
    ("stdin_open", ""),
    ("tty", ""),
    ("develop", "it is for development, not for deployment"),
];

const DEPLOY: &[(&str, &str)] = &[
    ("mode", ""),
    (
        "replicas",
        "an instance runs one container of a release; add instances to `servers`",
    ),
    (
        "update_config",
        "all instances switch together, and the old release serves until then",
    ),
    (
        "rollback_config",
        "greenlight never switches to a release that fails, or the whole fleet goes back",
    ),
    (
        "restart_policy",
        "the agent starts a live application again; `restart` is for when no agent runs",
    ),
    ("placement", "every instance in `servers` runs the service"),
    ("endpoint_mode", ""),
    ("labels", "they are of Swarm's services, not of containers"),
];

/// Reads a service. Also returns the port that was public.
pub(super) fn service(
    name: &str,
    mut section: Section,
    names: &Names,
    draft: &mut Draft,
    unsupported: &mut UnsupportedKeys,
) -> (ServiceDraft, Option<u16>) {
    let mut service = ServiceDraft {
        name: label(name),
        ..ServiceDraft::default()
    };
    image(&mut section, &mut service, unsupported);
    let mut ports = ports(&mut section, unsupported);
    environment(&mut section, &mut service, unsupported, &mut ports);
    health(&mut section, &mut service, unsupported, &mut ports);
    let published = ports.first().copied();
    service.app_port = Noted {
        value: published.map(|port| port.inside),
        note: Some("The port that it listens on inside its container.".to_owned()),
    };
    command(&mut section, &mut service, unsupported);
    volumes(&mut section, &mut service, names, unsupported);
    labels(&mut section, &mut service, unsupported);
    networks(&mut section, &mut service, names, unsupported);
    limits(&mut section, &mut service, unsupported);
    logging(&mut section, &mut service, unsupported);
    service.user = written(&mut section, "user", unsupported);
    service.restart = written(&mut section, "restart", unsupported);
    if let Some(time) = time(&mut section, "stop_grace_period", unsupported) {
        draft.stop_timeout = Some(longer(draft.stop_timeout.take(), time));
    }
    section.leave(SERVICE, unsupported);
    (service, published.and_then(|port| port.outside))
}

fn image(section: &mut Section, service: &mut ServiceDraft, unsupported: &mut UnsupportedKeys) {
    let Some(image) = section.text("image", unsupported) else {
        service.image = Noted {
            value: Scalar::literal(&format!("registry.example.com/{}", service.name)),
            note: Some("Put the image here that your CI job pushes.".to_owned()),
        };
        return;
    };
    let (name, tag) = without_tag(&image);
    let note = tag.map(|tag| {
        format!(
            "The tag `{tag}` is left out: without one, the release's version is the tag, as in \
             `greenlight deploy --version {}`.",
            known_now(tag).unwrap_or_else(|| "v2".to_owned())
        )
    });
    match scalar(name) {
        Some(name) => {
            service.image = Noted {
                value: Some(name),
                note,
            };
        }
        None => unsupported.add(section.path("image"), UNWRITABLE),
    }
}

/// An image's name, and its tag if it has one. A digest stays.
fn without_tag(image: &str) -> (&str, Option<&str>) {
    if image.contains('@') {
        return (image, None);
    }
    // A colon inside of `${…}` begins a default, and one before a slash a port.
    let mut depth = 0_u32;
    let mut colon = None;
    for (at, letter) in image.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => colon = Some(at),
            '/' if depth == 0 => colon = None,
            _ => {}
        }
    }
    match colon {
        Some(at) => (&image[..at], Some(&image[at + 1..])),
        None => (image, None),
    }
}

fn environment(
    section: &mut Section,
    service: &mut ServiceDraft,
    unsupported: &mut UnsupportedKeys,
    ports: &mut Vec<Published>,
) {
    let path = section.path("environment");
    for (name, value) in section.pairs("environment", unsupported) {
        let at = format!("{path}.{name}");
        match (name.as_str(), value) {
            ("PORT", value) => {
                let port = value.and_then(|value| known_now(&value)?.parse().ok());
                if let (Some(inside), true) = (port, ports.is_empty()) {
                    let outside = None;
                    ports.push(Published { inside, outside });
                }
                unsupported.add(at, "greenlight sets it itself, to `app_port`");
            }
            ("VERSION", _) => {
                unsupported.add(at, "greenlight sets it itself, to the release's version");
            }
            ("VIRTUAL_HOST", Some(hosts)) => {
                for host in hosts.split(',') {
                    add_host(service, host.trim(), &at, unsupported);
                }
            }
            ("VIRTUAL_PORT", Some(port)) => {
                if let Ok(inside) = port.parse() {
                    ports.insert(
                        0,
                        Published {
                            inside,
                            outside: None,
                        },
                    );
                }
            }
            ("LETSENCRYPT_HOST" | "LETSENCRYPT_EMAIL", _) => {
                unsupported.add(at, "TLS must end before greenlight's proxy");
            }
            (_, None) => service.secret.extend(Scalar::literal(&name).map(secret)),
            (_, Some(value)) if only(&value).is_some_and(|variable| variable == name) => {
                service.secret.extend(Scalar::literal(&name).map(secret));
            }
            (_, Some(value)) => match (Scalar::literal(&name), scalar(&value)) {
                (Some(name), Some(value)) => service.clear.push((name, value)),
                _ => unsupported.add(at, UNWRITABLE),
            },
        }
    }
}

fn secret(name: Scalar) -> SecretDraft {
    SecretDraft { name, from: None }
}

fn command(section: &mut Section, service: &mut ServiceDraft, unsupported: &mut UnsupportedKeys) {
    let path = section.path("command");
    let words = match section.take("command") {
        None => return,
        Some(Value::String(text)) => shlex::split(&text),
        Some(Value::Array(words)) => words.iter().map(text_of).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => None,
    };
    let words: Option<Vec<_>> = words.map(|words| words.iter().map(|word| scalar(word)).collect());
    match words.map(|words| words.into_iter().collect::<Option<Vec<_>>>()) {
        Some(Some(words)) => service.cmd = words,
        Some(None) => unsupported.add(path, UNWRITABLE),
        None => unsupported.add(
            path,
            "it cannot be split into words; write it as a list under `cmd`",
        ),
    }
}

fn limits(section: &mut Section, service: &mut ServiceDraft, unsupported: &mut UnsupportedKeys) {
    service.memory = written(section, "mem_limit", unsupported);
    service.cpus = written(section, "cpus", unsupported);
    let Some(mut deploy) = section.section("deploy", unsupported) else {
        return;
    };
    if let Some(mut resources) = deploy.section("resources", unsupported) {
        if let Some(mut limits) = resources.section("limits", unsupported) {
            service.memory = written(&mut limits, "memory", unsupported).or(service.memory.take());
            service.cpus = written(&mut limits, "cpus", unsupported).or(service.cpus.take());
            limits.leave(&[], unsupported);
        }
        let reserved = "greenlight does not schedule, so it reserves nothing";
        resources.leave(&[("reservations", reserved)], unsupported);
    }
    deploy.leave(DEPLOY, unsupported);
}

fn logging(section: &mut Section, service: &mut ServiceDraft, unsupported: &mut UnsupportedKeys) {
    let Some(mut logging) = section.section("logging", unsupported) else {
        return;
    };
    let driver = written(&mut logging, "driver", unsupported);
    let path = logging.path("options");
    let mut options = Vec::new();
    for (name, value) in logging.pairs("options", unsupported) {
        match (Scalar::literal(&name), scalar(&value.unwrap_or_default())) {
            (Some(name), Some(value)) => options.push((name, value)),
            _ => unsupported.add(format!("{path}.{name}"), UNWRITABLE),
        }
    }
    service.logging = Some(LoggingDraft { driver, options });
    logging.leave(&[], unsupported);
}

fn written(section: &mut Section, key: &str, unsupported: &mut UnsupportedKeys) -> Option<Scalar> {
    let text = section.text(key, unsupported)?;
    let written = scalar(&text);
    if written.is_none() {
        unsupported.add(section.path(key), UNWRITABLE);
    }
    written
}

fn longer(one: Option<Scalar>, other: Scalar) -> Scalar {
    let length =
        |time: &Scalar| parse_duration(time.to_string().trim_matches('"')).unwrap_or_default();
    match one {
        Some(one) if length(&one) >= length(&other) => one,
        Some(_) | None => other,
    }
}
