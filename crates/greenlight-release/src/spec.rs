//! The settings of a release: the part that the protocol carries without reading it.
//!
//! A release is immutable, so everything that an agent needs to run and route it travels with it:
//! the command or image, the environment, and the check.
//!
//! Deliberately absent: ports and addresses, which belong to an instance (see [`crate::ports`]), so
//! that the same release has the same digest on any fleet; and the values of secrets. A release
//! carries their names and a fingerprint over each value, so that a changed secret is a changed
//! release; see [`crate::secret`].

pub mod image;
mod version;

pub use image::{Cpus, ImageSpec, LogOptions, Memory, Pin, Restart};
pub use version::{VersionError, check_version};

use crate::health::HealthCheck;
use crate::secret::SecretFingerprint;
use greenlight_protocol::Release;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The settings of one service's release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub artifact: Artifact,
    /// The environment; `${PORT}` and `${VERSION}` are replaced in its values.
    pub env: BTreeMap<String, String>,
    /// By name: the fingerprint of each secret variable. The values travel apart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretFingerprint>,
    /// How its health is checked.
    pub health: HealthCheck,
    /// Hosts that are routed to the service; all if empty.
    pub hosts: Vec<String>,
    /// The prefix of the paths that are routed to the service.
    pub path_prefix: String,
    /// How long a request may wait in all, at the gate and for an application that is away.
    pub request_timeout: Duration,
    /// How long the application has between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}

/// What runs: a program of the instance, or a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifact {
    /// A program.
    Command {
        /// The program and its arguments; `${PORT}` and `${VERSION}` are replaced.
        command: Vec<String>,
        /// Where it runs; the agent's own directory if none.
        working_dir: Option<String>,
    },
    /// A container.
    Image(Box<ImageSpec>),
}

impl Artifact {
    /// A program that runs where the agent does.
    pub fn command(command: Vec<String>) -> Self {
        Self::Command {
            command,
            working_dir: None,
        }
    }

    /// Whether a command is to be run before the switch.
    pub fn has_before_switch(&self) -> bool {
        match self {
            Self::Command { .. } => false,
            Self::Image(image) => image.before_switch.is_some(),
        }
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { command, .. } => f.write_str(&command.join(" ")),
            Self::Image(image) => image.fmt(f),
        }
    }
}

/// Why a release's settings cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the settings of release `{version}` cannot be read; was it made by a newer greenlight?")]
pub struct SpecError {
    version: String,
    #[source]
    source: serde_json::Error,
}

impl ServiceSpec {
    /// Makes a release of the settings. The same settings and label give the same digest.
    pub fn to_release(&self, version: &str) -> Release {
        let spec = serde_json::to_string(self).expect("plain data serialises");
        let mut hashed = version.as_bytes().to_vec();
        hashed.push(0);
        hashed.extend_from_slice(spec.as_bytes());
        Release {
            version: version.to_owned(),
            digest: crate::digest::sha256_hex(&hashed),
            spec,
        }
    }

    /// Reads the settings of a release.
    pub fn from_release(release: &Release) -> Result<Self, SpecError> {
        serde_json::from_str(&release.spec).map_err(|source| SpecError {
            version: release.version.clone(),
            source,
        })
    }
}
