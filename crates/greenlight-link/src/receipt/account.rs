//! The claims beside those of the barrier: that the account agrees with itself, that the old
//! release was drained, and that the deployment ended as its cut-overs did.
//!
//! Only what must be true of every deployment is claimed. So nothing compares wall clocks, which
//! may be set, or counts of a gate that may have been replaced.

use super::claims::{Judgement, judged};
use super::{Check, CutOverReceipt, InstanceReceipt, Receipt};
use greenlight_protocol::{Direction, Outcome};

impl Receipt {
    /// The claims about the deployment as a whole.
    pub fn account(&self) -> Vec<Check> {
        let ended = Check::new(
            "the deployment ended as its cut-overs did".to_owned(),
            self.ended_like_its_cut_overs(),
        );
        vec![ended]
    }

    fn ended_like_its_cut_overs(&self) -> Judgement {
        let last = self.cut_overs.last();
        let last_is = |direction| {
            last.is_some_and(|last| last.direction == direction && last.aborted.is_none())
        };
        match &self.outcome {
            None => Judgement::Missing("how the deployment ended"),
            Some(Outcome::Promoted) => judged(last_is(Direction::Forward)),
            Some(Outcome::RolledBack { .. }) => judged(last_is(Direction::Back)),
            Some(Outcome::Aborted { .. }) => {
                judged(self.cut_overs.iter().all(|c| c.committed_ns.is_none()))
            }
            // It may have ended in any state, which its reason tells.
            Some(Outcome::Stuck { .. }) => Judgement::BorneOut,
        }
    }
}

impl CutOverReceipt {
    /// The claims about what surrounds the barrier: the order of the account, who was not told to
    /// switch, and what was left of the old release when it was stopped.
    pub fn account(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if self.aborted.is_some() && !self.recovered {
            checks.push(Check::new(
                "no instance was told to switch".to_owned(),
                judged(self.instances.values().all(|i| i.switch_order.is_none())),
            ));
        }
        if self.commit_order.is_some() && !self.recovered {
            checks.push(Check::new(
                "the server's times agree with the order of its messages".to_owned(),
                judged(self.times_in_order()),
            ));
        }
        for (name, instance) in &self.instances {
            if self.commit_order.is_some() && self.aligned.is_none() && instance.gate.is_some() {
                checks.push(Check::new(
                    format!("the reports of `{name}` agree with what its gate saw"),
                    judged(instance.reports_agree()),
                ));
            }
            // Until it is stopped there is nothing to say of it.
            if let Some(left) = &instance.retired {
                checks.push(Check::new(
                    format!("`{name}` cut nothing off when it stopped the old release"),
                    judged((left.requests, left.streams, left.upgrades) == (0, 0, 0)),
                ));
            }
        }
        checks
    }

    /// Who held before the commit by the order of messages did so by the server's clock, too.
    pub(super) fn times_in_order(&self) -> bool {
        let (Some(began), Some(committed)) = (self.hold_sent_ns, self.committed_ns) else {
            return false;
        };
        let Some(commit) = self.commit_order else {
            return false;
        };
        let synced = self.commit_sync_us.unwrap_or(0).saturating_mul(1000);
        // The duration is rounded to microseconds, and measured from just before its own beginning.
        let written_after = committed.saturating_sub(began).saturating_add(1000) >= synced;
        let completed = self
            .completed_ns
            .is_none_or(|completed| committed <= completed);
        let instances = self.instances.values().all(|instance| {
            let held = instance.held_ns.zip(instance.held_order);
            let held =
                held.is_none_or(|(at, order)| began <= at && (order < commit) == (at <= committed));
            held && instance.switched_ns.is_none_or(|at| committed <= at)
        });
        began <= committed && written_after && completed && instances
    }
}

impl InstanceReceipt {
    /// What the agent reported at the hold and at the opening does not go beyond what the gate
    /// told later of the same moments.
    pub(super) fn reports_agree(&self) -> bool {
        let services = self.gate.iter().flat_map(|gate| &gate.services);
        let mut services = services.map(|(name, seen)| {
            let reported = self.held.as_ref();
            let reported = reported.and_then(|held| held.last_admission_ns.get(name));
            let admitted = reported.is_none_or(|at| seen.last_admission_old_ns >= Some(*at));
            let opened = self.switched.as_ref().zip(seen.opened_at_ns);
            let opened = opened.is_none_or(|(report, at)| at <= report.opened_at_ns);
            admitted && opened
        });
        services.all(|agrees| agrees)
    }
}
