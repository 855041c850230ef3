//! A shorter journal that means the same.
//!
//! Recovery is replay, and all that replay leaves is the ledger. So the ledger after some records
//! can replace them.

use super::{CoordinatorRecord, Ledger};

/// One record that means what the first records mean: all but those of the last `deployments`
/// deployments. Returns how many it replaces; `None` if that makes nothing shorter.
pub fn snapshot(
    records: &[CoordinatorRecord],
    deployments: usize,
) -> Option<(usize, CoordinatorRecord)> {
    let accepted = records.iter().enumerate().rev();
    let mut accepted =
        accepted.filter(|(_, record)| matches!(record, CoordinatorRecord::Accepted(_)));
    let count = match deployments.checked_sub(1) {
        None => records.len(),
        Some(earlier) => accepted.nth(earlier)?.0,
    };
    if count < 2 {
        return None;
    }
    let ledger = Ledger::replay(&records[..count]);
    Some((count, CoordinatorRecord::Snapshot(Box::new(ledger))))
}
