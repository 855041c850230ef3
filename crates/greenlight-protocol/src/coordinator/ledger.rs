//! What the coordinator remembers across restarts, and the one function that changes it.

use crate::cut_over::{CutOver, Direction};
use crate::id::{DeploymentId, Epoch, InstanceId, ServiceName, Term};
use crate::policy::Policy;
use crate::release::Release;
use crate::strategy::{Plan, Position};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Decisions kept for instances that come back after a long absence.
const DECISIONS_KEPT: usize = 64;

/// What the coordinator makes durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoordinatorRecord {
    /// A coordinator started with this term.
    TermStarted(Term),
    /// A deployment was accepted.
    Accepted(Box<DeploymentRequest>),
    CutOverStarted(Box<CutOverStarted>),
    /// The cut-over will be completed, whatever fails from here on. This is the decision (G5).
    Committed(Epoch),
    /// The cut-over will never happen.
    Aborted {
        epoch: Epoch,
        /// What a person should read.
        reason: String,
    },
    /// Every participant has switched: the cut-over is complete.
    Completed(Epoch),
    /// The deployment is over.
    Finished {
        deployment: DeploymentId,
        outcome: Outcome,
    },
    /// Every participant has stopped what was not live.
    Retired(Epoch),
    /// What all earlier records came to. It takes their place; the coordinator never records it.
    Snapshot(Box<Ledger>),
}

/// What a person asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeploymentRequest {
    pub deployment: DeploymentId,
    /// The person who requested it, as text.
    pub requested_by: String,
    /// What each service is to run. Nothing: it is removed.
    pub releases: BTreeMap<ServiceName, Option<Release>>,
    pub plan: Plan,
    /// Timers and choices.
    pub policy: Policy,
    /// Whether it continues automatically when all are ready.
    pub promotion: Promotion,
}

impl DeploymentRequest {
    /// By service: the version of the release that it deploys.
    pub fn versions(&self) -> BTreeMap<ServiceName, String> {
        let releases = self.releases.iter();
        releases
            .filter_map(|(service, release)| {
                Some((service.clone(), release.as_ref()?.version.clone()))
            })
            .collect()
    }

    /// The services that it removes.
    pub fn removed(&self) -> BTreeSet<ServiceName> {
        let releases = self.releases.iter();
        let removed = releases.filter(|(_, release)| release.is_none());
        removed.map(|(service, _)| service.clone()).collect()
    }
}

/// Whether a prepared deployment waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    /// Cut over as soon as all are ready.
    Automatic,
    /// Wait for `promote`.
    Manual,
}

/// The start of one cut-over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CutOverStarted {
    /// Where the plan stands.
    pub position: Position,
    /// The content of the directives.
    pub cut_over: CutOver,
    /// Why the fleet is rolled back, if it is.
    pub reason: Option<String>,
}

/// How a deployment ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The new release serves everywhere.
    Promoted,
    /// Nothing was switched; the old release serves everywhere.
    Aborted {
        /// What a person should read.
        reason: String,
    },
    /// The fleet was switched and rolled back; the old release serves everywhere.
    RolledBack {
        /// What a person should read.
        reason: String,
    },
    /// The rollback failed for good; the new release serves.
    Stuck {
        /// What a person should read.
        reason: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promoted => f.write_str("promoted"),
            Self::Aborted { reason } => write!(f, "aborted: {reason}"),
            Self::RolledBack { reason } => write!(f, "rolled back: {reason}"),
            Self::Stuck { reason } => write!(f, "stuck: {reason}"),
        }
    }
}

/// The decision of a cut-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Not decided.
    Open,
    /// All switch.
    Committed,
    /// All have switched.
    Completed,
    /// None switches.
    Aborted,
}

/// A deployment as the records describe it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deployment {
    /// What was asked for.
    pub request: DeploymentRequest,
    /// All that was live before the deployment: what a rollback of it restores.
    pub rollback_target: BTreeMap<ServiceName, Release>,
    /// The ledger's rollback target before the deployment: after a rollback it is the target again.
    pub previous_rollback_target: BTreeMap<ServiceName, Release>,
    /// The latest cut-over; its decision is in the ledger.
    pub latest: Option<CutOverStarted>,
    /// The instances that have switched to the new release in this deployment.
    pub changed: BTreeSet<InstanceId>,
    /// How many rollbacks of this deployment were started.
    pub rollback_attempts: u32,
    /// Why the latest cut-over was aborted, or why the fleet is rolled back.
    pub reason: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// The coordinator's durable state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ledger {
    /// This coordinator's incarnation.
    pub term: Term,
    /// The last epoch used.
    pub epoch: Epoch,
    /// By service: what the fleet serves by decision.
    pub live: BTreeMap<ServiceName, Release>,
    /// By service: all that the fleet served before, as one set: what a rollback restores.
    pub rollback_target: BTreeMap<ServiceName, Release>,
    /// The latest deployment, finished or not.
    pub deployment: Option<Deployment>,
    /// The last cut-over whose old release may still be running.
    pub warm: Option<Warm>,
    /// Decisions of the last epochs.
    pub decided: BTreeMap<Epoch, Decision>,
}

