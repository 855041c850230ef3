//! The claims of a receipt, each judged by the evidence.
//!
//! For each instance of a cut-over the evidence must be a chain: the gate's last admission to the
//! old release, its hold, the commit, the agent's reading of it, the gate's opening, the first
//! admission to the new release. Two neighbours are compared on one clock, or by the order of the
//! server's messages, never on two clocks.
//!
//! Nothing is claimed that the evidence cannot show. Evidence that is missing is named: a claim
//! without it is neither borne out nor left away.

use super::{CutOverReceipt, InstanceReceipt};
use greenlight_protocol::{ServiceEvidence, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One sentence that the evidence must bear out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The sentence.
    pub claim: String,
    /// Whether the evidence bears it out.
    pub holds: bool,
    /// The evidence that is missing to judge it. Such a claim does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// What the evidence says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    BorneOut,
    Contradicted,
    /// This is missing.
    Missing(&'static str),
}

use Judgement::{BorneOut, Contradicted, Missing};

const NO_ACKNOWLEDGEMENT: &str = "its acknowledgement of the hold";
const NO_SWITCH: &str = "the order in which it was told to switch";
const NO_GATE: &str = "what its gate saw";
const PART_OF_GATE: &str = "what its gate saw of one of the services";
const NO_OPENING: &str = "when its gate opened";
const NO_READING: &str = "when its agent read the decision";
const RESTARTED_AGENT: &str = "when its agent read the decision: the agent was restarted";
const RESTARTED_SERVER: &str = "the order of the messages: the server was restarted meanwhile";

impl Check {
    pub(super) fn new(claim: String, judgement: Judgement) -> Self {
        Self {
            claim,
            holds: judgement == BorneOut,
            missing: match judgement {
                Missing(what) => Some(what.to_owned()),
                BorneOut | Contradicted => None,
            },
        }
    }

    /// A claim that does not hold, as a line for people.
    pub fn complaint(&self) -> String {
        match &self.missing {
            Some(missing) => format!("NOT SHOWN: {}; missing: {missing}", self.claim),
            None => format!("NOT BORNE OUT: {}", self.claim),
        }
    }
}

/// Whether a condition that the evidence can tell is true.
pub(super) fn judged(holds: bool) -> Judgement {
    match holds {
        true => BorneOut,
        false => Contradicted,
    }
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
        let services = self.services();
        let mut checks = Vec::new();
        let mut claim = |claim: String, found| checks.push(Check::new(claim, found));
        for (name, instance) in &self.instances {
            claim(
                format!("`{name}` had stopped admitting to the old release before the commit"),
                instance.held_before(commit),
            );
            claim(
                format!("`{name}` was told to switch after the commit was durable"),
                match instance.switch_order {
                    Some(switch) => judged(switch > commit),
                    None => Missing(NO_SWITCH),
                },
            );
            claim(
                format!("`{name}` opened its gate after it had read the decision"),
                instance.opened_after_reading(&services),
            );
            claim(
                format!("`{name}` kept its gate closed from its hold to its switch"),
                instance.kept_closed(&services),
            );
        }
        checks
    }

    /// The claims when the server has lost the order of its messages: what each gate knows of
    /// itself. Empty if no gate has told that it opened: then it may have been aborted.
    fn checks_of_instances(&self) -> Vec<Check> {
        if self.aborted.is_some() || self.aligned.is_some() {
            return Vec::new();
        }
        let services = self.services();
        let order = Check::new(
            "every gate was closed before the commit, and opened after it".to_owned(),
            Missing(RESTARTED_SERVER),
        );
        let instances = self.instances.iter().map(|(name, instance)| {
            Check::new(
                format!("`{name}` admitted nothing to the old release after its gate closed"),
                instance.kept_closed(&services),
            )
        });
        std::iter::once(order).chain(instances).collect()
    }

    /// The services that any gate has told of.
    pub(super) fn services(&self) -> BTreeSet<&ServiceName> {
        let told = self.instances.values().filter_map(|i| i.gate.as_ref());
        told.flat_map(|gate| gate.services.keys()).collect()
    }
}

