//! What the coordinator remembers across restarts, and the one function that changes it.

use crate::cut_over::{CutOver, Direction};
use crate::id::{DeploymentId, Epoch, InstanceId, ServiceName, Term};
use crate::plan::{Plan, Position};
use crate::policy::Policy;
use crate::release::Release;
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
    Accepted(Box<Order>),
    /// A cut-over began.
    Begun(Box<Begin>),
    /// The cut-over will happen, whatever fails from here on. This is the decision (G5).
    Committed(Epoch),
    /// The cut-over will never happen.
    Aborted {
        /// The cut-over.
        epoch: Epoch,
        /// What a person should read.
        reason: String,
    },
    /// Every participant has switched.
    Settled(Epoch),
    /// The deployment is over.
    Finished {
        /// Which.
        deployment: DeploymentId,
        /// How.
        outcome: Outcome,
    },
    /// Every participant has stopped what was not live.
    Retired(Epoch),
    /// What all earlier records came to. It takes their place; the coordinator never records it.
    Snapshot(Box<Ledger>),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Order {
    /// The deployment's name.
    pub deployment: DeploymentId,
    /// Who asked, in a person's words.
    pub requested_by: String,
    /// What each service is to run. Nothing: it is removed.
    pub releases: BTreeMap<ServiceName, Option<Release>>,
    /// How.
    pub plan: Plan,
    /// Timers and choices.
    pub policy: Policy,
    /// Whether it goes on by itself once all are ready.
    pub promotion: Promotion,
}

impl Order {
    /// By service: the label of the release it brings.
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
pub struct Begin {
    /// Where the plan stands.
    pub position: Position,
    /// What the agents are told.
    pub cut_over: CutOver,
    /// Why the fleet goes back, if it does.
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
    /// The fleet was switched and has gone back; the old release serves everywhere.
    RolledBack {
        /// What a person should read.
        reason: String,
    },
    /// The fleet should have gone back and could not; the new release serves.
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
pub enum Verdict {
    /// Not decided.
    Open,
    /// All switch.
    Committed,
    /// All have switched.
    Settled,
    /// None switches.
    Aborted,
}

/// A deployment as the records describe it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deployment {
    /// What was asked for.
    pub order: Order,
    /// All that was live before, to go back to.
    pub previous: BTreeMap<ServiceName, Release>,
    /// All that was live before that: after a way back it is again the target of a rollback.
    pub earlier: BTreeMap<ServiceName, Release>,
    /// The latest cut-over, and its decision.
    pub latest: Option<(Begin, Verdict)>,
    /// Who has switched to the new release in this deployment.
    pub changed: BTreeSet<InstanceId>,
    /// How many cut-overs back were begun.
    pub back_attempts: u32,
    /// Why the latest cut-over was aborted, or why the fleet goes back.
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
    /// By service: all that it served before, as one set: the target of a rollback.
    pub before: BTreeMap<ServiceName, Release>,
    /// The latest deployment, finished or not.
    pub deployment: Option<Deployment>,
    /// The last cut-over whose old release may still be running.
    pub warm: Option<Warm>,
    /// Decisions of the last epochs.
    pub decided: BTreeMap<Epoch, Verdict>,
}

/// What is left running after a cut-over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Warm {
    /// The cut-over.
    pub epoch: Epoch,
    /// Where.
    pub instances: BTreeSet<InstanceId>,
    /// For how long, as ordered.
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
            CoordinatorRecord::Accepted(order) => self.accept(order),
            CoordinatorRecord::Begun(begin) => self.begin(begin),
            CoordinatorRecord::Committed(epoch) => self.decide(*epoch, Verdict::Committed),
            CoordinatorRecord::Aborted { epoch, reason } => {
                self.decide(*epoch, Verdict::Aborted);
                if let Some(deployment) = &mut self.deployment {
                    deployment.reason = Some(reason.clone());
                }
            }
            CoordinatorRecord::Settled(epoch) => self.settle(*epoch),
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
    pub fn latest(&self) -> Option<(&Begin, Verdict)> {
        let (begin, verdict) = self.active()?.latest.as_ref()?;
        Some((begin, *verdict))
    }

    fn accept(&mut self, order: &Order) {
        self.deployment = Some(Deployment {
            order: order.clone(),
            previous: self.live.clone(),
            earlier: self.before.clone(),
            latest: None,
            changed: BTreeSet::new(),
            back_attempts: 0,
            reason: None,
            outcome: None,
        });
    }

    fn begin(&mut self, begin: &Begin) {
        self.epoch = self.epoch.max(begin.cut_over.epoch);
        self.decided.insert(begin.cut_over.epoch, Verdict::Open);
        while self.decided.len() > DECISIONS_KEPT {
            self.decided.pop_first();
        }
        if let Some(deployment) = &mut self.deployment {
            if begin.cut_over.direction == Direction::Back {
                deployment.back_attempts += 1;
                deployment.reason.clone_from(&begin.reason);
            }
            deployment.latest = Some((begin.clone(), Verdict::Open));
        }
    }

    fn decide(&mut self, epoch: Epoch, verdict: Verdict) {
        if let Some(known) = self.decided.get_mut(&epoch)
            && *known == Verdict::Open
        {
            *known = verdict;
        }
        if let Some((begin, known)) = self.deployment.as_mut().and_then(|d| d.latest.as_mut())
            && begin.cut_over.epoch == epoch
            && *known == Verdict::Open
        {
            *known = verdict;
        }
    }

    fn settle(&mut self, epoch: Epoch) {
        self.decided.insert(epoch, Verdict::Settled);
        let Some(deployment) = &mut self.deployment else {
            return;
        };
        let Some((begin, verdict)) = &mut deployment.latest else {
            return;
        };
        if begin.cut_over.epoch != epoch || *verdict == Verdict::Settled {
            return;
        }
        *verdict = Verdict::Settled;
        let cut_over = begin.cut_over.clone();
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
            // The same once more is nothing to go back from.
            Direction::Forward if self.live == deployment.previous => {}
            Direction::Forward => self.before.clone_from(&deployment.previous),
            // Nobody wants to roll back to what has just failed.
            Direction::Back => self.before.clone_from(&deployment.earlier),
        }
        self.warm = Some(Warm {
            epoch,
            instances: deployment.order.plan.instances(),
            policy: cut_over.policy,
        });
    }
}