/// What is left running after a cut-over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Warm {
    pub epoch: Epoch,
    pub instances: BTreeSet<InstanceId>,
    /// For how long, as requested.
    pub policy: Policy,
}

impl Ledger {
    /// The state that these records leave.
    pub fn replay(records: &[CoordinatorRecord]) -> Self {
        let mut ledger = Self::default();
        for record in records {
            ledger.apply(record);
        }
        ledger
    }

    /// Changes the state by one record. A record that does not fit changes nothing: it can only
    /// be a repetition.
    pub fn apply(&mut self, record: &CoordinatorRecord) {
        match record {
            CoordinatorRecord::TermStarted(term) => self.term = self.term.max(*term),
            CoordinatorRecord::Accepted(request) => self.accept(request),
            CoordinatorRecord::CutOverStarted(started) => self.start(started),
            CoordinatorRecord::Committed(epoch) => self.decide(*epoch, Decision::Committed),
            CoordinatorRecord::Aborted { epoch, reason } => {
                self.decide(*epoch, Decision::Aborted);
                if let Some(deployment) = &mut self.deployment {
                    deployment.reason = Some(reason.clone());
                }
            }
            CoordinatorRecord::Completed(epoch) => self.complete(*epoch),
            CoordinatorRecord::Finished { outcome, .. } => {
                if let Some(deployment) = &mut self.deployment {
                    deployment.outcome = Some(outcome.clone());
                }
            }
            CoordinatorRecord::Retired(epoch) => {
                self.warm.take_if(|warm| warm.epoch <= *epoch);
            }
            CoordinatorRecord::Snapshot(ledger) => self.clone_from(ledger),
        }
    }

    /// The deployment under way.
    pub fn active(&self) -> Option<&Deployment> {
        self.deployment.as_ref().filter(|d| d.outcome.is_none())
    }

    /// The latest cut-over of the deployment under way, and its decision.
    pub fn latest(&self) -> Option<(&CutOverStarted, Decision)> {
        let started = self.active()?.latest.as_ref()?;
        let decision = self.decided.get(&started.cut_over.epoch);
        Some((started, decision.copied().unwrap_or(Decision::Open)))
    }

    fn accept(&mut self, request: &DeploymentRequest) {
        self.deployment = Some(Deployment {
            request: request.clone(),
            rollback_target: self.live.clone(),
            previous_rollback_target: self.rollback_target.clone(),
            latest: None,
            changed: BTreeSet::new(),
            rollback_attempts: 0,
            reason: None,
            outcome: None,
        });
    }

    fn start(&mut self, started: &CutOverStarted) {
        self.epoch = self.epoch.max(started.cut_over.epoch);
        self.decided.insert(started.cut_over.epoch, Decision::Open);
        while self.decided.len() > DECISIONS_KEPT {
            self.decided.pop_first();
        }
        if let Some(deployment) = &mut self.deployment {
            if started.cut_over.direction == Direction::Back {
                deployment.rollback_attempts += 1;
                deployment.reason.clone_from(&started.reason);
            }
            deployment.latest = Some(started.clone());
        }
    }

    fn decide(&mut self, epoch: Epoch, decision: Decision) {
        if let Some(known) = self.decided.get_mut(&epoch)
            && *known == Decision::Open
        {
            *known = decision;
        }
    }

    fn complete(&mut self, epoch: Epoch) {
        if self.decided.insert(epoch, Decision::Completed) == Some(Decision::Completed) {
            return;
        }
        let Some(deployment) = &mut self.deployment else {
            return;
        };
        let started = deployment.latest.as_ref();
        let Some(started) = started.filter(|started| started.cut_over.epoch == epoch) else {
            return;
        };
        let cut_over = started.cut_over.clone();
        match cut_over.direction {
            Direction::Forward => deployment.changed.extend(cut_over.participants.clone()),
            Direction::Back => deployment.changed.clear(),
        }
        for (service, release) in cut_over.releases {
            match release {
                Some(release) => self.live.insert(service, release),
                None => self.live.remove(&service),
            };
        }
        match cut_over.direction {
            // The same set once more leaves nothing to roll back.
            Direction::Forward if self.live == deployment.rollback_target => {}
            Direction::Forward => self.rollback_target.clone_from(&deployment.rollback_target),
            // What has just failed is no rollback target.
            Direction::Back => self
                .rollback_target
                .clone_from(&deployment.previous_rollback_target),
        }
        self.warm = Some(Warm {
            epoch,
            instances: deployment.request.plan.instances(),
            policy: cut_over.policy,
        });
    }
}
