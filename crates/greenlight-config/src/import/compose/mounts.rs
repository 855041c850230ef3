//! What a service of Compose shares with others on its machine: volumes and networks.

use super::names::{Name, Names};
use super::variable::{UNWRITABLE, scalar};
use crate::import::draft::ServiceDraft;
use crate::import::section::{Section, listed, text_of};
use crate::import::unsupported::UnsupportedKeys;
use serde_json::Value;

pub(super) fn volumes(
    section: &mut Section,
    service: &mut ServiceDraft,
    names: &Names,
    unsupported: &mut UnsupportedKeys,
) {
    let path = section.path("volumes");
    let entries = section.take("volumes").map(listed);
    let mut guessed = false;
    for entry in entries.into_iter().flatten() {
        let Some(short) = short_volume(&entry) else {
            unsupported.add(
                &path,
                format!("{entry} is lost with its container; mount a path or a named volume"),
            );
            continue;
        };
        let source = short.split(':').next().unwrap_or_default();
        if source.starts_with(['.', '~']) {
            let why = format!(
                "`{short}` is relative to the file's folder; write an absolute path of the instance"
            );
            unsupported.add(&path, why);
            continue;
        }
        let short = match names.volume(source) {
            _ if source.starts_with(['/', '$']) => short,
            Name::Known(name) => format!("{name}{}", &short[source.len()..]),
            Name::After(_) => {
                guessed = true;
                short
            }
        };
        match scalar(&short) {
            Some(volume) => service.volumes.value.push(volume),
            None => unsupported.add(&path, format!("`{short}`: {UNWRITABLE}")),
        }
    }
    let shared = "Blue and green run at the same time, and share them.";
    service.volumes.note = Some(match guessed {
        true => format!(
            "{shared} Compose puts the project's name before that of a volume; `docker volume ls` \
             shows what they are called."
        ),
        false => shared.to_owned(),
    });
}

/// A volume in one line: `source:target[:ro]`.
fn short_volume(entry: &Value) -> Option<String> {
    match entry {
        Value::String(text) => text.contains(':').then(|| text.clone()),
        Value::Object(map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str);
            if !matches!(text("type"), Some("bind" | "volume") | None) {
                return None;
            }
            let read_only = map.get("read_only").is_some_and(|yes| yes == true);
            let end = if read_only { ":ro" } else { "" };
            Some(format!("{}:{}{end}", text("source")?, text("target")?))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

pub(super) fn networks(
    section: &mut Section,
    service: &mut ServiceDraft,
    names: &Names,
    unsupported: &mut UnsupportedKeys,
) {
    let path = section.path("networks");
    let joined: Vec<_> = match section.take("networks") {
        Some(Value::Array(joined)) => joined.iter().filter_map(text_of).collect(),
        Some(Value::Object(map)) => map.keys().cloned().collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            unsupported.add(path, "neither a list nor a map; write it by hand");
            return;
        }
        None if section.has("network_mode") => return,
        None => vec!["default".to_owned()],
    };
    let mut note = "They must exist on every instance.";
    for name in joined {
        let is_default = name == "default";
        if is_default && !names.some_stay {
            continue;
        }
        let name = match names.network(&name) {
            Name::Known(name) => name,
            Name::After(_) if is_default => {
                let why = "what stays in Compose is on its network `<project>_default`; put that under \
                           `networks`, or the service does not find it by name";
                unsupported.add(&path, why);
                continue;
            }
            Name::After(name) => {
                note = "They must exist on every instance. Compose puts the project's name before \
                        that of a network; `docker network ls` shows what they are called.";
                name
            }
        };
        match scalar(&name) {
            Some(name) => service.networks.value.push(name),
            None => unsupported.add(&path, UNWRITABLE),
        }
    }
    service.networks.note = Some(note.to_owned());
}
