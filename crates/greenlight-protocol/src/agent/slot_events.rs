//! What follows when an application starts, passes or fails its check, dies, or is stopped.
//!
//! G4 lives here: the gate is opened to a slot only while the incarnation that runs there has
//! passed its check. A live application that dies is restarted only when its gate has confirmed
//! that its requests are parked, so that none reaches the new incarnation early; and until then
//! nothing is started beside it.

use super::ledger::Promise;
use super::participation::Participation;
use super::slots::{Readiness, SlotState};
use super::{Agent, AgentEffect, AgentRecord, AgentTimer, Decision, GateAction};
use crate::cut_over::CutOver;
use crate::evidence::DrainEvidence;
use crate::id::{Epoch, Incarnation, ServiceName};
use crate::message::Report;
use crate::release::{LiveRelease, Release, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a dead live application stays dead before it is started again: long enough for a
/// rollback to be the faster remedy, short enough for requests to wait through.
pub(super) const RESTART_AFTER: Duration = Duration::from_secs(1);

/// How long the gate has to park before an application is started after a restart of the agent.
const PARK_TIMEOUT: Duration = Duration::from_millis(20);

impl Agent {
    /// The readiness of a cut-over as a whole.
    pub(super) fn targets_ready(&self, cut_over: &CutOver) -> Readiness {
        let mut all = Readiness::Ready;
        for (service, release) in cut_over.new_releases() {
            let slot = self.ledger.idle_slot(service);
            all = all.and(self.slots.readiness(&slot, release));
        }
        all
    }

    pub(super) fn slot_found(&mut self, slot: &Slot, incarnation: Incarnation, digest: String) {
        let expected = self.expected_in(slot).is_some_and(|r| r.digest == digest);
        self.slots.found(slot.clone(), incarnation, digest);
        if !expected {
            let policy = &self.ledger.policy;
            self.slots.stop(slot, policy, &mut self.effects);
        }
    }

    /// The release that belongs into a slot, according to the ledger.
    fn expected_in(&self, slot: &Slot) -> Option<&Release> {
        let kept = |known: &BTreeMap<ServiceName, LiveRelease>| {
            known
                .get(&slot.service)
                .is_some_and(|live| live.color == slot.color)
        };
        if kept(&self.ledger.live) {
            return self.ledger.live.get(&slot.service).map(|l| &l.release);
        }
        if let Promise::Prepared(c) | Promise::Armed(c) = &self.ledger.promise
            && let Some(Some(release)) = c.releases.get(&slot.service)
        {
            return Some(release);
        }
        let warm = self.ledger.warm.get(&slot.service);
        warm.filter(|_| kept(&self.ledger.warm))
            .map(|warm| &warm.release)
    }

    pub(super) fn slots_listed(&mut self) {
        self.slots.listed();
        for (service, live) in self.ledger.live.clone() {
            if self.slots.is_empty(&live.slot(&service)) {
                // The coordinator must know, and an earlier report of the death may have been lost.
                let reason = "it was dead when the agent came back".to_owned();
                self.report(live.epoch, Report::Unhealthy { service, reason });
            }
        }
        self.restart_live(PARK_TIMEOUT);
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
            self.park(&slot.service);
            self.restart_soon();
        }
        self.lost(slot, reason);
    }

    pub(super) fn restart_soon(&mut self) {
        self.effects.push(AgentEffect::SetTimer {
            timer: AgentTimer::Restart,
            after: RESTART_AFTER,
        });
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
        self.advance_retire(drained);
        self.restart_live(PARK_TIMEOUT);
        self.advance();
    }

    /// Reports again which live applications are down: the first report may have been lost.
    pub(super) fn report_unhealthy(&mut self) {
        for (service, live) in self.ledger.live.clone() {
            let slot = live.slot(&service);
            if self.slots.readiness(&slot, &live.release) == Readiness::Dead {
                let reason = "the live application is not healthy".to_owned();
                self.report(live.epoch, Report::Unhealthy { service, reason });
            }
        }
    }

    /// Starts every live release that does not run, if its gate is parked; if not, it is to be
    /// parked, as is what was found dead at its switch, and this is tried `again` later.
    pub(super) fn restart_live(&mut self, again: Duration) {
        if !self.slots.are_listed() {
            return;
        }
        let mut waits = false;
        for (service, live) in self.ledger.live.clone() {
            let slot = live.slot(&service);
            let gone = self.slots.is_empty(&slot);
            if gone && self.gate.is_parked(&service) {
                self.gate.forget_parked(&service);
                let within = self.ledger.policy.prepare;
                let effects = &mut self.effects;
                self.slots
                    .start(slot, live.epoch, live.release, within, effects);
            } else if gone || self.must_be_parked(&slot, &live.release) {
                self.park(&service);
                waits = true;
            }
        }
        if waits {
            let timer = AgentTimer::Restart;
            let after = again;
            self.effects.push(AgentEffect::SetTimer { timer, after });
        }
    }

    /// The gate has parked these services. An answer from before a later start or cut-over does not
    /// apply to what runs now.
    pub(super) fn gate_parked(&mut self, services: &BTreeSet<ServiceName>) {
        for service in services {
            let slot = self.ledger.live_slot(service);
            let live_is_gone = slot.is_some_and(|slot| self.slots.is_empty(&slot));
            self.gate.has_parked(service, live_is_gone);
        }
        self.advance();
    }

    /// Whether no request can reach what is started in the idle slot. If the live application
    /// died before its switch, its gate was never opened to it: one that has restarted since may
    /// lead to the release before it, until it confirms that it is parked.
    pub(super) fn is_shut_off(&self, service: &ServiceName) -> bool {
        let live = self.ledger.live_slot(service);
        let runs = live.is_none_or(|slot| !self.slots.is_empty(&slot));
        !self.gate.must_be_parked(service) && (runs || self.gate.is_parked(service))
    }

    /// Opens the gate to every live release that is ready, unless a hold is on, and to nothing for
    /// what was removed; parks what was never opened.
    pub(super) fn reassert_gate(&mut self) {
        self.open_live();
        for (service, live) in self.ledger.live.clone() {
            if self.must_be_parked(&live.slot(&service), &live.release) {
                self.park(&service);
            }
        }
        self.reassert_hold();
    }

    /// Whether it was found dead at its switch and still is, and its gate has not said that it is
    /// parked. One that is well again is opened instead.
    fn must_be_parked(&self, slot: &Slot, release: &Release) -> bool {
        self.gate.must_be_parked(&slot.service) && !self.slots.is_ready(slot, release)
    }

    fn open_live(&mut self) {
        let mut epoch = self.ledger.latest_decided();
        let mut colors = BTreeMap::new();
        for (service, live) in &self.ledger.live {
            let is_ready = self.slots.is_ready(&live.slot(service), &live.release);
            if is_ready && !self.is_held(service) {
                epoch = epoch.max(live.epoch);
                colors.insert(service.clone(), Some(live.color));
            }
        }
        let removed = self.ledger.removed.keys();
        let removed = removed.filter(|service| !self.is_held(service));
        colors.extend(removed.map(|service| (service.clone(), None)));
        if !colors.is_empty() {
            self.tell_gate(GateAction::Open { epoch, colors });
        }
    }

    /// Keeps the requests of a service whose live application is gone. A held gate is parked as
    /// well, or its deadline would let them through to what is being started there; the gate
    /// knows the hold's cut-over, and would refuse an older one.
    fn park(&mut self, service: &ServiceName) {
        self.gate.forget_parked(service);
        if self.has_opened_to_new(service) {
            return;
        }
        let epoch = match &self.participation {
            Participation::Armed { cut_over, .. } if self.is_held(service) => cut_over.epoch,
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Prepared { .. }
            | Participation::Armed { .. }
            | Participation::Retiring { .. } => self.ledger.latest_decided(),
        };
        self.tell_gate(GateAction::Park {
            epoch,
            services: [service.clone()].into(),
        });
    }

    /// Directive `Retire`: what is not live since `epoch` is drained and stopped.
    pub(super) fn retire(&mut self, epoch: Epoch) {
        let is_busy = self.participation.cut_over().is_some();
        if is_busy || epoch < self.ledger.switched {
            self.report_status();
            return;
        }
        self.participation = Participation::Retiring {
            epoch,
            drained: DrainEvidence::default(),
        };
        for slot in self.not_live() {
            let policy = &self.ledger.policy;
            self.slots.stop(&slot, policy, &mut self.effects);
        }
        self.advance_retire(DrainEvidence::default());
    }

    /// Slots that are in use, and not by what is live.
    fn not_live(&self) -> Vec<Slot> {
        let slots = self.slots.iter().map(|(slot, _)| slot);
        slots
            .filter(|slot| !self.ledger.is_live(slot))
            .cloned()
            .collect()
    }

    fn advance_retire(&mut self, stopped: DrainEvidence) {
        let is_over = self.slots.are_listed() && self.not_live().is_empty();
        let Participation::Retiring { epoch, drained } = &mut self.participation else {
            return;
        };
        drained.requests += stopped.requests;
        drained.streams += stopped.streams;
        drained.upgrades += stopped.upgrades;
        if !is_over {
            return;
        }
        let (epoch, drained) = (*epoch, *drained);
        self.participation = Participation::Idle;
        if !self.ledger.warm.is_empty() {
            self.record(AgentRecord::Retired(epoch));
        }
        self.report(epoch, Report::Retired(drained));
    }
}
