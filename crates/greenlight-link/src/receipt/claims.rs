//! The claims of a receipt, each judged by the evidence.
//!
//! Nothing is claimed that the evidence cannot show.

use super::{CutOverReceipt, InstanceReceipt};
use greenlight_protocol::InstanceId;
use serde::{Deserialize, Serialize};

/// One sentence that the evidence must bear out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The sentence.
    pub claim: String,
    /// Whether the evidence bears it out.
    pub holds: bool,
}

impl CutOverReceipt {
    /// The claims of G1 and G5, each checked against the evidence; only those of G5 for a front
    /// without a gate. Empty if nothing was switched.
    pub fn checks(&self) -> Vec<Check> {
        if self.recovered {
            return self.checks_of_instances();
        }
        let Some(commit) = self.commit_order else {
            return Vec::new();
        };
        if self.aligned.is_some() {
            return self.checks_of_aligned(commit);
        }
        let mut checks = Vec::new();
        let mut claim = |claim: String, holds: bool| checks.push(Check { claim, holds });
        for (name, instance) in &self.instances {
            claim(
                format!("`{name}` had stopped admitting to the old release before the commit"),
                instance.held_order.is_some_and(|held| held < commit) && instance.held_in_order(),
            );
            claim(
                format!("`{name}` was told to switch after the commit was durable"),
                instance.switch_order.is_some_and(|switch| switch > commit),
            );
            // Nothing is claimed of what a gate has not told.
            if instance.gate.is_some() {
                claim(
                    format!("`{name}` kept its gate closed from its hold to its switch"),
                    instance.opened_in_order(),
                );
            }
        }
        checks
    }

    /// The claims when the server has lost the order of its messages: what each gate
    /// knows of itself.
    fn checks_of_instances(&self) -> Vec<Check> {
        let opened = self.instances.iter().filter(|(_, i)| i.gate.is_some());
        let claim = |(name, instance): (&InstanceId, &InstanceReceipt)| Check {
            claim: format!("`{name}` admitted nothing to the old release after its gate closed"),
            holds: instance.opened_in_order(),
        };
        opened.map(claim).collect()
    }
}

impl InstanceReceipt {
    /// On the instance's own clock: the last admission to old came before the hold was complete.
    fn held_in_order(&self) -> bool {
        self.held.as_ref().is_some_and(|held| {
            let mut admissions = held.last_admission_ns.values();
            admissions.all(|admitted| *admitted <= held.held_at_ns)
        })
    }

    /// On the instance's own clock: the last admission to old, the hold, the opening, the first
    /// admission to new. A hold that the gate's deadline ended proves nothing.
    fn opened_in_order(&self) -> bool {
        let mut services = self.gate.iter().flat_map(|gate| gate.services.values());
        services.all(|seen| {
            let opened = seen.opened_at_ns.unwrap_or(u64::MAX);
            !seen.expired
                && seen.last_admission_old_ns.unwrap_or(0) <= seen.held_at_ns.unwrap_or(u64::MAX)
                && seen.held_at_ns.unwrap_or(0) <= opened
                && seen
                    .first_admission_new_ns
                    .is_none_or(|first| first >= opened)
        })
    }
}
