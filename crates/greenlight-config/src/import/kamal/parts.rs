//! What a file of Kamal has at its top and in its roles as well: environment, times, lists.

use super::ruby::{UNWRITABLE, scalar};
use crate::import::draft::{LoggingDraft, SecretDraft, ServiceDraft};
use crate::import::scalar::Scalar;
use crate::import::section::Section;
use crate::import::unsupported::UnsupportedKeys;
use greenlight_release::duration::parse_duration;

/// `env`: variables, or `clear`, `secret` and `tags`. Existing entries are replaced.
pub(super) fn environment(
    mut env: Section,
    service: &mut ServiceDraft,
    unsupported: &mut UnsupportedKeys,
) {
    let parted = ["clear", "secret", "tags"].iter().any(|key| env.has(key));
    if parted {
        let path = env.path("clear");
        let pairs = env.pairs("clear", unsupported);
        add_all(&path, pairs, service, unsupported);
        let path = env.path("secret");
        for secret in env.texts("secret", unsupported) {
            // `NAME:OTHER` takes the value of another secret.
            let (name, from) = match secret.split_once(':') {
                Some((name, from)) => (name, Some(from)),
                None => (secret.as_str(), None),
            };
            match Scalar::literal(name) {
                Some(name) => {
                    service.secret.retain(|known| known.name != name);
                    service.secret.push(SecretDraft {
                        name,
                        from: from.and_then(Scalar::literal),
                    });
                }
                None => unsupported.add(&path, UNWRITABLE),
            }
        }
        let why = "every instance has the same environment; `GREENLIGHT_INSTANCE` tells them apart";
        env.leave(&[("tags", why)], unsupported);
    } else {
        let path = env.own_path().to_owned();
        let names: Vec<_> = env.keys().map(ToOwned::to_owned).collect();
        let mut value = |name: &String| env.text(name, unsupported);
        let pairs = names.iter().map(|name| (name.clone(), value(name)));
        let pairs = pairs.collect();
        add_all(&path, pairs, service, unsupported);
    }
}

fn add_all(
    path: &str,
    pairs: Vec<(String, Option<String>)>,
    service: &mut ServiceDraft,
    unsupported: &mut UnsupportedKeys,
) {
    for (name, value) in pairs {
        let at = format!("{path}.{name}");
        if matches!(name.as_str(), "PORT" | "VERSION") {
            unsupported.add(
                at,
                "greenlight sets it itself: the port to `app_port`, the version to the release's",
            );
            continue;
        }
        match (Scalar::literal(&name), scalar(&value.unwrap_or_default())) {
            (Some(name), Some(value)) => {
                service.clear.retain(|(known, _)| *known != name);
                service.clear.push((name, value));
            }
            _ => unsupported.add(at, UNWRITABLE),
        }
    }
}

pub(super) fn logging(
    section: &mut Section,
    unsupported: &mut UnsupportedKeys,
) -> Option<LoggingDraft> {
    let mut logging = section.section("logging", unsupported)?;
    let read = LoggingDraft {
        driver: written(&mut logging, "driver", unsupported),
        options: pairs(&mut logging, "options", unsupported),
    };
    logging.leave(&[], unsupported);
    Some(read)
}

pub(super) fn pairs(
    section: &mut Section,
    key: &str,
    unsupported: &mut UnsupportedKeys,
) -> Vec<(Scalar, Scalar)> {
    let path = section.path(key);
    let mut all = Vec::new();
    for (name, value) in section.pairs(key, unsupported) {
        match (Scalar::literal(&name), scalar(&value.unwrap_or_default())) {
            (Some(name), Some(value)) => all.push((name, value)),
            _ => unsupported.add(format!("{path}.{name}"), UNWRITABLE),
        }
    }
    all
}

pub(super) fn scalars(
    section: &mut Section,
    key: &str,
    unsupported: &mut UnsupportedKeys,
) -> Vec<Scalar> {
    let path = section.path(key);
    let mut all = Vec::new();
    for text in section.texts(key, unsupported) {
        match scalar(&text) {
            Some(text) => all.push(text),
            None => unsupported.add(&path, UNWRITABLE),
        }
    }
    all
}

pub(super) fn written(
    section: &mut Section,
    key: &str,
    unsupported: &mut UnsupportedKeys,
) -> Option<Scalar> {
    let text = section.text(key, unsupported)?;
    let written = scalar(&text);
    if written.is_none() {
        unsupported.add(section.path(key), UNWRITABLE);
    }
    written
}

/// A time; Kamal's are seconds.
pub(super) fn seconds(
    section: &mut Section,
    key: &str,
    unsupported: &mut UnsupportedKeys,
) -> Option<Scalar> {
    let text = section.text(key, unsupported)?;
    let text = match text.chars().all(|c| c.is_ascii_digit()) {
        true => format!("{text}s"),
        false => text,
    };
    match parse_duration(&text) {
        Ok(_) => Scalar::literal(&text),
        Err(error) => {
            unsupported.add(section.path(key), format!("`{text}`: {error}"));
            None
        }
    }
}
