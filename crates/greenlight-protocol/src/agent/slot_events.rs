//! What follows when an application is found, passes or fails its check, dies, or is stopped.
//!
//! Each of these may let a cut-over go on, or end it, so all but one take the whole agent. What is
//! done for what is live is in `live.rs`.

use super::ledger::{Ledger, Promise};
use super::live::{self, PARK_TIMEOUT};
use super::output::Output;
use super::participation::Participation;
use super::slots::{SlotState, Slots};
use super::{Agent, Decision, retiring};
use crate::evidence::DrainEvidence;
use crate::id::{Epoch, Incarnation, ServiceName};
use crate::message::Report;
use crate::release::{LiveRelease, Release, Slot};
use std::collections::BTreeMap;

/// After a restart of the agent: this runs. What does not belong there is stopped.
pub(super) fn slot_found(
    slot: &Slot,
    incarnation: Incarnation,
    digest: String,
    ledger: &Ledger,
    slots: &mut Slots,
    output: &mut Output,
) {
    let expected = expected_in(slot, ledger).is_some_and(|r| r.digest == digest);
    slots.found(slot.clone(), incarnation, digest);
    if !expected {
        slots.stop(slot, &ledger.policy, output);
    }
}

/// The release that belongs into a slot, according to the ledger.
fn expected_in<'a>(slot: &Slot, ledger: &'a Ledger) -> Option<&'a Release> {
    let kept = |known: &BTreeMap<ServiceName, LiveRelease>| {
        known
            .get(&slot.service)
            .is_some_and(|live| live.color == slot.color)
    };
    if kept(&ledger.live) {
        return ledger.live.get(&slot.service).map(|l| &l.release);
    }
    if let Promise::Prepared(c) | Promise::Armed(c) = &ledger.promise
        && let Some(Some(release)) = c.releases.get(&slot.service)
    {
        return Some(release);
    }
    let warm = ledger.warm.get(&slot.service);
    warm.filter(|_| kept(&ledger.warm))
        .map(|warm| &warm.release)
}

impl Agent {
    pub(super) fn slots_listed(&mut self) {
        self.slots.listed();
        live::report_gone(&self.ledger, &self.slots, &mut self.output);
        self.live().restart(PARK_TIMEOUT);
        self.advance();
    }

    pub(super) fn slot_ready(&mut self, slot: &Slot, incarnation: Incarnation) {
        if !self.slots.checked(slot, incarnation, SlotState::Ready) {
            return;
        }
        if self.ledger.is_live(slot) {
            self.reassert_gate();
            self.report_status();
        }
        self.advance();
    }

    pub(super) fn slot_unhealthy(&mut self, slot: &Slot, incarnation: Incarnation, reason: String) {
        if self.slots.checked(slot, incarnation, SlotState::Unhealthy) {
            self.lost(slot, reason);
        }
    }

    pub(super) fn slot_exited(&mut self, slot: &Slot, incarnation: Incarnation, reason: String) {
        if !self.slots.exited(slot, incarnation) {
            return;
        }
        if self.ledger.is_live(slot) {
            self.live().park(&slot.service);
            live::restart_soon(&mut self.output);
        }
        self.lost(slot, reason);
    }

    /// A slot can no longer take traffic: say so where it matters.
    fn lost(&mut self, slot: &Slot, reason: String) {
        if self.ledger.is_live(slot) {
            let live = self.ledger.live.get(&slot.service);
            let epoch = live.map_or(Epoch(0), |live| live.epoch);
            let service = slot.service.clone();
            self.report(epoch, Report::Unhealthy { service, reason });
        } else if let Participation::Preparing { cut_over } = &self.participation
            && cut_over.deploys(&slot.service)
        {
            let epoch = cut_over.epoch;
            let report = Report::PrepareFailed { reason };
            self.finish(epoch, Decision::Aborted, report);
        } else {
            self.advance();
        }
    }

    pub(super) fn slot_stopped(&mut self, slot: &Slot, drained: DrainEvidence) {
        self.slots.stopped(slot);
        retiring::has_stopped(
            drained,
            &mut self.participation,
            &mut self.ledger,
            &self.slots,
            &mut self.output,
        );
        self.live().restart(PARK_TIMEOUT);
        self.advance();
    }
}
