//! Which driver runs an application, in the words of the command line.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What runs an application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// A process of this machine.
    #[default]
    Process,
    /// A container, through the Docker API.
    Docker,
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Docker => "docker",
        })
    }
}
