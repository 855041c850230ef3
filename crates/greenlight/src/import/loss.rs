//! What cannot be carried over, and why.

use serde::Serialize;

/// One thing that `greenlight.yml` has no place for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Where it stands in the file: keys with dots between them.
    pub what: String,
    /// Why it is left out, and what to do about it.
    pub why: String,
}

/// All that cannot be carried over, in the order in which it was met.
#[derive(Clone, Debug, Default)]
pub struct Losses(Vec<Loss>);

impl Losses {
    /// Adds one.
    pub fn add(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let loss = Loss {
            what: what.into(),
            why: why.into(),
        };
        if !self.0.contains(&loss) {
            self.0.push(loss);
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Loss] {
        &self.0
    }
}
