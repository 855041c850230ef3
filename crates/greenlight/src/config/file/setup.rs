//! The section `setup`: how `greenlight setup` reaches the machines.

use crate::config::located::Located;
use schemars::JsonSchema;
use serde::Deserialize;

/// How `greenlight setup` installs the fleet.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Setup")]
pub struct SetupSection {
    /// Where the coordinator runs: `host` or `host:port`. The first of `servers` unless given;
    /// the port is 9700 unless given.
    pub server: Option<Located<String>>,
    /// What `ssh` is told beyond its own configuration.
    pub ssh: Option<Located<SshSection>>,
}

/// What `ssh` is told beyond its own configuration.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ssh")]
pub struct SshSection {
    /// Who logs in: root, or someone who may use `sudo` without a password.
    pub user: Option<Located<String>>,
    /// The port of the SSH server.
    #[schemars(range(min = 1))]
    pub port: Option<Located<u16>>,
    /// The file with the private key.
    pub identity: Option<Located<String>>,
    /// Options as for `ssh -o`: `ProxyJump=bastion.example.com`.
    pub options: Option<Located<Vec<Located<String>>>>,
}
