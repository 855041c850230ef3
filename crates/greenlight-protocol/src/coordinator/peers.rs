//! Before the barrier: is each instance ready as the others see it, and not only for itself?
//!
//! Not in a rollback: the release that it restores has served, and nothing
//! may be in its way.

use super::in_progress::CutOverInProgress;
use super::{Coordinator, CoordinatorTimer, Phase};
use crate::cut_over::{CutOver, Direction};
use crate::id::InstanceId;
use crate::policy::PeerChecks;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long all may take to look at each other. An agent gives up on a peer well before.
const DEADLINE: Duration = Duration::from_secs(30);
/// In a fleet up to this size every instance checks every other.
const EVERYONE: usize = 8;
/// In a larger one, so many instances check each.
const SAMPLE: usize = 3;
/// How many views of an instance the message contains.
const VIEWS_TOLD: usize = 2;

impl Coordinator {
    /// Whether everyone is to look at its peers, because that is wanted and there are any.
    pub(super) fn must_check_peers(cut_over: &CutOver) -> bool {
        cut_over.policy.peer_checks == PeerChecks::Yes
            && cut_over.direction == Direction::Forward
            && cut_over.participants.len() > 1
    }

    pub(super) fn check_peers(&mut self, cut_over: CutOverInProgress) -> CutOverInProgress {
        let waiting = cut_over.participants().clone();
        let timer = CoordinatorTimer::PeersDeadline(cut_over.epoch());
        let phase = Phase::CheckingPeers {
            unseen: BTreeMap::new(),
        };
        self.enter(cut_over, phase, waiting, Some((timer, DEADLINE)))
    }

    /// An instance reports which of its peers it does not see ready. All reports are awaited before
    /// the conclusion: an instance that is cut off sees no other, and no other sees it.
    pub(super) fn peers_seen(
        &mut self,
        mut cut_over: CutOverInProgress,
        from: &InstanceId,
        unseen_there: BTreeMap<InstanceId, String>,
        now: Timestamp,
    ) -> CutOverInProgress {
        let is_last = cut_over.answered(from);
        let Phase::CheckingPeers { unseen } = &mut cut_over.phase else {
            return cut_over;
        };
        for (peer, reason) in unseen_there {
            let by = unseen.entry(peer).or_default();
            by.insert(from.clone(), reason);
        }
        if !is_last {
            return cut_over;
        }
        match only_for_itself(unseen) {
            Some(reason) => self.abort(cut_over, reason),
            None => self.all_ready(cut_over, now),
        }
    }
}

/// The instances that most others do not see ready, as text; none, if all are seen.
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

/// The peers that an instance checks: all others, or in a large fleet the next few in the order of
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
