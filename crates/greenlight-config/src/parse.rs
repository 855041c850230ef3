//! From text to [`File`]: the only module that speaks to the YAML parser.
//!
//! The parser finds the diagnostics of form: no YAML, unknown and repeated keys, wrong types, unset
//! variables. They are turned into [`Diagnostic`]s here, as messages of Greenlight.

use super::diagnostic::Diagnostic;
use super::file::{Beside, File, FleetSection, ServiceSection, keys_of};
use super::interpolation;
use super::located::span_of;
use super::suggestion::{list, suggest};
use miette::SourceSpan;
use serde_saphyr::{Error, Location};

/// Reads the file. `variables` is the environment that `${NAME}` is replaced from.
pub(super) fn parse(
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<File, Diagnostic> {
    if text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    }) {
        return Err(Diagnostic::MissingKey {
            key: "service".to_owned(),
            at: SourceSpan::new(0.into(), 0),
            help: "the file is empty; remove it, and `greenlight init` writes one to start from"
                .to_owned(),
        });
    }
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false }
        .with_properties(interpolation::properties(variables));
    let fleet = serde_saphyr::from_str_with_options(text, options.clone());
    let fleet = fleet.map(|read: Beside<ServiceSection, FleetSection>| read.value);
    let service = serde_saphyr::from_str_with_options(text, options);
    let service = service.map(|read: Beside<FleetSection, ServiceSection>| read.value);
    match (fleet, service) {
        (Ok(fleet), Ok(only_service)) => Ok(File {
            fleet,
            only_service,
        }),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(diagnostic(error.without_snippet(), text)),
        // Both readings may have stopped: the one that came less far has the first fault.
        (Err(one), Err(other)) => {
            let [one, other] = [one.without_snippet(), other.without_snippet()];
            let reached = |error: &Error| place(error.location(), text).offset();
            let first = if reached(other) < reached(one) {
                other
            } else {
                one
            };
            Err(diagnostic(first, text))
        }
    }
}

/// The parser's error as a message of Greenlight.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser has 60 errors, most of which a configuration never meets"
)]
fn diagnostic(error: &Error, text: &str) -> Diagnostic {
    let at = place(error.location(), text);
    let written = slice(text, at);
    match error {
        // The parser hides the names of keys once anything was interpolated: they may be secret.
        // A key in the file is not, so it is taken from there.
        Error::SerdeUnknownField { expected, .. } => {
            let at_the_top = *expected == keys_of::<FleetSection>();
            let beside = match at_the_top {
                true => keys_of::<ServiceSection>(),
                false => &[],
            };
            unknown_key(written, at, &[expected, beside].concat())
        }
        Error::SerdeMissingField { field, .. } => Diagnostic::MissingKey {
            key: (*field).to_owned(),
            at,
            help: format!("add `{field}: ...`"),
        },
        Error::DuplicateMappingKey { .. } => Diagnostic::DuplicateKey {
            key: written.to_owned(),
            at,
        },
        Error::SerdeUnknownVariant { expected, .. } => Diagnostic::UnknownWord {
            found: written.to_owned(),
            at,
            help: match suggest(written, expected.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write {}", list(expected, "or")),
            },
        },
        Error::UnresolvedProperty { name, .. } => Diagnostic::Unset {
            name: name.clone(),
            at,
            help: format!("set it, or give a default: `${{{name}:-...}}`"),
        },
        Error::PropertyRequiredButUnset { name, message, .. }
        | Error::PropertyRequiredButEmpty { name, message, .. } => Diagnostic::Unset {
            name: name.clone(),
            at,
            help: match message.as_str() {
                "" => "set it".to_owned(),
                reason => reason.to_owned(),
            },
        },
        Error::InvalidPropertyName { name, .. } => Diagnostic::NotReplaced {
            text: name.clone(),
            at,
            help:
                "write `${NAME}`, `${NAME:-default}` or `${NAME:?reason}`; `$${...}` stays as it \
                   is"
                .to_owned(),
        },
        Error::AliasError { error, .. } => diagnostic(error, text),
        _ => match expected_by(error) {
            Some((expected, help)) => Diagnostic::WrongType {
                expected: expected.to_owned(),
                at,
                help: help.map(ToOwned::to_owned),
            },
            None => syntax(error, text, at),
        },
    }
}

pub(super) fn unknown_key(key: &str, at: SourceSpan, expected: &[&str]) -> Diagnostic {
    Diagnostic::UnknownKey {
        key: key.to_owned(),
        at,
        help: match suggest(key, expected.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the keys here are {}", list(expected, "and")),
        },
    }
}

/// What should have stood where a value has the wrong shape, and how to write it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other errors are not about the shape of a value"
)]
fn expected_by(error: &Error) -> Option<(&str, Option<&'static str>)> {
    Some(match error {
        Error::Unexpected { expected, .. } => match *expected {
            "mapping start" => ("a map of keys", None),
            "sequence start" => ("a list", Some("write `[a, b]`, or one `- a` on each line")),
            "string scalar" => ("text", None),
            _ => return None,
        },
        Error::InvalidScalar { ty, .. } => match *ty {
            "u16" => ("a port from 1 to 65535", None),
            "u32" => ("a whole number", None),
            other => (other, None),
        },
        Error::InvalidBooleanStrict { .. } => ("`true` or `false`", None),
        Error::NullIntoString { .. } => ("text", Some("an empty text is written `\"\"`")),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            (expected.as_str(), None)
        }
        _ => return None,
    })
}

fn syntax(error: &Error, text: &str, at: SourceSpan) -> Diagnostic {
    let line = text[..at.offset()]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let line = text[line..].lines().next().unwrap_or_default();
    let help = if line.contains("${") {
        Some("between `[ ]` or `{ }`, put quotes around `${...}`".to_owned())
    } else if line.contains('\t') {
        Some("indent with blanks".to_owned())
    } else {
        None
    };
    let message = error.to_string();
    // The report already shows the place, so " at line 3, column 5" is removed.
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(message, _)| message);
    Diagnostic::Syntax {
        message: message.to_owned(),
        at,
        help,
    }
}

/// The bytes of a place. Errors of form come with line and column only.
fn place(location: Option<Location>, text: &str) -> SourceSpan {
    let Some(location) = location else {
        return SourceSpan::new(0.into(), 0);
    };
    if location.span().byte_offset().is_some() {
        let span = span_of(location);
        let end = text.len();
        let offset = span.offset().min(end);
        return SourceSpan::new(offset.into(), span.len().min(end - offset));
    }
    let number = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let start: usize = text
        .split_inclusive('\n')
        .take(number(location.line()))
        .map(str::len)
        .sum();
    let column: usize = text[start..]
        .chars()
        .take_while(|character| *character != '\n')
        .take(number(location.column()))
        .map(char::len_utf8)
        .sum();
    SourceSpan::new((start + column).into(), 0)
}

fn slice(text: &str, at: SourceSpan) -> &str {
    text.get(at.offset()..at.offset() + at.len())
        .unwrap_or_default()
        .trim_matches(['"', '\''])
}
