//! Strategy as data: every strategy compiles to a plan, and one machine runs the plan.
//!
//! A plan is a list of waves; a wave is the instances that change together and the steps they
//! take together; a step is the share of traffic that the new release has after it.
//! Blue/green is one wave with one step to all traffic. Rolling is many waves with one step.
//! A canary is one wave with many steps. Each step is one cut-over, through the same barrier.

use crate::id::InstanceId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How a deployment proceeds over the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All instances at once.
    BlueGreen,
    /// `parallelism` instances at a time; G1 does not apply between waves.
    Rolling {
        /// Instances a wave, at least 1.
        parallelism: usize,
    },
}

/// The share of users that a release serves after a step, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(pub u8);

impl Share {
    /// Every request.
    pub const ALL: Self = Self(100);
}

/// The instances that change together, and the steps they take.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wave {
    /// The instances that change.
    pub instances: BTreeSet<InstanceId>,
    /// The new release's share after each step; the last one is [`Share::ALL`].
    pub steps: Vec<Share>,
}

/// What a strategy compiles to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// The strategy it came from.
    pub strategy: Strategy,
    /// The waves, in order.
    pub waves: Vec<Wave>,
}

/// A deployment's position in its plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Index of the wave.
    pub wave: usize,
    /// Index of the step within the wave.
    pub step: usize,
}

/// Why a plan cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The fleet is empty.
    #[error("the fleet has no instances; list at least one under `servers`")]
    NoInstances,
    /// Rolling with no one in a wave.
    #[error("`parallelism` is 0; a wave needs at least one instance")]
    EmptyWave,
    /// A step that splits traffic between two releases.
    #[error("a step to {share} % needs a gate that splits traffic; this version has none")]
    SplitTraffic {
        /// The share asked for.
        share: u8,
    },
}

impl Plan {
    /// Compiles a strategy for a fleet; pure, and the same for the same input.
    pub fn compile(
        strategy: Strategy,
        instances: &BTreeSet<InstanceId>,
    ) -> Result<Self, PlanError> {
        if instances.is_empty() {
            return Err(PlanError::NoInstances);
        }
        let size = match strategy {
            Strategy::BlueGreen => instances.len(),
            Strategy::Rolling { parallelism: 0 } => return Err(PlanError::EmptyWave),
            Strategy::Rolling { parallelism } => parallelism,
        };
        let all: Vec<_> = instances.iter().cloned().collect();
        let waves = all
            .chunks(size)
            .map(|wave| Wave {
                instances: wave.iter().cloned().collect(),
                steps: vec![Share::ALL],
            })
            .collect();
        Ok(Self { strategy, waves })
    }

    /// Checks that this build's machines can run the plan.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.waves.is_empty() {
            return Err(PlanError::NoInstances);
        }
        for wave in &self.waves {
            if wave.instances.is_empty() || wave.steps.is_empty() {
                return Err(PlanError::EmptyWave);
            }
            if let Some(split) = wave.steps.iter().find(|step| **step != Share::ALL) {
                return Err(PlanError::SplitTraffic { share: split.0 });
            }
        }
        Ok(())
    }

    /// Every instance that takes part in any wave.
    pub fn instances(&self) -> BTreeSet<InstanceId> {
        self.waves
            .iter()
            .flat_map(|wave| wave.instances.iter().cloned())
            .collect()
    }

    /// The position after `at`, if the plan continues.
    pub fn after(&self, at: Position) -> Option<Position> {
        let wave = self.waves.get(at.wave)?;
        if at.step + 1 < wave.steps.len() {
            return Some(Position {
                wave: at.wave,
                step: at.step + 1,
            });
        }
        (at.wave + 1 < self.waves.len()).then_some(Position {
            wave: at.wave + 1,
            step: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blue_green_is_one_wave_of_everyone() {
        let plan = Plan::compile(Strategy::BlueGreen, &fleet(3)).expect("a fleet of three");
        assert_eq!(plan.waves.len(), 1);
        assert_eq!(plan.instances(), fleet(3));
        assert_eq!(plan.after(Position::default()), None);
    }

    #[test]
    fn rolling_is_waves_of_its_parallelism() {
        let plan = Plan::compile(Strategy::Rolling { parallelism: 2 }, &fleet(5))
            .expect("a fleet of five");
        let sizes: Vec<_> = plan.waves.iter().map(|w| w.instances.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
        assert_eq!(
            plan.after(Position::default()),
            Some(Position { wave: 1, step: 0 })
        );
    }

    #[test]
    fn a_plan_for_nobody_is_refused() {
        assert_eq!(
            Plan::compile(Strategy::BlueGreen, &BTreeSet::new()),
            Err(PlanError::NoInstances)
        );
        assert_eq!(
            Plan::compile(Strategy::Rolling { parallelism: 0 }, &fleet(1)),
            Err(PlanError::EmptyWave)
        );
    }

    #[test]
    fn a_plan_that_splits_traffic_has_the_shape_but_is_refused_by_this_build() {
        let mut plan = Plan::compile(Strategy::BlueGreen, &fleet(2)).expect("a fleet of two");
        plan.waves[0].steps = vec![Share(5), Share(50), Share::ALL];
        assert_eq!(
            plan.after(Position { wave: 0, step: 1 }),
            Some(Position { wave: 0, step: 2 })
        );
        assert_eq!(plan.check(), Err(PlanError::SplitTraffic { share: 5 }));
    }

    fn fleet(size: u32) -> BTreeSet<InstanceId> {
        (0..size).map(|i| InstanceId(format!("i{i}"))).collect()
    }
}
