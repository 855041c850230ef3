//! The phases of a cut-over as the instance goes through them.

use super::slots::Readiness;
use super::{
    Agent, AgentEffect, AgentRecord, Decision, GateAction, Hold, Participation, SlotState,
};
use crate::cut_over::CutOver;
use crate::evidence::{HoldEvidence, SwitchEvidence};
use crate::id::{Epoch, ServiceName};
use crate::message::Report;
use crate::mutant::broken;
use crate::release::{Color, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Agent {
    pub(super) fn prepare(&mut self, cut_over: CutOver, effects: &mut Vec<AgentEffect>) {
        let epoch = cut_over.epoch;
        if let Some(known) = self.ledger.decided.get(&epoch).copied() {
            // The first answer may have been lost, and nobody else knows of this abort.
            self.answer_again(epoch, known, effects);
            return;
        }
        match &self.ledger.participation {
            Participation::Prepared(c) if c.epoch == epoch => {
                self.report(epoch, Report::Prepared, effects);
                return;
            }
            Participation::Armed(_) => {
                // Only the decision of that epoch can end it; the coordinator will see this.
                self.report_status(effects);
                return;
            }
            Participation::Prepared(older) if older.epoch < epoch => {
                let older = older.epoch;
                self.decided(older, Decision::Aborted, effects);
            }
            Participation::Prepared(_) => {
                // Overtaken on its way by a newer cut-over's (G6).
                self.report_status(effects);
                return;
            }
            Participation::Idle => {}
        }
        if epoch <= self.ledger.latest_decided() {
            self.report_status(effects);
            return;
        }
        match &self.preparing {
            Some(c) if c.epoch >= epoch => return,
            Some(older) => {
                let older = older.epoch;
                self.decided(older, Decision::Aborted, effects);
            }
            None => {}
        }
        self.retiring = None;
        self.preparing = Some(cut_over);
        self.advance(effects);
    }

    /// Goes as far as the slots allow: from preparing to prepared, or from a decision to the gate.
    pub(super) fn advance(&mut self, effects: &mut Vec<AgentEffect>) {
        if let Some(cut_over) = self.preparing.clone() {
            self.advance_prepare(&cut_over, effects);
        }
        self.advance_commit(effects);
    }

    fn advance_prepare(&mut self, cut_over: &CutOver, effects: &mut Vec<AgentEffect>) {
        let mut ready = true;
        for (service, release) in cut_over.new_releases() {
            let slot = self.ledger.idle_slot(service);
            match self.slots.get(&slot).map(|r| (r.state, r.digest.clone())) {
                Some((SlotState::Ready, digest)) if digest == release.digest => continue,
                Some((SlotState::Starting, digest)) if digest == release.digest => {}
                Some((SlotState::Stopping, _)) => {}
                Some(_) => self.stop(&slot, &cut_over.policy, effects),
                None if self.listed == super::Listed::Yes && self.is_shut_off(service) => {
                    let within = cut_over.policy.prepare;
                    self.start(slot, cut_over.epoch, release.clone(), within, effects);
                }
                None => {}
            }
            ready = false;
        }
        if ready {
            self.preparing = None;
            self.hold = Hold::Open;
            self.decision = None;
            self.record(AgentRecord::Prepared(Box::new(cut_over.clone())), effects);
            self.report(cut_over.epoch, Report::Prepared, effects);
        }
    }

    pub(super) fn prepare_failed(
        &mut self,
        cut_over: &CutOver,
        reason: String,
        effects: &mut Vec<AgentEffect>,
    ) {
        self.preparing = None;
        self.record(AgentRecord::Aborted(cut_over.epoch), effects);
        self.report(cut_over.epoch, Report::PrepareFailed { reason }, effects);
        self.remove_new(cut_over, effects);
    }

    pub(super) fn arm(&mut self, epoch: Epoch, effects: &mut Vec<AgentEffect>) {
        match self.ledger.participation.clone() {
            Participation::Prepared(c) if c.epoch == epoch => match self.targets_ready(&c) {
                Readiness::Ready => {
                    self.promise(epoch, effects);
                    let sync = Duration::ZERO;
                    self.report(epoch, Report::Armed { sync }, effects);
                }
                // After a restart the checks need a moment; the coordinator asks again.
                Readiness::Pending => {}
                Readiness::Dead => {
                    let reason = "the new release died after it was ready".to_owned();
                    self.record(AgentRecord::Aborted(epoch), effects);
                    self.report(epoch, Report::PrepareFailed { reason }, effects);
                    self.remove_new(&c, effects);
                }
            },
            Participation::Armed(c) if c.epoch == epoch => {
                let sync = Duration::ZERO;
                self.report(epoch, Report::Armed { sync }, effects);
            }
            Participation::Idle | Participation::Prepared(_) | Participation::Armed(_) => {
                match self.ledger.decided.get(&epoch).copied() {
                    Some(known) => self.answer_again(epoch, known, effects),
                    None => self.report_status(effects),
                }
            }
        }
    }

    fn promise(&mut self, epoch: Epoch, effects: &mut Vec<AgentEffect>) {
        let record = AgentRecord::Armed(epoch);
        if broken!(self, ArmedVolatile) {
            self.ledger.apply(&record);
        } else {
            self.record(record, effects);
        }
    }

    pub(super) fn hold(&mut self, epoch: Epoch, effects: &mut Vec<AgentEffect>) {
        let Participation::Armed(cut_over) = self.ledger.participation.clone() else {
            self.report_status(effects);
            return;
        };
        if cut_over.epoch != epoch || self.decision.is_some() {
            self.report_status(effects);
            return;
        }
        match self.hold.clone() {
            Hold::Open if self.targets_ready(&cut_over) == Readiness::Ready => {
                self.hold = Hold::Asked;
                effects.push(AgentEffect::Gate(self.hold_action(&cut_over)));
            }
            Hold::Open => {
                let reason = "the new release is no longer healthy".to_owned();
                self.report(epoch, Report::HoldRefused { reason }, effects);
            }
            Hold::Asked => {}
            Hold::Acknowledged(evidence) => self.report(epoch, Report::Held(evidence), effects),
            Hold::Uncertain => {
                let reason = "the agent restarted while armed".to_owned();
                self.report(epoch, Report::HoldRefused { reason }, effects);
            }
        }
    }

    pub(super) fn hold_action(&self, cut_over: &CutOver) -> GateAction {
        GateAction::Hold {
            epoch: cut_over.epoch,
            services: self.affected_services(cut_over).cloned().collect(),
            max_hold: cut_over.policy.max_hold,
            on_uncertain: cut_over.policy.on_uncertain,
            exclusive: cut_over.policy.exclusive,
        }
    }

    pub(super) fn gate_held(
        &mut self,
        epoch: Epoch,
        evidence: HoldEvidence,
        effects: &mut Vec<AgentEffect>,
    ) {
        let armed =
            matches!(&self.ledger.participation, Participation::Armed(c) if c.epoch == epoch);
        if !armed || self.hold != Hold::Asked || self.decision.is_some() {
            return;
        }
        self.hold = Hold::Acknowledged(evidence.clone());
        self.report(epoch, Report::Held(evidence), effects);
        Self::query_decision_later(epoch, 0, effects);
    }

    pub(super) fn gate_refused(
        &mut self,
        epoch: Epoch,
        reason: String,
        effects: &mut Vec<AgentEffect>,
    ) {
        let Participation::Armed(cut_over) = self.ledger.participation.clone() else {
            return;
        };
        let is_refusal = self.hold == Hold::Asked && self.decision != Some(Decision::Committed);
        if cut_over.epoch == epoch && is_refusal {
            self.report(epoch, Report::HoldRefused { reason }, effects);
            self.abort_unheld(&cut_over, effects);
        }
    }

    /// Aborts an armed epoch for good: without this instance's acknowledgement it can never be
    /// committed. The gate may have been asked, and who knows what it has done since; so it is
    /// told.
    pub(super) fn abort_unheld(&mut self, cut_over: &CutOver, effects: &mut Vec<AgentEffect>) {
        let epoch = cut_over.epoch;
        self.record(AgentRecord::Aborted(epoch), effects);
        let was_asked = self.hold != Hold::Open;
        self.hold = Hold::Open;
        self.decision = None;
        if was_asked {
            self.reassert_gate(effects);
        }
        self.report(epoch, Report::Aborted, effects);
        self.remove_new(cut_over, effects);
    }

    /// Obeys the decision of an epoch, whoever brought it.
    pub(super) fn decided(
        &mut self,
        epoch: Epoch,
        decision: Decision,
        effects: &mut Vec<AgentEffect>,
    ) {
        if let Some(known) = self.ledger.decided.get(&epoch).copied() {
            self.answer_again(epoch, known, effects);
            return;
        }
        match (self.ledger.participation.clone(), decision) {
            (Participation::Armed(c), _) if c.epoch == epoch => {
                if self.decision.is_none() {
                    self.decision = Some(decision);
                }
                match decision {
                    Decision::Committed => self.advance_commit(effects),
                    Decision::Aborted => self.reopen(&c, effects),
                }
            }
            (Participation::Prepared(c), Decision::Aborted) if c.epoch == epoch => {
                self.record(AgentRecord::Aborted(epoch), effects);
                self.report(epoch, Report::Aborted, effects);
                self.remove_new(&c, effects);
            }
            (
                Participation::Idle | Participation::Prepared(_) | Participation::Armed(_),
                Decision::Aborted,
            ) if epoch > self.ledger.latest_decided()
                || self.preparing.as_ref().is_some_and(|c| c.epoch == epoch) =>
            {
                // Never heard of, or not yet ready: abort it for good, so that a late `Prepare`
                // starts nothing.
                let preparing = self.preparing.take_if(|c| c.epoch == epoch);
                self.record(AgentRecord::Aborted(epoch), effects);
                self.report(epoch, Report::Aborted, effects);
                if let Some(c) = preparing {
                    self.remove_new(&c, effects);
                }
            }
            (Participation::Idle | Participation::Prepared(_) | Participation::Armed(_), _) => {
                self.report_status(effects);
            }
        }
    }

    fn answer_again(&self, epoch: Epoch, known: Decision, effects: &mut Vec<AgentEffect>) {
        match known {
            Decision::Aborted => self.report(epoch, Report::Aborted, effects),
            Decision::Committed if self.unopened.as_ref().is_some_and(|(e, _)| *e == epoch) => {
                let unopened = self.unopened.as_ref();
                let reason = unopened.map_or_else(String::new, |(_, reason)| reason.clone());
                self.report(epoch, Report::SwitchFailed { reason }, effects);
            }
            Decision::Committed => match self.live_readiness(epoch) {
                Readiness::Ready => {
                    self.report(epoch, Report::Switched(SwitchEvidence::default()), effects);
                }
                // After a restart the checks need a moment; the coordinator asks again.
                Readiness::Pending => {}
                Readiness::Dead => {
                    let reason = "the new release is not healthy".to_owned();
                    self.report(epoch, Report::SwitchFailed { reason }, effects);
                }
            },
        }
    }

    fn live_readiness(&self, epoch: Epoch) -> Readiness {
        let mut all = Readiness::Ready;
        for (service, live) in &self.ledger.live {
            if live.epoch != epoch {
                continue;
            }
            let slot = Slot {
                service: service.clone(),
                color: live.color,
            };
            all = all.and(self.readiness(&slot, &live.release));
        }
        all
    }

    /// Opens to the new release if the epoch is committed and the release is there (G4).
    fn advance_commit(&mut self, effects: &mut Vec<AgentEffect>) {
        let Participation::Armed(cut_over) = self.ledger.participation.clone() else {
            return;
        };
        if self.decision != Some(Decision::Committed) {
            return;
        }
        match self.targets_ready(&cut_over) {
            Readiness::Ready => {
                let colors = self.target_colors(&cut_over);
                let epoch = cut_over.epoch;
                effects.push(AgentEffect::Gate(GateAction::Open { epoch, colors }));
            }
            Readiness::Pending => {}
            Readiness::Dead => {
                let epoch = cut_over.epoch;
                let mut colors = self.target_colors(&cut_over);
                colors.retain(|_, color| color.is_none());
                let services = cut_over.new_releases().map(|(service, _)| service.clone());
                let services: BTreeSet<_> = services.collect();
                // Before the record: who finds it after a crash does not ask the gate again.
                effects.push(AgentEffect::Gate(GateAction::Park {
                    epoch,
                    services: services.clone(),
                }));
                self.record_switched(&cut_over, effects);
                self.unparked = services;
                if !colors.is_empty() {
                    effects.push(AgentEffect::Gate(GateAction::Open { epoch, colors }));
                }
                // It died when it was not yet live, so nothing has asked for its restart.
                Self::restart_soon(effects);
                let reason = "the new release died before the switch".to_owned();
                self.report(epoch, Report::SwitchFailed { reason }, effects);
            }
        }
    }

    /// The services of a cut-over that the gate knows: one that is removed may have come to the
    /// fleet while this instance was not part of it.
    fn affected_services<'a>(
        &'a self,
        cut_over: &'a CutOver,
    ) -> impl Iterator<Item = &'a ServiceName> {
        let releases = cut_over.releases.iter();
        releases
            .filter(|(service, release)| {
                release.is_some() || self.ledger.live.contains_key(*service)
            })
            .map(|(service, _)| service)
    }

    fn target_colors(&self, cut_over: &CutOver) -> BTreeMap<ServiceName, Option<Color>> {
        self.affected_services(cut_over)
            .map(|service| {
                let release = cut_over.releases[service].as_ref();
                let color = release.map(|_| self.ledger.idle_slot(service).color);
                (service.clone(), color)
            })
            .collect()
    }

    /// Opens the gate to the old release; the refusal becomes durable when it is open.
    fn reopen(&mut self, cut_over: &CutOver, effects: &mut Vec<AgentEffect>) {
        let colors: BTreeMap<_, _> = cut_over
            .releases
            .keys()
            .filter_map(|service| {
                let live = self.ledger.live.get(service)?;
                Some((service.clone(), Some(live.color)))
            })
            .collect();
        let epoch = cut_over.epoch;
        if self.hold == Hold::Open {
            // What the gate served it serves on; or it is parked, and a check opens it.
            self.record_aborted(epoch, cut_over, effects);
            return;
        }
        if colors.is_empty() || !self.old_is_ready(cut_over) {
            // Nothing was served before, or it is being started again: its check opens the gate.
            self.record_aborted(epoch, cut_over, effects);
            self.reassert_gate(effects);
            return;
        }
        effects.push(AgentEffect::Gate(GateAction::Open { epoch, colors }));
    }

    fn old_is_ready(&self, cut_over: &CutOver) -> bool {
        cut_over.releases.keys().all(|service| {
            self.ledger.live.get(service).is_none_or(|live| {
                let slot = Slot {
                    service: service.clone(),
                    color: live.color,
                };
                self.is_ready(&slot, &live.release)
            })
        })
    }

    fn record_aborted(&mut self, epoch: Epoch, cut_over: &CutOver, effects: &mut Vec<AgentEffect>) {
        self.hold = Hold::Open;
        self.decision = None;
        self.record(AgentRecord::Aborted(epoch), effects);
        self.report(epoch, Report::Aborted, effects);
        self.remove_new(cut_over, effects);
    }

    pub(super) fn gate_opened(
        &mut self,
        epoch: Epoch,
        colors: &BTreeMap<ServiceName, Option<Color>>,
        evidence: SwitchEvidence,
        effects: &mut Vec<AgentEffect>,
    ) {
        self.unopened = None;
        self.unparked
            .retain(|service| !colors.contains_key(service));
        match self.ledger.participation.clone() {
            Participation::Armed(c) if c.epoch == epoch => match self.decision {
                Some(Decision::Committed) if *colors == self.target_colors(&c) => {
                    self.record_switched(&c, effects);
                    self.report(epoch, Report::Switched(evidence), effects);
                }
                Some(Decision::Aborted) => self.record_aborted(epoch, &c, effects),
                Some(Decision::Committed) | None => {}
            },
            Participation::Idle | Participation::Prepared(_) | Participation::Armed(_) => {
                if self.ledger.decided.get(&epoch) == Some(&Decision::Committed) {
                    self.report(epoch, Report::Switched(evidence), effects);
                }
            }
        }
    }

    /// The front could not be brought to the new release. The decision stands all the same, so it
    /// is recorded; the coordinator takes the fleet back, and the old release runs until then.
    /// On the way to the old release it is merely asked again: it never left it.
    pub(super) fn gate_failed(
        &mut self,
        epoch: Epoch,
        colors: &BTreeMap<ServiceName, Option<Color>>,
        reason: String,
        effects: &mut Vec<AgentEffect>,
    ) {
        match self.ledger.participation.clone() {
            Participation::Armed(c) if c.epoch == epoch => {
                if self.decision != Some(Decision::Committed) || *colors != self.target_colors(&c) {
                    return;
                }
                self.record_switched(&c, effects);
            }
            Participation::Idle | Participation::Prepared(_) | Participation::Armed(_) => {
                if self.ledger.decided.get(&epoch) != Some(&Decision::Committed) {
                    return;
                }
            }
        }
        self.unopened = Some((epoch, reason.clone()));
        self.report(epoch, Report::SwitchFailed { reason }, effects);
    }

    fn record_switched(&mut self, cut_over: &CutOver, effects: &mut Vec<AgentEffect>) {
        self.hold = Hold::Open;
        self.decision = None;
        // What was parked was the release before it.
        self.parked
            .retain(|service| !cut_over.releases.contains_key(service));
        self.record(AgentRecord::Switched(cut_over.epoch), effects);
    }

    /// G2: a failed cut-over leaves no new application behind. What ran before it stays.
    pub(super) fn remove_new(&mut self, cut_over: &CutOver, effects: &mut Vec<AgentEffect>) {
        for service in cut_over.releases.keys() {
            let slot = self.ledger.idle_slot(service);
            let is_new = self
                .slots
                .get(&slot)
                .is_some_and(|running| running.incarnation.epoch == cut_over.epoch);
            if is_new {
                self.stop(&slot, &cut_over.policy, effects);
            }
        }
    }

    /// Whether the gate was told to open to the service's new release, which is live as soon as
    /// the gate has answered.
    pub(super) fn has_opened_to_new(&self, service: &ServiceName) -> bool {
        let Participation::Armed(cut_over) = &self.ledger.participation else {
            return false;
        };
        self.decision == Some(Decision::Committed)
            && cut_over.releases.contains_key(service)
            && self.targets_ready(cut_over) == Readiness::Ready
    }

    /// Whether a hold covers the service, so that only a decision may open its gate.
    pub(super) fn is_held(&self, service: &ServiceName) -> bool {
        self.hold != Hold::Open
            && matches!(&self.ledger.participation, Participation::Armed(c) if c.releases.contains_key(service))
    }
}
