//! One change of routing made by a set of instances together.

use crate::id::{DeploymentId, Epoch, InstanceId, ServiceName};
use crate::policy::Policy;
use crate::release::Release;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a cut-over deploys new releases, or rolls the fleet back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the releases of the deployment.
    Forward,
    /// To the releases that were live before: a rollback.
    Back,
}

/// Everything that an agent must know of a cut-over, also after a restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CutOver {
    pub epoch: Epoch,
    /// The deployment that it belongs to.
    pub deployment: DeploymentId,
    /// Whether it goes forward or back.
    pub direction: Direction,
    /// All participants; an agent in doubt asks them.
    pub participants: BTreeSet<InstanceId>,
    /// What each service cuts over to: they change as one set. Nothing: it is removed.
    pub releases: BTreeMap<ServiceName, Option<Release>>,
    /// Timers and choices.
    pub policy: Policy,
}

impl CutOver {
    /// The releases that are to be live after it; a service that is removed has none.
    pub fn new_releases(&self) -> impl Iterator<Item = (&ServiceName, &Release)> {
        let releases = self.releases.iter();
        releases.filter_map(|(service, release)| Some((service, release.as_ref()?)))
    }

    /// Whether a release of this service is to be live after it.
    pub fn deploys(&self, service: &ServiceName) -> bool {
        matches!(self.releases.get(service), Some(Some(_)))
    }
}
