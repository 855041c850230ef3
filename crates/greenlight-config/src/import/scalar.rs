//! Values as `greenlight.yml` writes them, with `${NAME}` where they depend on the environment.
//!
//! Greenlight replaces `${NAME}` in plain text only, never between quotes. So a value with one in
//! it must be plain, and a value without is quoted wherever YAML could take it for something else.

use std::fmt;

/// A value as it is written in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scalar(String);

impl Scalar {
    /// A text that means itself.
    pub(super) fn literal(text: &str) -> Option<Self> {
        match text.contains("${") {
            true => Self::replaced(&text.replace("${", "$${")),
            false => Some(Self::quoted_if_needed(text)),
        }
    }

    /// A text in which `${NAME}` is replaced from the environment; nothing if YAML cannot have it
    /// without quotes.
    pub(super) fn replaced(text: &str) -> Option<Self> {
        if !text.contains("${") {
            return Some(Self::quoted_if_needed(text));
        }
        let plain = !text.contains(": ")
            && !text.contains(" #")
            && !text.contains(char::is_control)
            && !text.ends_with(':')
            && text.trim() == text
            && !text.starts_with(|first| "!&*-?|>@%`\"'#,[]{}:=".contains(first));
        plain.then(|| Self(text.to_owned()))
    }

    fn quoted_if_needed(text: &str) -> Self {
        const WORDS: [&str; 10] = [
            "true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan",
        ];
        let begins = text.starts_with("./")
            || text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
        let simple = |c: char| c.is_ascii_alphanumeric() || "_./@:+=-".contains(c);
        let is_word = WORDS.contains(&text.to_ascii_lowercase().as_str());
        let plain = begins && text.chars().all(simple) && !text.ends_with(':') && !is_word;
        // An address is read by people more than by machines.
        let is_address = text.parse::<std::net::Ipv4Addr>().is_ok();
        match plain || is_address || is_amount(text) {
            true => Self(text.to_owned()),
            // Every JSON string is a valid YAML string.
            false => Self(serde_json::to_string(text).expect("text serialises")),
        }
    }
}

/// Whether a text is numbers with units, such as `1m30s` or `512m`, which YAML takes for nothing
/// else.
fn is_amount(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let after = unit.trim_start_matches("ms");
        let after = match after.len() == unit.len() {
            true => unit.trim_start_matches(['s', 'm', 'h', 'k', 'g', 'M', 'G']),
            false => after,
        };
        if unit.len() == rest.len() || after.len() == unit.len() {
            return false;
        }
        rest = after;
    }
    !text.is_empty()
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Scalar;

    #[test]
    fn what_yaml_could_take_for_something_else_is_quoted() {
        for (text, written) in [
            ("info", "info"),
            ("ghcr.io/acme/shop", "ghcr.io/acme/shop"),
            ("10.0.0.11", "10.0.0.11"),
            ("1m30s", "1m30s"),
            ("512m", "512m"),
            ("1e3", "\"1e3\""),
            ("30", "\"30\""),
            ("true", "\"true\""),
            ("No", "\"No\""),
            ("3000", "\"3000\""),
            ("1.10", "\"1.10\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("*", "\"*\""),
            ("say \"hi\"\n", "\"say \\\"hi\\\"\\n\""),
        ] {
            assert_eq!(Scalar::literal(text).expect(text).to_string(), written);
        }
    }

    #[test]
    fn what_depends_on_the_environment_stays_plain_or_is_refused() {
        let replaced = |text| Scalar::replaced(text).map(|scalar| scalar.to_string());
        let url = "postgres://${USER}:${PASSWORD:-secret}@db/shop";
        assert_eq!(replaced(url).as_deref(), Some(url));
        assert_eq!(replaced("a: ${B}"), None);
        assert_eq!(replaced("*${B}"), None);
        let literal = Scalar::literal("${HOME}/x").map(|scalar| scalar.to_string());
        assert_eq!(literal.as_deref(), Some("$${HOME}/x"));
    }
}
