//! A receipt for tests of what is said about receipts.

use greenlight_link::receipt::Receipt;
use greenlight_protocol::Outcome;
use std::collections::BTreeMap;

/// A deployment without cut-overs that ended like this, if it has ended.
pub(super) fn receipt(outcome: Option<Outcome>) -> Receipt {
    Receipt {
        deployment: "d".to_owned(),
        requested_by: "someone".to_owned(),
        releases: BTreeMap::new(),
        removed: [].into(),
        previous: BTreeMap::new(),
        started_ms: 0,
        finished_ms: None,
        outcome,
        cut_overs: Vec::new(),
    }
}
