//! What is deployed, and where on an instance it runs.

use crate::id::{Epoch, ServiceName};
pub use greenlight_gate::Color;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An immutable thing to run: an artifact and its settings, with a version for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Release {
    /// The name that people use, for example a git revision.
    pub version: String,
    /// Hash over `spec`: two releases are the same if and only if this is.
    pub digest: String,
    /// What the runtime driver needs to start it; opaque here.
    pub spec: String,
}

/// One color's place for one service on one instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    pub service: ServiceName,
    pub color: Color,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.color)
    }
}

/// What a service's slot holds by decision: the live release, or the warm one before it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LiveRelease {
    /// Where it runs.
    pub color: Color,
    pub release: Release,
    /// The cut-over that made it live.
    pub epoch: Epoch,
}

impl LiveRelease {
    /// The slot of this service that it runs in.
    pub fn slot(&self, service: &ServiceName) -> Slot {
        Slot {
            service: service.clone(),
            color: self.color,
        }
    }
}
