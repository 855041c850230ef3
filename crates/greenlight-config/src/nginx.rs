//! The Nginx of an instance, in plain types.

use super::{Config, InstanceConfig};
use greenlight_protocol::InstanceId;
use greenlight_release::nginx::{ForwardHeaders, NginxPath, ValueError};
use std::path::PathBuf;

/// The placeholder for the instance's name in a path.
pub(super) const INSTANCE: &str = "{instance}";

/// The settings of the Nginx of every server. The paths still contain `{instance}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NginxConfig {
    /// The file that we write.
    pub include: String,
    pub conf: String,
    /// The file with the master's number.
    pub pid: String,
    pub binary: String,
    /// The first instance's port for verifying.
    pub verify_port: u16,
    /// Whether a load balancer is in front of it.
    pub forward_headers: ForwardHeaders,
    /// The group of its workers.
    pub group: Option<String>,
}

/// The Nginx of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceNginx {
    pub binary: PathBuf,
    /// Its main configuration.
    pub conf: PathBuf,
    /// The file with the number of its master.
    pub pid: PathBuf,
    /// The file that we write.
    pub include: NginxPath,
    /// Where its workers say what they serve.
    pub verify_port: u16,
}

impl Default for NginxConfig {
    /// Debian's path.
    fn default() -> Self {
        Self {
            include: "/etc/nginx/conf.d/greenlight.conf".to_owned(),
            conf: "/etc/nginx/nginx.conf".to_owned(),
            pid: "/run/nginx.pid".to_owned(),
            binary: "/usr/sbin/nginx".to_owned(),
            verify_port: 9079,
            forward_headers: ForwardHeaders::No,
            group: None,
        }
    }
}

impl Config {
    /// The Nginx of an instance, whichever front there is.
    pub fn nginx_of(&self, instance: &InstanceConfig) -> Result<InstanceNginx, ValueError> {
        let path = |text: &str| PathBuf::from(filled(text, &instance.name));
        let neighbours = self.instances.iter();
        let before = neighbours
            .take_while(|other| other.name != instance.name)
            .filter(|other| other.host.shares_machine(&instance.host));
        Ok(InstanceNginx {
            binary: path(&self.nginx.binary),
            conf: path(&self.nginx.conf),
            pid: path(&self.nginx.pid),
            include: NginxPath::new(&path(&self.nginx.include))?,
            verify_port: verify_port(self.nginx.verify_port, before.count()),
        })
    }
}

/// The verifying port of the instance that has so many before it on its machine.
pub(super) fn verify_port(first: u16, before: usize) -> u16 {
    first.saturating_add(u16::try_from(before).unwrap_or(u16::MAX))
}

pub(super) fn filled(text: &str, name: &InstanceId) -> String {
    text.replace(INSTANCE, &name.0)
}