impl InstanceReceipt {
    /// On the instance's own clock the last admission to old came before the hold was complete,
    /// and its acknowledgement came in before the commit.
    fn held_before(&self, commit: u64) -> Judgement {
        let (Some(order), Some(held)) = (self.held_order, &self.held) else {
            return Missing(NO_ACKNOWLEDGEMENT);
        };
        let mut admissions = held.last_admission_ns.values();
        judged(order < commit && admissions.all(|admitted| *admitted <= held.held_at_ns))
    }

    /// On the instance's own clock: the agent read that the cut-over is committed, the gate opened.
    fn opened_after_reading(&self, services: &BTreeSet<&ServiceName>) -> Judgement {
        let seen = match self.seen_of(services) {
            Ok(seen) => seen,
            Err(missing) => return missing,
        };
        let Some(readings) = self.readings else {
            return Missing(NO_READING);
        };
        // The gate of a service that is removed opens too: to no release.
        let opened: Option<Vec<u64>> = seen.iter().map(|s| s.opened_at_ns).collect();
        let Some(opened) = opened else {
            return Missing(NO_OPENING);
        };
        if opened.iter().any(|at| *at < readings.since_ns) {
            return Missing(RESTARTED_AGENT);
        }
        match readings.commit_ns {
            Some(read) => judged(opened.iter().all(|at| read <= *at)),
            None => Missing(NO_READING),
        }
    }

    /// On the instance's own clock: the last admission to old, the hold, the opening, the first
    /// admission to new. A hold that the gate's deadline ended proves nothing.
    fn kept_closed(&self, services: &BTreeSet<&ServiceName>) -> Judgement {
        let seen = match self.seen_of(services) {
            Ok(seen) => seen,
            Err(missing) => return missing,
        };
        let mut not_expired = seen.iter().filter(|seen| !seen.expired);
        let untold_hold = |seen: &&ServiceEvidence| {
            seen.last_admission_old_ns.is_some() && seen.held_at_ns.is_none()
        };
        if not_expired.clone().any(untold_hold) {
            return Missing(NO_GATE);
        }
        if not_expired.any(|seen| seen.opened_at_ns.is_none()) {
            return Missing(NO_OPENING);
        }
        judged(seen.iter().all(|seen| stayed_closed(seen)))
    }

    /// What the gate saw of each of these services.
    pub(super) fn seen_of(
        &self,
        services: &BTreeSet<&ServiceName>,
    ) -> Result<Vec<&ServiceEvidence>, Judgement> {
        let Some(gate) = &self.gate else {
            return Err(Missing(NO_GATE));
        };
        let seen = services.iter().map(|service| gate.services.get(service));
        let seen: Option<Vec<_>> = seen.collect();
        seen.ok_or(Missing(PART_OF_GATE))
    }
}

fn stayed_closed(seen: &ServiceEvidence) -> bool {
    let held = seen.held_at_ns.unwrap_or(u64::MAX);
    let opened = seen.opened_at_ns.unwrap_or(u64::MAX);
    !seen.expired
        && seen.last_admission_old_ns.unwrap_or(0) <= held
        && seen.held_at_ns.unwrap_or(0) <= opened
        && seen
            .first_admission_new_ns
            .is_none_or(|first| first >= opened)
}

#[cfg(test)]
mod tests {
    use super::super::example::cut_over;

    #[test]
    fn a_gate_of_which_no_opening_was_told_leaves_a_line_for_each_claim_about_it() {
        let mut cut_over = cut_over();
        let a = cut_over.instances.get_mut(&"a".into());
        let gate = a.expect("it is there").gate.as_mut();
        let seen = gate.expect("it has told").services.get_mut(&"shop".into());
        let seen = seen.expect("it is there");
        (seen.opened_at_ns, seen.first_admission_new_ns) = (None, None);

        let checks = cut_over.checks();
        let broken: Vec<_> = checks.iter().filter(|check| !check.holds).collect();
        assert_eq!(broken.len(), 2, "{checks:?}");
        for (check, claim) in broken
            .iter()
            .zip(["`a` opened its gate", "`a` kept its gate"])
        {
            assert!(check.claim.starts_with(claim), "{check:?}");
            assert_eq!(check.missing.as_deref(), Some("when its gate opened"));
        }
    }
}
