//! The timers and choices of a cut-over, as configured by the user.

pub use greenlight_gate::OnUncertain;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// All timers and choices of one deployment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// The coordinator aborts a hold that takes longer.
    pub hold_budget: Duration,
    /// The gate's own deadline for a hold.
    pub max_hold: Duration,
    /// What the gate does at that deadline.
    pub on_uncertain: OnUncertain,
    /// Whether a hold also waits until the old release has no request in flight.
    pub exclusive: Exclusive,
    /// How long a release may take to become ready.
    pub prepare: Duration,
    /// How long the command may take that is run once before the switch; none if there is none.
    #[serde(default)]
    pub before_switch: Option<Duration>,
    /// Whether instances must also be ready as their peers see them.
    #[serde(default)]
    pub peer_checks: PeerChecks,
    /// How long the new release is observed after a cut-over.
    pub watch: Duration,
    /// How long the old release is left running after the watch.
    pub keep_warm: Duration,
    /// How long in-flight requests of a release being stopped may take.
    pub drain: Duration,
    /// How long the application has between SIGTERM and SIGKILL.
    pub stop: Duration,
    /// How often a failed rollback is retried before the outcome is `stuck`.
    pub rollback_attempts: u32,
}

/// Whether two releases may run requests at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusive {
    /// In-flight requests of the old release finish while the new one serves.
    No,
    /// The hold is acknowledged only when the old release has no request in flight.
    Yes,
}

/// Whether instances look at each other before the barrier.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum PeerChecks {
    /// An instance's own check is enough.
    #[default]
    No,
    /// An instance that its peers cannot reach, or see fail, stops the deployment.
    Yes,
}

impl Default for Policy {
    /// The defaults of the design: 250 ms budget, 2 s deadline, 5 min prepare, 60 s watch.
    fn default() -> Self {
        Self {
            hold_budget: Duration::from_millis(250),
            max_hold: Duration::from_secs(2),
            on_uncertain: OnUncertain::ServeOld,
            exclusive: Exclusive::No,
            prepare: Duration::from_mins(5),
            before_switch: None,
            peer_checks: PeerChecks::No,
            watch: Duration::from_mins(1),
            keep_warm: Duration::from_mins(15),
            drain: Duration::from_secs(30),
            stop: Duration::from_secs(10),
            rollback_attempts: 3,
        }
    }
}
