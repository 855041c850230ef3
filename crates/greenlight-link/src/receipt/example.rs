//! A receipt for tests: two instances whose evidence is a complete chain.

use super::{CutOverReceipt, InstanceReceipt, Receipt};
use crate::Readings;
use greenlight_protocol::{
    Direction, DrainEvidence, Epoch, GateEvidence, HoldEvidence, Outcome, ServiceEvidence,
    SwitchEvidence,
};
use std::collections::BTreeSet;

/// The instances' clocks, wildly different as those of machines are.
pub(super) const AHEAD: [u64; 2] = [5_000_000_000, 70_000_000_000];
pub(super) const MS: u64 = 1_000_000;

/// The receipt of a deployment that brought `v2`.
pub(super) fn receipt() -> Receipt {
    Receipt {
        deployment: "019ad6a1-5d3e-7c52-b2b1-8f0f6f0c7a11".to_owned(),
        requested_by: "tester".to_owned(),
        releases: [("shop".into(), "v2".to_owned())].into(),
        removed: BTreeSet::new(),
        previous: [("shop".into(), "v1".to_owned())].into(),
        started_ms: 1_796_083_200_000,
        finished_ms: Some(1_796_083_212_345),
        outcome: Some(Outcome::Promoted),
        cut_overs: vec![cut_over()],
    }
}

/// Two instances that hold within 10 ms, and switch within 32.
pub(super) fn cut_over() -> CutOverReceipt {
    let server = |ms: u64| 1_000 * MS + ms * MS;
    let mut cut_over = CutOverReceipt::new(Epoch(7), Direction::Forward);
    cut_over.hold_sent_ns = Some(server(0));
    cut_over.max_hold_us = Some(2_000_000);
    cut_over.committed_ns = Some(server(20));
    cut_over.completed_ns = Some(server(40));
    cut_over.commit_order = Some(10);
    for (number, name) in ["a", "b"].into_iter().enumerate() {
        let here = |ms: u64| AHEAD[number] + ms * MS;
        let seen = ServiceEvidence {
            held_at_ns: Some(here(9)),
            last_admission_old_ns: Some(here(8)),
            opened_at_ns: Some(here(30)),
            first_admission_new_ns: Some(here(31)),
            ..ServiceEvidence::default()
        };
        let instance = InstanceReceipt {
            held_order: Some(5),
            switch_order: Some(11),
            held_ns: Some(server(10)),
            switched_ns: Some(server(32)),
            held: Some(HoldEvidence {
                held_at_ns: here(9),
                last_admission_ns: [("shop".into(), here(8))].into(),
                ..HoldEvidence::default()
            }),
            switched: Some(SwitchEvidence {
                opened_at_ns: here(30),
                ..SwitchEvidence::default()
            }),
            gate: Some(GateEvidence {
                services: [("shop".into(), seen)].into(),
            }),
            retired: Some(DrainEvidence::default()),
            readings: Some(Readings {
                since_ns: 1,
                hold_ns: Some(here(1)),
                commit_ns: Some(here(22)),
            }),
            ..InstanceReceipt::default()
        };
        cut_over.instances.insert(name.into(), instance);
    }
    cut_over
}
