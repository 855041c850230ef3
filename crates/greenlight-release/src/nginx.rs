//! The values that may appear in a configuration that we write. None can contain Nginx syntax.
//!
//! Nginx gives a meaning to quotes, braces, semicolons, dollars, blanks, backslashes and `#`. None
//! of them is quoted here: a value that has one is refused, because a quoting rule that is wrong
//! once lets text through as configuration.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// The longest path of a unix socket that the kernel takes, without the zero at its end.
const LONGEST_SOCKET: usize = 107;

/// Why a value cannot stand in a configuration of Nginx.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A character that a name cannot have.
    #[error("{0:?} cannot name an upstream of Nginx; use letters, digits, `-` and `_`")]
    NotALabel(String),
    /// A path that is not absolute or has an unusual character.
    #[error(
        "{0:?} cannot stand in a configuration of Nginx; use an absolute path of letters, digits, \
         `.`, `_`, `-` and `/`"
    )]
    NotAPath(String),
    /// Longer than the kernel takes.
    #[error("{0:?} is too long for a unix socket, which takes {LONGEST_SOCKET} bytes")]
    TooLong(String),
}

/// Whether incoming forwarding headers can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardHeaders {
    /// Clients connect directly: what they say of themselves is replaced.
    #[default]
    No,
    /// Only a load balancer connects, so its headers are kept.
    Yes,
}

/// The name of a service, as part of the names of upstreams and files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// An absolute path without anything that would have to be quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NginxPath(String);

impl Label {
    /// Reads a name.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match (1..=63).contains(&text.len()) && text.chars().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(ValueError::NotALabel(text.to_owned())),
        }
    }
}

impl NginxPath {
    /// Reads a path.
    pub fn new(path: &Path) -> Result<Self, ValueError> {
        let shown = || path.display().to_string();
        let text = path.to_str().ok_or_else(|| ValueError::NotAPath(shown()))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        let climbs = text.split('/').any(|part| part == "..");
        match text.starts_with('/') && text.len() > 1 && !climbs && text.chars().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(ValueError::NotAPath(shown())),
        }
    }

    /// Reads the path of a unix socket.
    pub fn socket(path: &Path) -> Result<Self, ValueError> {
        let path = Self::new(path)?;
        match path.0.len() <= LONGEST_SOCKET {
            true => Ok(path),
            false => Err(ValueError::TooLong(path.0)),
        }
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NginxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Label {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        Self::new(&text)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl TryFrom<String> for NginxPath {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        Self::new(Path::new(&text))
    }
}

impl From<NginxPath> for String {
    fn from(path: NginxPath) -> Self {
        path.0
    }
}

impl From<NginxPath> for PathBuf {
    fn from(path: NginxPath) -> Self {
        Self::from(path.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Nginx takes for syntax, and what would end a line or a comment.
    const HOSTILE: [&str; 14] = [
        "a;b",
        "a{b",
        "a}b",
        "a$b",
        "a\"b",
        "a'b",
        "a\\b",
        "a b",
        "a\nb",
        "a\rb",
        "a\tb",
        "a#b",
        "a\0b",
        "a\u{2028}b",
    ];

    #[test]
    fn a_name_with_anything_that_nginx_could_read_as_syntax_is_refused() {
        for text in HOSTILE.into_iter().chain(["", "a/b", "a.b", "é"]) {
            assert_eq!(
                Label::new(text),
                Err(ValueError::NotALabel(text.to_owned()))
            );
        }
        assert!(Label::new("shop-2").is_ok());
    }

    #[test]
    fn a_path_with_anything_that_nginx_could_read_as_syntax_is_refused() {
        let hostile = HOSTILE.map(|text| format!("/run/{text}"));
        let more = [
            "",
            "/",
            "run/gate.sock",
            "/run/../etc/passwd",
            "/run/*.sock",
        ];
        for text in hostile.iter().map(String::as_str).chain(more) {
            assert_eq!(
                NginxPath::new(Path::new(text)),
                Err(ValueError::NotAPath(text.to_owned()))
            );
        }
        assert!(NginxPath::new(Path::new("/run/greenlight/gate_1.sock")).is_ok());
    }

    #[test]
    fn a_socket_that_the_kernel_could_not_name_is_refused() {
        let long = format!("/run/{}", "a".repeat(LONGEST_SOCKET));
        assert!(NginxPath::new(Path::new(&long)).is_ok());
        assert_eq!(
            NginxPath::socket(Path::new(&long)),
            Err(ValueError::TooLong(long))
        );
    }
}
