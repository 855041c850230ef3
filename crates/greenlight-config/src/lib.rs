//! `greenlight.yml`: the users' description of their fleet and of what is deployed to it.
//!
//! ```text
//!   text ──parse──▶ File ──resolve──▶ Config          in plain types, defaults filled in
//!             │               │
//!             └── ConfigError ┘                        file, line, caret, what to do
//! ```
//!
//! Strict, because a setting that is silently ignored is found in production: unknown and
//! repeated keys, wrong types, ports that collide and times that make no sense are all refused,
//! each at its place. [`file::File`] is the file as written, and the source of the JSON schema
//! that editors use; [`Config`] is what the program works with.
//!
//! Deliberately absent: secrets (only their names are here), DNS, and any look at the fleet.

pub mod diagnostic;
pub mod error;
pub mod file;
pub mod host;
pub mod import;
pub mod located;

mod interpolation;
mod nginx;
mod parse;
mod resolve;
pub mod secret_source;
mod service;
mod setup;
mod suggestion;

#[cfg(test)]
mod tests;

pub use diagnostic::Diagnostic;
pub use error::{ConfigError, Diagnostics};
pub use host::{Host, ResolveError};
pub use nginx::{InstanceNginx, NginxConfig};
pub use service::{EnvConfig, RegistryConfig, ServiceConfig};
pub use setup::{SERVER_PORT, SetupConfig, SshConfig};

use greenlight_protocol::{InstanceId, Policy, ServiceName, Strategy};
use greenlight_release::front::FrontKind;
use greenlight_release::ports::RequestedPorts;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// The default name of the file.
pub const DEFAULT_FILE: &str = "greenlight.yml";

/// What `greenlight.yml` says, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is deployed; at least one. Several cut over together.
    pub services: BTreeMap<ServiceName, ServiceConfig>,
    /// The fleet, in the order of the file; at least one.
    pub instances: Vec<InstanceConfig>,
    /// What receives user traffic, on every instance.
    pub front: FrontKind,
    /// The Nginx of every instance, if that is the front.
    pub nginx: NginxConfig,
    /// How a deployment proceeds over the fleet.
    pub strategy: Strategy,
    /// The timers and choices of its cut-overs.
    pub policy: Policy,
    /// What images are pulled with; what each instance has of its own if none.
    pub registry: Option<RegistryConfig>,
    /// How the fleet is installed.
    pub setup: SetupConfig,
}

/// One machine of the fleet, or one of several instances on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceConfig {
    /// What it is called: as configured, or its host, with the port if hosts repeat.
    pub name: InstanceId,
    /// Where it is.
    pub host: Host,
    /// The public port of its proxy.
    pub port: u16,
    /// The local ports of the two slots of each service.
    pub ports: BTreeMap<ServiceName, RequestedPorts>,
}

impl InstanceConfig {
    /// Its public address, `host:port`.
    pub(crate) fn front(&self) -> String {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => format!("{ip}:{}", self.port),
            Host::Name(name) => format!("{name}:{}", self.port),
        }
    }
}

/// The JSON schema of the file, in draft 7, which is what editors' YAML support understands.
pub fn schema() -> schemars::Schema {
    let settings = schemars::generate::SchemaSettings::draft07();
    settings
        .into_generator()
        .into_root_schema_for::<file::File>()
}

impl Config {
    /// Reads a file, with `${NAME}` from the environment of this process.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            let path = path.to_owned();
            if source.kind() == std::io::ErrorKind::NotFound {
                ConfigError::Missing { path }
            } else {
                ConfigError::Unreadable { path, source }
            }
        })?;
        // Variables that are not UTF-8 cannot be meant by a file that is.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::parse(&path.display().to_string(), &text, variables)
    }

    /// Reads a text. `file` is its name in diagnostics, `variables` what `${NAME}` is replaced
    /// from.
    pub fn parse(
        file: &str,
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // A byte order mark would shift every place by one column.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let faulty = |diagnostics| {
            ConfigError::Faulty(Box::new(
                Diagnostics::of(file, text, diagnostics)
                    .expect("a refusal has at least one diagnostic"),
            ))
        };
        let read = parse::parse(text, variables).map_err(|diagnostic| faulty(vec![diagnostic]))?;
        resolve::resolve(&read, text).map_err(faulty)
    }

    /// The instance of that name.
    pub fn instance(&self, name: &InstanceId) -> Option<&InstanceConfig> {
        self.instances
            .iter()
            .find(|instance| instance.name == *name)
    }
}
