//! How the machines are reached for installation, in plain types.

use super::Host;

/// Where servers listen unless told otherwise.
pub const SERVER_PORT: u16 = 9700;

/// The settings for installing the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupConfig {
    /// The machine of the coordinator.
    pub server: Host,
    /// Where it listens there.
    pub port: u16,
    /// How the machines are reached.
    pub ssh: SshConfig,
}

/// Options for `ssh`, in addition to its own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshConfig {
    /// The user that logs in.
    pub user: Option<String>,
    pub port: Option<u16>,
    /// The file with the private key.
    pub identity: Option<String>,
    /// What `-o` takes.
    pub options: Vec<String>,
}
