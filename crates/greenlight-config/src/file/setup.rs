//! The section `setup`: how `greenlight setup` reaches the machines.

use crate::located::Located;
use schemars::JsonSchema;
use serde::Deserialize;

/// How `greenlight setup` installs the fleet.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Setup")]
pub struct SetupSection {
    /// Where the coordinator runs: `host` or `host:port`. Default: the first of `servers`, port
    /// 9700.
    pub server: Option<Located<String>>,
    /// Options for `ssh`, in addition to its own configuration.
    pub ssh: Option<Located<SshSection>>,
}

/// Options for `ssh`, in addition to its own configuration.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ssh")]
pub struct SshSection {
    /// The user that logs in: root, or a user whose `sudo` asks for no password.
    pub user: Option<Located<String>>,
    /// The port of the SSH server.
    #[schemars(range(min = 1))]
    pub port: Option<Located<u16>>,
    /// The file with the private key.
    pub identity: Option<Located<String>>,
    /// Values for `ssh -o`: `ProxyJump=bastion.example.com`.
    pub options: Option<Located<Vec<Located<String>>>>,
}
