//! The two slots of each service: started, found again, healthy, dead, stopped.
//!
//! G4 lives here: the gate is opened to a slot only while the incarnation that runs there has
//! passed its check. A live application that dies is started again only once its gate has said
//! that its requests are parked, so that none reaches the new incarnation early; and until then
//! nothing is started beside it.

use super::{
    Agent, AgentEffect, AgentRecord, AgentTimer, GateAction, Listed, Participation, RunningSlot,
};
use crate::cut_over::CutOver;
use crate::evidence::DrainEvidence;
use crate::id::{Epoch, Incarnation, ServiceName};
use crate::message::Report;
use crate::policy::Policy;
use crate::release::{LiveRelease, Release, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a dead live application stays dead before it is started again: long enough for a
/// rollback to be the faster remedy, short enough for requests to wait through.
pub(super) const RESTART_AFTER: Duration = Duration::from_secs(1);

/// How long the gate has to park before an application is started after a restart of the agent.
const PARK_WITHIN: Duration = Duration::from_millis(20);

/// How a slot's application is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotState {
    /// Started or found again, and its check has not yet passed.
    Starting,
    /// Its check passes.
    Ready,
    /// It ran well once, and its check fails.
    Unhealthy,
    /// It is being drained and stopped.
    Stopping,
}

/// Whether a slot can take traffic for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// Not known yet, or not yet ready.
    Pending,
    Dead,
}

impl Readiness {
    /// The readiness of two slots together: a dead one spoils it, a pending one delays it.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Dead, _) | (_, Self::Dead) => Self::Dead,
            (Self::Pending, _) | (_, Self::Pending) => Self::Pending,
            (Self::Ready, Self::Ready) => Self::Ready,
        }
    }
}

impl Agent {
    pub(super) fn is_ready(&self, slot: &Slot, release: &Release) -> bool {
        self.readiness(slot, release) == Readiness::Ready
    }

    pub(super) fn readiness(&self, slot: &Slot, release: &Release) -> Readiness {
        match self.slots.get(slot) {
            Some(running) if running.digest == release.digest => match running.state {
                SlotState::Ready => Readiness::Ready,
                SlotState::Starting => Readiness::Pending,
                SlotState::Unhealthy | SlotState::Stopping => Readiness::Dead,
            },
            None if self.listed == Listed::No => Readiness::Pending,
            Some(_) | None => Readiness::Dead,
        }
    }

    /// The readiness of a cut-over as a whole.
    pub(super) fn targets_ready(&self, cut_over: &CutOver) -> Readiness {
        let mut all = Readiness::Ready;
        for (service, release) in cut_over.new_releases() {
            all = all.and(self.readiness(&self.ledger.idle_slot(service), release));
        }
        all
    }

    pub(super) fn start(
        &mut self,
        slot: Slot,
        epoch: Epoch,
        release: Release,
        ready_within: Duration,
        effects: &mut Vec<AgentEffect>,
    ) {
        let incarnation = Incarnation {
            epoch,
            attempt: self.starts,
        };
        self.starts += 1;
        self.slots.insert(
            slot.clone(),
            RunningSlot {
                incarnation,
                digest: release.digest.clone(),
                state: SlotState::Starting,
            },
        );
        effects.push(AgentEffect::Start {
            slot,
            incarnation,
            release,
            ready_within,
        });
    }

    pub(super) fn stop(&mut self, slot: &Slot, policy: &Policy, effects: &mut Vec<AgentEffect>) {
        let Some(running) = self.slots.get_mut(slot) else {
            return;
        };
        if running.state == SlotState::Stopping {
            return;
        }
        running.state = SlotState::Stopping;
        effects.push(AgentEffect::Stop {
            slot: slot.clone(),
            drain: policy.drain,
            stop: policy.stop,
        });
    }

    pub(super) fn slot_found(
        &mut self,
        slot: &Slot,
        incarnation: Incarnation,
        digest: String,
        effects: &mut Vec<AgentEffect>,
    ) {
        self.starts = self.starts.max(incarnation.attempt + 1);
        let expected = self.expected_in(slot).is_some_and(|r| r.digest == digest);
        self.slots.insert(
            slot.clone(),
            RunningSlot {
                incarnation,
                digest,
                state: SlotState::Starting,
            },
        );
        if !expected {
            let policy = self.ledger.policy.clone();
            self.stop(slot, &policy, effects);
        }
    }

    /// Which release the ledger says belongs into a slot.
    fn expected_in(&self, slot: &Slot) -> Option<&Release> {
        let kept = |known: &BTreeMap<ServiceName, LiveRelease>| {
            known
                .get(&slot.service)
                .filter(|live| live.color == slot.color)
                .map(|live| live.release.digest.clone())
        };
        if kept(&self.ledger.live).is_some() {
            return self.ledger.live.get(&slot.service).map(|l| &l.release);
        }
        if let Participation::Prepared(c) | Participation::Armed(c) = &self.ledger.participation
            && let Some(Some(release)) = c.releases.get(&slot.service)
        {
            return Some(release);
        }
        kept(&self.ledger.warm)?;
        self.ledger.warm.get(&slot.service).map(|l| &l.release)
    }

