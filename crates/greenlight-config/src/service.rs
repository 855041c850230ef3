//! One deployable application, in plain types, and its way to a release.

use super::Config;
use crate::secret_source::{SecretError, SecretSource};
use greenlight_protocol::policy::PeerChecks;
use greenlight_protocol::{InstanceId, ServiceName};
use greenlight_release::front::FrontKind;
use greenlight_release::health::HealthCheck;
use greenlight_release::ports::{RequestedAddresses, RequestedPorts};
use greenlight_release::secret::{RegistryLogin, Secrets};
use greenlight_release::spec::image::is_specific;
use greenlight_release::spec::{Artifact, ServiceSpec};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// One deployable application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// What runs. `${PORT}` and `${VERSION}` are still in it, and an image may lack its tag.
    pub artifact: Artifact,
    /// Its environment.
    pub env: EnvConfig,
    /// The hosts that are routed to it, in small letters; all if empty.
    pub hosts: Vec<String>,
    /// The prefix of the paths that are routed to it; begins with a slash.
    pub path_prefix: String,
    /// How its health is checked.
    pub health: HealthCheck,
    /// How long a request may wait in all, at the gate and for an application that is away.
    pub request_timeout: Duration,
}

/// The environment of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvConfig {
    /// Variables and their values. `${PORT}` and `${VERSION}` are still in them.
    pub clear: BTreeMap<String, String>,
    /// By name: where the deploy command reads the value.
    pub secret: BTreeMap<String, SecretSource>,
}

/// The registry that images are pulled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Its host.
    pub server: String,
    /// The user name.
    pub username: String,
    /// Where the password comes from.
    pub password: SecretSource,
}

impl Config {
    /// The settings of each service's release, for a release of this label. Not yet in them: the
    /// fingerprints of secrets, and what the names of images stand for.
    pub fn specs(&self, version: &str) -> BTreeMap<ServiceName, ServiceSpec> {
        let specs = self.services.iter().map(|(name, service)| {
            let spec = ServiceSpec {
                artifact: tagged(&service.artifact, version),
                env: service.env.clear.clone(),
                secrets: BTreeMap::new(),
                health: service.health.clone(),
                hosts: service.hosts.clone(),
                path_prefix: service.path_prefix.clone(),
                request_timeout: service.request_timeout,
                stop_timeout: self.policy.stop,
            };
            (name.clone(), spec)
        });
        specs.collect()
    }

    /// The secrets of each service's release. Relative paths begin at `home`; `lookup` is the
    /// environment.
    pub fn secrets(
        &self,
        home: &Path,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<ServiceName, Secrets>, SecretError> {
        let registry = match &self.registry {
            None => None,
            Some(registry) => Some(RegistryLogin {
                server: registry.server.clone(),
                username: registry.username.clone(),
                password: registry.password.read("registry.password", home, &lookup)?,
            }),
        };
        let mut all = BTreeMap::new();
        for (name, service) in &self.services {
            let mut env = BTreeMap::new();
            for (variable, source) in &service.env.secret {
                env.insert(variable.clone(), source.read(variable, home, &lookup)?);
            }
            let registry = match service.artifact {
                Artifact::Command { .. } => None,
                Artifact::Image(_) => registry.clone(),
            };
            all.insert(name.clone(), Secrets { env, registry });
        }
        Ok(all)
    }

    /// What the file says of where each instance is reached.
    pub fn addresses(&self) -> BTreeMap<InstanceId, RequestedAddresses> {
        let instances = self.instances.iter().map(|instance| {
            let ports = instance.ports.iter();
            let ports = ports.map(|(service, ports)| {
                // Nginx goes to the slots itself, so its file has their ports.
                let ports = match self.front {
                    FrontKind::Builtin | FrontKind::Nginx => *ports,
                    FrontKind::NginxReload => RequestedPorts::Named(ports.pair()),
                };
                (service.clone(), ports)
            });
            let requested = RequestedAddresses {
                ports: ports.collect(),
                front: match self.policy.peer_checks {
                    PeerChecks::Yes => Some(instance.front()),
                    PeerChecks::No => None,
                },
            };
            (instance.name.clone(), requested)
        });
        instances.collect()
    }
}

/// An image without a tag means the one that is tagged with the release's version, as in Kamal.
fn tagged(artifact: &Artifact, version: &str) -> Artifact {
    match artifact {
        Artifact::Image(image) if !is_specific(&image.image) => {
            let mut image = image.clone();
            image.image = format!("{}:{version}", image.image);
            Artifact::Image(image)
        }
        Artifact::Image(_) | Artifact::Command { .. } => artifact.clone(),
    }
}
