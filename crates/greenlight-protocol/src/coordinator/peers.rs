//! Before the barrier: is each instance ready as the others see it, and not only for itself?
//!
//! Not in a rollback, whoever asked for it: the release that it restores has served, and nothing
//! may be in its way.

use super::{Coordinator, CoordinatorEffect, CoordinatorTimer, Phase};
use crate::cut_over::Direction;
use crate::id::InstanceId;
use crate::policy::PeerChecks;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long all may take to look at each other. An agent gives up on a peer well before.
const DEADLINE: Duration = Duration::from_secs(30);
/// In a fleet up to this size everyone looks at everyone.
const EVERYONE: usize = 8;
/// In a larger one, everyone is looked at by so many.
const SAMPLE: usize = 3;
/// Of how many views of an instance a person is told.
const VIEWS_TOLD: usize = 2;

impl Coordinator {
    /// Has everyone look at its peers, if that is wanted and there are any. Says whether.
    pub(super) fn check_peers(&mut self, effects: &mut Vec<CoordinatorEffect>) -> bool {
        let Some((started, _)) = self.ledger.latest() else {
            return false;
        };
        let cut_over = &started.cut_over;
        let is_wanted = cut_over.policy.peer_checks == PeerChecks::Yes
            && cut_over.direction == Direction::Forward
            && cut_over.participants.len() > 1;
        if !is_wanted {
            return false;
        }
        let epoch = cut_over.epoch;
        let waiting = cut_over.participants.clone();
        self.phase = Phase::CheckingPeers {
            epoch,
            waiting,
            unseen: BTreeMap::new(),
        };
        self.prompt_all(effects);
        Self::timer(CoordinatorTimer::PeersDeadline(epoch), DEADLINE, effects);
        Self::timer(
            CoordinatorTimer::Resend(epoch),
            self.resend_after(),
            effects,
        );
        true
    }

    /// An instance says which of its peers it does not see ready. All are heard before it is judged
    /// whom that speaks against: one that is cut off sees nobody, and nobody sees it.
    pub(super) fn peers_seen(
        &mut self,
        from: &InstanceId,
        unseen_there: BTreeMap<InstanceId, String>,
        now: Timestamp,
        effects: &mut Vec<CoordinatorEffect>,
    ) {
        let Phase::CheckingPeers {
            waiting, unseen, ..
        } = &mut self.phase
        else {
            return;
        };
        for (peer, reason) in unseen_there {
            let by = unseen.entry(peer).or_default();
            by.insert(from.clone(), reason);
        }
        waiting.remove(from);
        if !waiting.is_empty() {
            return;
        }
        match only_for_itself(unseen) {
            Some(reason) => self.abort(reason, effects),
            None => self.all_ready(now, effects),
        }
    }
}

/// Whom most do not see ready, in words; nobody, if all are seen.
fn only_for_itself(unseen: &BTreeMap<InstanceId, BTreeMap<InstanceId, String>>) -> Option<String> {
    let most = unseen.values().map(BTreeMap::len).max()?;
    let suspects = unseen.iter().filter(|(_, by)| by.len() == most);
    let words = suspects.map(|(peer, by)| {
        let views = by
            .iter()
            .map(|(from, reason)| format!("from `{from}`: {reason}"));
        let views: Vec<_> = views.take(VIEWS_TOLD).collect();
        format!(
            "instance `{peer}` is ready only for itself; {}",
            views.join("; ")
        )
    });
    let words: Vec<_> = words.collect();
    Some(format!(
        "{} (`peer_checks: false` in the configuration turns this check off)",
        words.join("; ")
    ))
}

/// Whom an instance looks at: everyone else, or in a large fleet the next few in the order of
/// their names, so that each is seen by as many.
pub(super) fn seen_by(
    instance: &InstanceId,
    participants: &BTreeSet<InstanceId>,
) -> BTreeSet<InstanceId> {
    let count = match participants.len() {
        size if size <= EVERYONE => size,
        _ => SAMPLE,
    };
    let after = participants.iter().filter(|other| *other > instance);
    let before = participants.iter().filter(|other| *other < instance);
    after.chain(before).take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(size: usize) -> BTreeMap<InstanceId, usize> {
        let fleet: BTreeSet<_> = (0..size).map(|i| InstanceId(format!("i{i}"))).collect();
        let mut seen = BTreeMap::new();
        for instance in &fleet {
            let peers = seen_by(instance, &fleet);
            assert!(!peers.contains(instance));
            for peer in peers {
                *seen.entry(peer).or_default() += 1;
            }
        }
        seen
    }

    #[test]
    fn everyone_is_seen_by_everyone_and_in_a_large_fleet_by_as_many() {
        assert!(looks(2).values().eq(&[1, 1]));
        assert!(looks(8).values().all(|count| *count == 7));
        let large = looks(100);
        assert_eq!(large.len(), 100);
        assert!(large.values().all(|count| *count == 3));
    }
}
