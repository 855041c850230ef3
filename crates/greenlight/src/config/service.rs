//! One deployable application, in plain types, and its way to a release.

use super::Config;
use crate::health::HealthCheck;
use crate::spec::{PortPair, ServiceSpec};
use greenlight_protocol::{InstanceId, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// One deployable application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The program and its arguments; not empty. `${PORT}` and `${VERSION}` are still in it.
    pub command: Vec<String>,
    /// Its environment.
    pub env: EnvConfig,
    /// The hosts that are routed to it, in small letters; all if empty.
    pub hosts: Vec<String>,
    /// The prefix of the paths that are routed to it; begins with a slash.
    pub path_prefix: String,
    /// How its health is checked.
    pub health: HealthCheck,
    /// How long a request may take in all, waiting at the gate included.
    pub request_timeout: Duration,
}

/// The environment of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvConfig {
    /// Variables and their values. `${PORT}` and `${VERSION}` are still in them.
    pub clear: BTreeMap<String, String>,
    /// Names of variables whose values come from the environment of whoever deploys.
    pub secret: Vec<String>,
}

/// Secrets that the environment does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("the environment lacks {}, named by `env.secret`", listed(names))]
#[diagnostic(help("set it where `greenlight` is started, for example from your secret store"))]
pub struct MissingSecrets {
    /// Their names; at least one.
    pub names: Vec<String>,
}

fn listed(names: &[String]) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    super::suggestion::list(&names, "and")
}

impl EnvConfig {
    /// All variables with their values; `lookup` knows the secrets.
    pub fn reveal(
        &self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, String>, MissingSecrets> {
        let mut all = self.clear.clone();
        let mut missing = Vec::new();
        for name in &self.secret {
            match lookup(name) {
                Some(value) => {
                    all.insert(name.clone(), value);
                }
                None => missing.push(name.clone()),
            }
        }
        match missing.is_empty() {
            true => Ok(all),
            false => Err(MissingSecrets { names: missing }),
        }
    }
}

impl Config {
    /// The settings of each service's release, ready to be sealed with a version. `lookup` knows
    /// the secrets: usually `|name| std::env::var(name).ok()`.
    pub fn specs(
        &self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<ServiceName, ServiceSpec>, MissingSecrets> {
        self.services
            .iter()
            .map(|(name, service)| {
                let spec = ServiceSpec {
                    command: service.command.clone(),
                    env: service.env.reveal(&lookup)?,
                    working_dir: None,
                    health: service.health.clone(),
                    hosts: service.hosts.clone(),
                    path_prefix: service.path_prefix.clone(),
                    request_timeout: service.request_timeout,
                    stop_timeout: self.policy.stop,
                    ports: self.ports_of(name),
                };
                Ok((name.clone(), spec))
            })
            .collect()
    }

    fn ports_of(&self, service: &ServiceName) -> BTreeMap<InstanceId, PortPair> {
        self.instances
            .iter()
            .map(|instance| {
                let pair = instance.ports[service];
                (instance.name.clone(), pair)
            })
            .collect()
    }
}
