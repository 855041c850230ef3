//! Keeps the journal to what recovery and history need.

use greenlight_protocol::CoordinatorRecord;
use greenlight_protocol::coordinator::snapshot;
use greenlight_shell::journal::{Journal, JournalError};

/// Deployments that stay in the journal.
const KEPT: usize = 100;
/// Records of a journal that is worth the trouble: some hundreds of deployments.
const MANY: u64 = 4096;

/// Says when a journal has grown enough to be compacted again.
#[derive(Debug)]
pub(super) struct Compaction {
    at: u64,
}

impl Compaction {
    pub(super) fn new() -> Self {
        Self { at: MANY }
    }

    /// Puts the ledger in the place of the records of deployments that are no longer in the
    /// history, if the journal has become long. Those that are left may be many themselves, so it
    /// has to double before that is tried again.
    pub(super) fn compact_if_long(&mut self, journal: &mut Journal) -> Result<(), JournalError> {
        let before = journal.count();
        if before < self.at {
            return Ok(());
        }
        let records: Vec<CoordinatorRecord> = journal.load()?;
        if let Some((count, ledger)) = snapshot(&records, KEPT) {
            journal.replace_first(count, &ledger)?;
        }
        let after = journal.count();
        tracing::info!(before, after, "compacted the journal");
        self.at = MANY.max(after * 2);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt_archive::Stored;
    use crate::receipt_store::ReceiptStore;
    use greenlight_protocol::coordinator::{CutOverStarted, DeploymentRequest, Ledger, Promotion};
    use greenlight_protocol::strategy::Position;
    use greenlight_protocol::{
        CutOver, DeploymentId, Direction, Epoch, InstanceId, Outcome, Plan, Policy, Release,
        Strategy,
    };

    #[test]
    fn a_long_journal_is_compacted_and_tells_a_restarted_server_the_same() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).expect("a new journal");
        let deployments = u64::try_from(KEPT).expect("a small number") + 5;
        for number in 1..=deployments {
            for record in deployment(number) {
                journal.append(&record).expect("a good disk");
            }
        }
        let before: Vec<CoordinatorRecord> = journal.load().expect("a good disk");
        let mut compaction = Compaction::new();

        compaction
            .compact_if_long(&mut journal)
            .expect("a good disk");
        assert_eq!(journal.count(), deployments * 5, "it is not long enough");
        compaction.at = journal.count();
        compaction
            .compact_if_long(&mut journal)
            .expect("a good disk");
        drop(journal);

        let journal = Journal::open(&path).expect("the same journal");
        let after: Vec<CoordinatorRecord> = journal.load().expect("a good disk");
        assert_eq!(after.len(), 1 + KEPT * 5);
        assert_eq!(Ledger::replay(&after), Ledger::replay(&before));
        // History and receipts, even if those that were written down are lost.
        let history = |records| {
            let mut store = ReceiptStore::resume(Stored::default(), records, KEPT);
            let receipts = store.take_changed().into_iter();
            let told = receipts.map(|r| (r.releases.clone(), r.previous.clone()));
            told.collect::<Vec<_>>()
        };
        assert_eq!(history(&after), history(&before));
        assert_eq!(history(&after).len(), KEPT);
        assert!(compaction.at >= MANY);
    }

    fn deployment(number: u64) -> Vec<CoordinatorRecord> {
        let deployment = DeploymentId(format!("deployment-{number}"));
        let participants = [InstanceId("a".to_owned())].into();
        let release = Release {
            version: format!("v{number}"),
            digest: format!("digest-{number}"),
            spec: String::new(),
        };
        let releases = [("shop".into(), Some(release))].into();
        let epoch = Epoch(number);
        let started = CutOverStarted {
            position: Position::default(),
            cut_over: CutOver {
                epoch,
                deployment: deployment.clone(),
                direction: Direction::Forward,
                participants,
                releases,
                policy: Policy::default(),
            },
            reason: None,
        };
        let request = DeploymentRequest {
            deployment: deployment.clone(),
            requested_by: "a test".to_owned(),
            releases: started.cut_over.releases.clone(),
            plan: Plan::compile(Strategy::BlueGreen, &started.cut_over.participants)
                .expect("the fleet is not empty"),
            policy: Policy::default(),
            promotion: Promotion::Automatic,
        };
        let outcome = Outcome::Promoted;
        vec![
            CoordinatorRecord::Accepted(Box::new(request)),
            CoordinatorRecord::CutOverStarted(Box::new(started)),
            CoordinatorRecord::Committed(epoch),
            CoordinatorRecord::Completed(epoch),
            CoordinatorRecord::Finished {
                deployment,
                outcome,
            },
        ]
    }
}
