//! `${NAME}` as Compose writes it, in Greenlight's way of writing it.
//!
//! | Compose | Greenlight |
//! |---|---|
//! | `$NAME`, `${NAME}` | `${NAME}` |
//! | `${NAME:-text}`, `${NAME-text}` | `${NAME:-text}` |
//! | `${NAME:?text}`, `${NAME?text}` | `${NAME:?text}` |
//! | `$$` | `$` |

use crate::import::scalar::Scalar;

/// Why a value with variables is left out.
pub(super) const UNWRITABLE: &str = "its variables cannot be written here; set it by hand";

/// One part of a value.
enum Part {
    Text(String),
    Variable { name: String, rest: String },
}

/// A value of Compose as `greenlight.yml` has it; nothing if it cannot.
pub(super) fn scalar(text: &str) -> Option<Scalar> {
    let parts = parts(text)?;
    if parts.iter().all(|part| matches!(part, Part::Text(_))) {
        return Scalar::literal(&without_variables(&parts)?);
    }
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(&text.replace("${", "$${")),
            // The runtime's own: it would be the slot's port, and not what Compose means.
            Part::Variable { name, .. } if name == "PORT" => return None,
            Part::Variable { name, rest } => {
                out.push_str("${");
                out.push_str(&name);
                out.push_str(&rest);
                out.push('}');
            }
        }
    }
    Scalar::replaced(&out)
}

/// A value where it must be known now: variables with a default become it.
pub(super) fn known_now(text: &str) -> Option<String> {
    without_variables(&parts(text)?)
}

/// The name of the only variable that a value consists of, if it has no default.
pub(super) fn only(text: &str) -> Option<String> {
    match &parts(text)?[..] {
        [Part::Variable { name, rest }] if !rest.starts_with(":-") => Some(name.clone()),
        _ => None,
    }
}

fn without_variables(parts: &[Part]) -> Option<String> {
    let mut out = String::new();
    for part in parts {
        out.push_str(match part {
            Part::Text(text) => text,
            Part::Variable { rest, .. } => rest.strip_prefix(":-")?,
        });
    }
    Some(out)
}

fn parts(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            plain.push('$');
            rest = after;
            continue;
        }
        let (inside, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}')?,
            None => after.split_at(name_end(after)),
        };
        if inside.is_empty() {
            plain.push('$');
            rest = after;
            continue;
        }
        let (name, how) = inside.split_at(name_end(inside));
        let how = match how.strip_prefix(':').unwrap_or(how).split_at_checked(1) {
            None => String::new(),
            Some((sign @ ("-" | "?"), text)) if !text.contains("${") => format!(":{sign}{text}"),
            // `:+`, and variables within variables.
            Some(_) => return None,
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        let name = name.to_owned();
        parts.push(Part::Variable { name, rest: how });
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() || parts.is_empty() {
        parts.push(Part::Text(plain));
    }
    Some(parts)
}

fn name_end(text: &str) -> usize {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.find(|c| !is_name(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::{known_now, only, scalar};

    #[test]
    fn the_ways_of_compose_become_those_of_greenlight() {
        for (compose, greenlight) in [
            ("$USER", Some("${USER}")),
            ("${USER}@x", Some("${USER}@x")),
            ("${A-b}", Some("${A:-b}")),
            ("${A:-b c}", Some("${A:-b c}")),
            ("${A?set it}", Some("${A:?set it}")),
            ("100$$", Some("\"100$\"")),
            ("$${A}", Some("$${A}")),
            ("${A:+b}", None),
            ("${A:-${B}}", None),
            ("http://x:${PORT}", None),
        ] {
            let written = scalar(compose).map(|scalar| scalar.to_string());
            assert_eq!(written.as_deref(), greenlight, "{compose}");
        }
        assert_eq!(known_now("${P:-80}:3000").as_deref(), Some("80:3000"));
        assert_eq!(known_now("${P}:3000"), None);
        assert_eq!(only("${SECRET}").as_deref(), Some("SECRET"));
        assert_eq!(only("${SECRET:-x}"), None);
    }
}
