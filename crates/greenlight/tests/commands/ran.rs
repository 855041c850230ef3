//! A command that has been run.

use std::fmt;
use std::process::Output;

/// How a command ended and what it said.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) data: String,
    pub(crate) talk: String,
}

impl Ran {
    /// It ended with this code.
    #[track_caller]
    pub(crate) fn ended(&self, code: i32) {
        assert_eq!(self.code, code, "{self}");
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            data: String::from_utf8_lossy(&output.stdout).into_owned(),
            talk: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}\n{}\n{}", self.code, self.data, self.talk)
    }
}