    pub(super) fn slots_listed(&mut self, effects: &mut Vec<AgentEffect>) {
        self.listed = Listed::Yes;
        for (service, live) in self.ledger.live.clone() {
            let slot = Slot {
                service: service.clone(),
                color: live.color,
            };
            if !self.slots.contains_key(&slot) {
                // Whoever watches it must know, and the agent that saw it die may not have told.
                let reason = "it was dead when the agent came back".to_owned();
                self.report(live.epoch, Report::Unhealthy { service, reason }, effects);
            }
        }
        self.restart_live(PARK_WITHIN, effects);
        self.advance(effects);
    }

    pub(super) fn slot_ready(
        &mut self,
        slot: &Slot,
        incarnation: Incarnation,
        effects: &mut Vec<AgentEffect>,
    ) {
        match self.slots.get_mut(slot) {
            Some(running)
                if running.incarnation == incarnation && running.state != SlotState::Stopping =>
            {
                running.state = SlotState::Ready;
            }
            Some(_) | None => return,
        }
        if self.ledger.is_live(slot) {
            self.reassert_gate(effects);
            self.report_status(effects);
        }
        self.advance(effects);
    }

    pub(super) fn slot_unhealthy(
        &mut self,
        slot: &Slot,
        incarnation: Incarnation,
        reason: String,
        effects: &mut Vec<AgentEffect>,
    ) {
        match self.slots.get_mut(slot) {
            Some(running)
                if running.incarnation == incarnation && running.state != SlotState::Stopping =>
            {
                running.state = SlotState::Unhealthy;
            }
            Some(_) | None => return,
        }
        self.lost(slot, reason, effects);
    }

    pub(super) fn slot_exited(
        &mut self,
        slot: &Slot,
        incarnation: Incarnation,
        reason: String,
        effects: &mut Vec<AgentEffect>,
    ) {
        match self.slots.get(slot) {
            // A stop under way reports its own end.
            Some(running)
                if running.incarnation == incarnation && running.state != SlotState::Stopping => {}
            Some(_) | None => return,
        }
        self.slots.remove(slot);
        if self.ledger.is_live(slot) {
            self.park(&slot.service, effects);
            Self::restart_soon(effects);
        }
        self.lost(slot, reason, effects);
    }

    pub(super) fn restart_soon(effects: &mut Vec<AgentEffect>) {
        effects.push(AgentEffect::SetTimer {
            timer: AgentTimer::Restart,
            after: RESTART_AFTER,
        });
    }

    /// A slot can no longer take traffic: say so where it matters.
    fn lost(&mut self, slot: &Slot, reason: String, effects: &mut Vec<AgentEffect>) {
        if self.ledger.is_live(slot) {
            let epoch = self
                .ledger
                .live
                .get(&slot.service)
                .map_or(Epoch(0), |live| live.epoch);
            let service = slot.service.clone();
            self.report(epoch, Report::Unhealthy { service, reason }, effects);
        } else if let Some(cut_over) = self.preparing.clone()
            && cut_over.deploys(&slot.service)
        {
            self.prepare_failed(&cut_over, reason, effects);
        } else {
            self.advance(effects);
        }
    }

    pub(super) fn slot_stopped(
        &mut self,
        slot: &Slot,
        drained: DrainEvidence,
        effects: &mut Vec<AgentEffect>,
    ) {
        if self
            .slots
            .get(slot)
            .is_some_and(|running| running.state == SlotState::Stopping)
        {
            self.slots.remove(slot);
        }
        self.advance_retire(drained, effects);
        self.restart_live(PARK_WITHIN, effects);
        self.advance(effects);
    }

    /// Says again which live applications are not there: the first report may have been lost.
    pub(super) fn report_unhealthy(&self, effects: &mut Vec<AgentEffect>) {
        for (service, live) in &self.ledger.live {
            let slot = Slot {
                service: service.clone(),
                color: live.color,
            };
            if self.readiness(&slot, &live.release) == Readiness::Dead {
                let service = service.clone();
                let reason = "the live application is not healthy".to_owned();
                self.report(live.epoch, Report::Unhealthy { service, reason }, effects);
            }
        }
    }

    /// Starts every live release that does not run, if its gate is parked; if not, it is to be
    /// parked, as is what was found dead at its switch, and this is tried `again` later.
    pub(super) fn restart_live(&mut self, again: Duration, effects: &mut Vec<AgentEffect>) {
        if self.listed == Listed::No {
            return;
        }
        let mut waits = false;
        for (service, live) in self.ledger.live.clone() {
            let slot = Slot {
                service,
                color: live.color,
            };
            let gone = !self.slots.contains_key(&slot);
            if gone && self.parked.remove(&slot.service) {
                let within = self.ledger.policy.prepare;
                self.start(slot, live.epoch, live.release, within, effects);
            } else if gone || self.must_be_parked(&slot, &live.release) {
                self.park(&slot.service, effects);
                waits = true;
            }
        }
        if waits {
            let timer = AgentTimer::Restart;
            let after = again;
            effects.push(AgentEffect::SetTimer { timer, after });
        }
    }

