//! What the configuration file wants of one instance, as the doctor needs it.

use greenlight_config::{Config, InstanceConfig};
use greenlight_protocol::ServiceName;
use greenlight_release::front::FrontKind;
use greenlight_release::nginx::{ForwardHeaders, ValueError};
use greenlight_release::spec::{Artifact, PortPair};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the file wants of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// What receives user traffic.
    pub front: FrontKind,
    /// The public port.
    pub port: u16,
    /// What is deployed there.
    pub services: BTreeMap<ServiceName, ExpectedService>,
    /// The Nginx, if that is the front.
    pub nginx: Option<ExpectedNginx>,
}

/// One service there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedService {
    /// The ports of its slots.
    pub ports: PortPair,
    /// The image, if it runs in containers.
    pub image: Option<String>,
    /// The most memory one copy may use, in bytes.
    pub memory: Option<u64>,
}

/// The Nginx there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedNginx {
    pub binary: PathBuf,
    /// Its main configuration.
    pub conf: PathBuf,
    /// The file with its master's number.
    pub pid: PathBuf,
    /// Our file, which it includes.
    pub include: PathBuf,
    /// Where its workers say what they serve.
    pub verify_port: u16,
    /// Whether a load balancer is in front of it.
    pub forward_headers: ForwardHeaders,
}

impl Expected {
    /// What a file wants of one of its instances.
    pub fn of(config: &Config, instance: &InstanceConfig) -> Result<Self, ValueError> {
        let services = config.services.iter().map(|(name, service)| {
            let (image, memory) = match &service.artifact {
                Artifact::Command { .. } => (None, None),
                Artifact::Image(image) => {
                    let memory = image.memory.map(|memory| memory.0);
                    (Some(image.image.clone()), memory)
                }
            };
            let expected = ExpectedService {
                ports: instance.ports[name],
                image,
                memory,
            };
            (name.clone(), expected)
        });
        let nginx = match config.front {
            FrontKind::Builtin => None,
            FrontKind::Nginx | FrontKind::NginxReload => {
                let at = config.nginx_of(instance)?;
                Some(ExpectedNginx {
                    binary: at.binary,
                    conf: at.conf,
                    pid: at.pid,
                    include: at.include.as_path().to_owned(),
                    verify_port: at.verify_port,
                    forward_headers: config.nginx.forward_headers,
                })
            }
        };
        Ok(Self {
            front: config.front,
            port: instance.port,
            services: services.collect(),
            nginx,
        })
    }

    /// Whether anything runs in containers.
    pub(super) fn has_images(&self) -> bool {
        self.services.values().any(|s| s.image.is_some())
    }
}
