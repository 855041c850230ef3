//! `${NAME}` in the file: from the environment now, or from the runtime later.
//!
//! As the parser has it, plain values are interpolated when the file is read: `${NAME}`,
//! `${NAME:-default}`, `${NAME:?reason}`, `$${NAME}` for the text itself. Quoted values stay as
//! they are. Two names are not the environment's: `${PORT}` and `${VERSION}` differ by slot and
//! release, so they stand for themselves here and the runtime replaces them in `command` and
//! `env`, quoted or not.
//!
//! Compose replaces inside quotes too. Users who expect that must not get a literal `${…}` in
//! silence: everywhere but in `command`, where a shell may want it, that is a diagnostic.

use super::diagnostic::Diagnostic;
use super::located::Located;
use std::collections::HashMap;

/// What the runtime replaces when it starts a release.
const LATER: [&str; 2] = ["PORT", "VERSION"];

/// The parser's properties for an environment.
pub(super) fn properties(
    variables: impl IntoIterator<Item = (String, String)>,
) -> HashMap<String, String> {
    let later = LATER.map(|name| (name.to_owned(), format!("${{{name}}}")));
    variables.into_iter().chain(later).collect()
}

/// What may be left of `${…}` in a value after reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    /// Nothing is wrong: the text is used unchanged.
    Nothing,
    /// `${PORT}` and `${VERSION}`: the runtime replaces them.
    Later,
}

/// Refuses a `${…}` that would never be replaced. `text` is the whole file.
pub(super) fn check(
    value: &Located<String>,
    allowed: Leftover,
    text: &str,
) -> Result<(), Diagnostic> {
    for reference in references(&value.value) {
        let name = &reference[2..reference.len() - 1];
        let later = LATER.contains(&name);
        if later && allowed == Leftover::Later {
            continue;
        }
        let quoted = text[value.at.offset()..].starts_with(['"', '\'', '|', '>']);
        let help = if later {
            format!("`{name}` is known only when a release starts; use it in `command` and `env`")
        } else if quoted {
            format!(
                "quoted text is taken as it is; remove the quotes, and `{reference}` is \
                     replaced from the environment"
            )
        } else {
            // `$${NAME}` is allowed only in commands and in the application's environment.
            if allowed == Leftover::Later {
                continue;
            }
            "remove one `$`, and it is replaced from the environment".to_owned()
        };
        return Err(Diagnostic::NotReplaced {
            text: reference.to_owned(),
            at: value.at,
            help,
        });
    }
    Ok(())
}

/// Every `${…}` of a text.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("${").filter_map(|(start, _)| {
        let end = text[start..].find('}')?;
        Some(&text[start..=start + end])
    })
}
