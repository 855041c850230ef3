//! What cannot be carried over, and why.

use serde::Serialize;

/// One thing that `greenlight.yml` has no place for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unsupported {
    /// Its position in the file: keys with dots between them.
    pub what: String,
    /// Why it is left out, and what to do about it.
    pub why: String,
}

/// All that cannot be carried over, in the order in which it was met.
#[derive(Clone, Debug, Default)]
pub struct UnsupportedKeys(Vec<Unsupported>);

impl UnsupportedKeys {
    /// Adds one.
    pub fn add(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let entry = Unsupported {
            what: what.into(),
            why: why.into(),
        };
        if !self.0.contains(&entry) {
            self.0.push(entry);
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Unsupported] {
        &self.0
    }
}
