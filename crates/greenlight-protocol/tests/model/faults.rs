//! What may go wrong in a fleet, and how often.
//!
//! Messages are not counted here: each may always be lost, arrive twice, or arrive late.

use super::step::Fault;
use greenlight_gate::GateMutant;
use greenlight_protocol::Mutant;

/// A fleet and the faults that it must bear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Instances of the fleet.
    pub(crate) instances: usize,
    /// What the fleet did before.
    pub(crate) past: Past,
    pub(crate) coordinator_crashes: u8,
    /// Whether a crashed coordinator comes back.
    pub(crate) coordinator: Coordinator,
    /// Crashes of agents, in total.
    pub(crate) agent_crashes: u8,
    /// Applications that die or fail their check, in total.
    pub(crate) deaths: u8,
    /// Gates whose process ends, or whose deadline passes before a hold is complete, in total.
    pub(crate) gate_failures: u8,
    /// Proxies that are replaced, in total.
    pub(crate) replacements: u8,
    /// How often a person aborts.
    pub(crate) aborts: u8,
    /// How often a person deploys once more after the first deployment is over.
    pub(crate) deployments: u8,
    /// Whether statuses and queries reach the coordinator; if not, they are all lost.
    pub(crate) reminders: bool,
    /// Whether links come up anew, and both ends notice.
    pub(crate) reconnections: bool,
    /// Which rule is broken on purpose.
    pub(crate) mutant: Mutant,
    /// And which rule of the gate.
    pub(crate) gate_mutant: GateMutant,
}

/// What the fleet did before the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    ServesV1,
    /// Nothing: this is its first deployment.
    Nothing,
}

/// Whether the coordinator outlives its crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coordinator {
    ComesBack,
    StaysAway,
}

impl Faults {
    /// A fleet that serves `v1`, with a hostile network and nothing else.
    pub(crate) const fn of(instances: usize) -> Self {
        Self {
            instances,
            past: Past::ServesV1,
            coordinator_crashes: 0,
            coordinator: Coordinator::ComesBack,
            agent_crashes: 0,
            deaths: 0,
            gate_failures: 0,
            replacements: 0,
            aborts: 0,
            deployments: 0,
            reminders: false,
            reconnections: false,
            mutant: Mutant::None,
            gate_mutant: GateMutant::None,
        }
    }
}

/// What has gone wrong on the way to a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Spent {
    pub(crate) coordinator_crashes: u8,
    pub(crate) agent_crashes: u8,
    deaths: u8,
    gate_failures: u8,
    replacements: u8,
    aborts: u8,
    deployments: u8,
}

impl Spent {
    pub(crate) fn add(&mut self, fault: Fault) {
        match fault {
            Fault::Death => self.deaths += 1,
            Fault::Gate => self.gate_failures += 1,
            Fault::Replacement => self.replacements += 1,
            Fault::Abort => self.aborts += 1,
            Fault::Deploy => self.deployments += 1,
        }
    }

    pub(crate) fn is_within(self, faults: &Faults) -> bool {
        self.coordinator_crashes <= faults.coordinator_crashes
            && self.agent_crashes <= faults.agent_crashes
            && self.deaths <= faults.deaths
            && self.gate_failures <= faults.gate_failures
            && self.replacements <= faults.replacements
            && self.aborts <= faults.aborts
            && self.deployments <= faults.deployments
    }
}