    /// The gate has parked these services. An answer from before a later start or cut-over says
    /// nothing of what runs now.
    pub(super) fn gate_parked(
        &mut self,
        services: &BTreeSet<ServiceName>,
        effects: &mut Vec<AgentEffect>,
    ) {
        for service in services {
            self.unparked.remove(service);
            let slot = self.live_slot(service);
            if slot.is_some_and(|slot| !self.slots.contains_key(&slot)) {
                self.parked.insert(service.clone());
            }
        }
        self.advance(effects);
    }

    /// Whether no request can reach what is started in the idle slot. If the live application
    /// died before its switch, its gate was never opened to it: one that has restarted since may
    /// lead to the release before it, until it says that it is parked.
    pub(super) fn is_shut_off(&self, service: &ServiceName) -> bool {
        let live = self.live_slot(service);
        let runs = live.is_none_or(|slot| self.slots.contains_key(&slot));
        !self.unparked.contains(service) && (runs || self.parked.contains(service))
    }

    /// Opens the gate to every live release that is ready, unless a hold is on, and to nothing for
    /// what was removed; parks what was never opened.
    pub(super) fn reassert_gate(&mut self, effects: &mut Vec<AgentEffect>) {
        self.open_live(effects);
        for (service, live) in self.ledger.live.clone() {
            let color = live.color;
            let slot = Slot { service, color };
            if self.must_be_parked(&slot, &live.release) {
                self.park(&slot.service, effects);
            }
        }
        self.reassert_hold(effects);
    }

    /// Whether it was found dead at its switch and still is, and its gate has not said that it is
    /// parked. One that is well again is opened instead.
    fn must_be_parked(&self, slot: &Slot, release: &Release) -> bool {
        self.unparked.contains(&slot.service) && !self.is_ready(slot, release)
    }

    pub(super) fn open_live(&self, effects: &mut Vec<AgentEffect>) {
        let mut epoch = self.ledger.latest_decided();
        let mut colors = BTreeMap::new();
        for (service, live) in &self.ledger.live {
            let slot = Slot {
                service: service.clone(),
                color: live.color,
            };
            if self.is_ready(&slot, &live.release) && !self.is_held(service) {
                epoch = epoch.max(live.epoch);
                colors.insert(service.clone(), Some(live.color));
            }
        }
        let removed = self.ledger.removed.keys();
        let removed = removed.filter(|service| !self.is_held(service));
        colors.extend(removed.map(|service| (service.clone(), None)));
        if !colors.is_empty() {
            effects.push(AgentEffect::Gate(GateAction::Open { epoch, colors }));
        }
    }

    /// Keeps the requests of a service whose live application is gone. A held gate is parked as
    /// well, or its deadline would let them through to what is being started there; the gate
    /// knows the hold's cut-over, and would refuse an older one.
    fn park(&mut self, service: &ServiceName, effects: &mut Vec<AgentEffect>) {
        self.parked.remove(service);
        if self.has_opened_to_new(service) {
            return;
        }
        let epoch = match &self.ledger.participation {
            Participation::Armed(cut_over) if self.is_held(service) => cut_over.epoch,
            Participation::Armed(_) | Participation::Prepared(_) | Participation::Idle => {
                self.ledger.latest_decided()
            }
        };
        effects.push(AgentEffect::Gate(GateAction::Park {
            epoch,
            services: [service.clone()].into(),
        }));
    }

    fn live_slot(&self, service: &ServiceName) -> Option<Slot> {
        self.ledger.live.get(service).map(|live| Slot {
            service: service.clone(),
            color: live.color,
        })
    }

    /// Directive `Retire`: what is not live since `epoch` is drained and stopped.
    pub(super) fn retire(&mut self, epoch: Epoch, effects: &mut Vec<AgentEffect>) {
        let busy = self.preparing.is_some() || self.ledger.participation != Participation::Idle;
        if busy || epoch < self.ledger.switched {
            self.report_status(effects);
            return;
        }
        self.retiring = Some((epoch, DrainEvidence::default()));
        let policy = self.ledger.policy.clone();
        let idle: Vec<_> = self
            .slots
            .keys()
            .filter(|slot| !self.ledger.is_live(slot))
            .cloned()
            .collect();
        for slot in idle {
            self.stop(&slot, &policy, effects);
        }
        self.advance_retire(DrainEvidence::default(), effects);
    }

    fn advance_retire(&mut self, drained: DrainEvidence, effects: &mut Vec<AgentEffect>) {
        let Some((epoch, total)) = &mut self.retiring else {
            return;
        };
        total.requests += drained.requests;
        total.streams += drained.streams;
        total.upgrades += drained.upgrades;
        let (epoch, total) = (*epoch, *total);
        let left = self.slots.keys().any(|slot| !self.ledger.is_live(slot));
        if left || self.listed == Listed::No {
            return;
        }
        self.retiring = None;
        if !self.ledger.warm.is_empty() {
            self.record(AgentRecord::Retired(epoch), effects);
        }
        self.report(epoch, Report::Retired(total), effects);
    }
}
