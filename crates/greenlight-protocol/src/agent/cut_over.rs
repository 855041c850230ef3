//! The phases of a cut-over as the instance goes through them.

use super::slots::Readiness;
use super::{Agent, AgentEffect, AgentRecord, Decision, GateAction, Hold, SlotState, Stage};
use crate::cut_over::CutOver;
use crate::evidence::{HoldEvidence, SwitchEvidence};
use crate::id::{Epoch, ServiceName};
use crate::message::Report;
use crate::mutant::broken;
use crate::release::{Color, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Agent {
    pub(super) fn prepare(&mut self, cut_over: CutOver, fx: &mut Vec<AgentEffect>) {
        let epoch = cut_over.epoch;
        if let Some(known) = self.ledger.decided.get(&epoch).copied() {
            // The first answer may have been lost, and nobody else knows of this refusal.
            self.answer_again(epoch, known, fx);
            return;
        }
        match &self.ledger.stage {
            Stage::Prepared(c) if c.epoch == epoch => {
                self.report(epoch, Report::Prepared, fx);
                return;
            }
            Stage::Armed(_) => {
                // Only the decision of that epoch can end it; the coordinator will see this.
                self.report_status(fx);
                return;
            }
            Stage::Prepared(older) if older.epoch < epoch => {
                let older = older.epoch;
                self.decided(older, Decision::Refused, fx);
            }
            Stage::Prepared(_) => {
                // Overtaken on its way by a newer cut-over's (G6).
                self.report_status(fx);
                return;
            }
            Stage::Settled => {}
        }
        if epoch <= self.ledger.latest_decided() {
            self.report_status(fx);
            return;
        }
        match &self.preparing {
            Some(c) if c.epoch >= epoch => return,
            Some(older) => {
                let older = older.epoch;
                self.decided(older, Decision::Refused, fx);
            }
            None => {}
        }
        self.retiring = None;
        self.preparing = Some(cut_over);
        self.advance(fx);
    }

    /// Goes as far as the slots allow: from preparing to prepared, or from a decision to the gate.
    pub(super) fn advance(&mut self, fx: &mut Vec<AgentEffect>) {
        if let Some(cut_over) = self.preparing.clone() {
            self.advance_prepare(&cut_over, fx);
        }
        self.advance_commit(fx);
    }

    fn advance_prepare(&mut self, cut_over: &CutOver, fx: &mut Vec<AgentEffect>) {
        let mut ready = true;
        for (service, release) in cut_over.brought() {
            let slot = self.ledger.idle_slot(service);
            match self.slots.get(&slot).map(|r| (r.state, r.digest.clone())) {
                Some((SlotState::Ready, digest)) if digest == release.digest => continue,
                Some((SlotState::Starting, digest)) if digest == release.digest => {}
                Some((SlotState::Stopping, _)) => {}
                Some(_) => self.stop(&slot, &cut_over.policy, fx),
                None if self.listed == super::Listed::Yes && self.is_shut_off(service) => {
                    let within = cut_over.policy.prepare;
                    self.start(slot, cut_over.epoch, release.clone(), within, fx);
                }
                None => {}
            }
            ready = false;
        }
        if ready {
            self.preparing = None;
            self.hold = Hold::Open;
            self.verdict = None;
            self.record(AgentRecord::Prepared(Box::new(cut_over.clone())), fx);
            self.report(cut_over.epoch, Report::Prepared, fx);
        }
    }

    pub(super) fn prepare_failed(
        &mut self,
        cut_over: &CutOver,
        reason: String,
        fx: &mut Vec<AgentEffect>,
    ) {
        self.preparing = None;
        self.record(AgentRecord::Refused(cut_over.epoch), fx);
        self.report(cut_over.epoch, Report::PrepareFailed { reason }, fx);
        self.remove_new(cut_over, fx);
    }

    pub(super) fn arm(&mut self, epoch: Epoch, fx: &mut Vec<AgentEffect>) {
        match self.ledger.stage.clone() {
            Stage::Prepared(c) if c.epoch == epoch => match self.targets_ready(&c) {
                Readiness::Ready => {
                    self.promise(epoch, fx);
                    let sync = Duration::ZERO;
                    self.report(epoch, Report::Armed { sync }, fx);
                }
                // After a restart the checks need a moment; the coordinator asks again.
                Readiness::Pending => {}
                Readiness::Dead => {
                    let reason = "the new release died after it was ready".to_owned();
                    self.record(AgentRecord::Refused(epoch), fx);
                    self.report(epoch, Report::PrepareFailed { reason }, fx);
                    self.remove_new(&c, fx);
                }
            },
            Stage::Armed(c) if c.epoch == epoch => {
                let sync = Duration::ZERO;
                self.report(epoch, Report::Armed { sync }, fx);
            }
            Stage::Settled | Stage::Prepared(_) | Stage::Armed(_) => {
                match self.ledger.decided.get(&epoch).copied() {
                    Some(known) => self.answer_again(epoch, known, fx),
                    None => self.report_status(fx),
                }
            }
        }
    }

    fn promise(&mut self, epoch: Epoch, fx: &mut Vec<AgentEffect>) {
        let record = AgentRecord::Armed(epoch);
        if broken!(self, ArmedVolatile) {
            self.ledger.apply(&record);
        } else {
            self.record(record, fx);
        }
    }

    pub(super) fn hold(&mut self, epoch: Epoch, fx: &mut Vec<AgentEffect>) {
        let Stage::Armed(cut_over) = self.ledger.stage.clone() else {
            self.report_status(fx);
            return;
        };
        if cut_over.epoch != epoch || self.verdict.is_some() {
            self.report_status(fx);
            return;
        }
        match self.hold.clone() {
            Hold::Open if self.targets_ready(&cut_over) == Readiness::Ready => {
                self.hold = Hold::Asked;
                fx.push(AgentEffect::Gate(self.hold_action(&cut_over)));
            }
            Hold::Open => {
                let reason = "the new release is not healthy any more".to_owned();
                self.report(epoch, Report::HoldRefused { reason }, fx);
            }
            Hold::Asked => {}
            Hold::Acknowledged(evidence) => self.report(epoch, Report::Held(evidence), fx),
            Hold::Uncertain => {
                let reason = "the agent restarted while armed".to_owned();
                self.report(epoch, Report::HoldRefused { reason }, fx);
            }
        }
    }

    pub(super) fn hold_action(&self, cut_over: &CutOver) -> GateAction {
        GateAction::Hold {
            epoch: cut_over.epoch,
            services: self.concerned(cut_over).cloned().collect(),
            max_hold: cut_over.policy.max_hold,
            on_uncertain: cut_over.policy.on_uncertain,
            exclusive: cut_over.policy.exclusive,
        }
    }

    pub(super) fn gate_held(
        &mut self,
        epoch: Epoch,
        evidence: HoldEvidence,
        fx: &mut Vec<AgentEffect>,
    ) {
        let armed = matches!(&self.ledger.stage, Stage::Armed(c) if c.epoch == epoch);
        if !armed || self.hold != Hold::Asked || self.verdict.is_some() {
            return;
        }
        self.hold = Hold::Acknowledged(evidence.clone());
        self.report(epoch, Report::Held(evidence), fx);
        Self::doubt(epoch, 0, fx);
    }

    pub(super) fn gate_refused(&mut self, epoch: Epoch, reason: String, fx: &mut Vec<AgentEffect>) {
        let Stage::Armed(cut_over) = self.ledger.stage.clone() else {
            return;
        };
        let is_refusal = self.hold == Hold::Asked && self.verdict != Some(Decision::Committed);
        if cut_over.epoch == epoch && is_refusal {
            self.report(epoch, Report::HoldRefused { reason }, fx);
            self.refuse_unheld(&cut_over, fx);
        }
    }

    /// Refuses an armed epoch for good: without this instance's acknowledgement it can never be
    /// committed. The gate may have been asked, and who knows what it has done since; so it is
    /// told.
    pub(super) fn refuse_unheld(&mut self, cut_over: &CutOver, fx: &mut Vec<AgentEffect>) {
        let epoch = cut_over.epoch;
        self.record(AgentRecord::Refused(epoch), fx);
        let was_asked = self.hold != Hold::Open;
        self.hold = Hold::Open;
        self.verdict = None;
        if was_asked {
            self.reassert_gate(fx);
        }
        self.report(epoch, Report::Aborted, fx);
        self.remove_new(cut_over, fx);
    }

    /// Obeys the decision of an epoch, whoever brought it.
    pub(super) fn decided(&mut self, epoch: Epoch, decision: Decision, fx: &mut Vec<AgentEffect>) {
        if let Some(known) = self.ledger.decided.get(&epoch).copied() {
            self.answer_again(epoch, known, fx);
            return;
        }
        match (self.ledger.stage.clone(), decision) {
            (Stage::Armed(c), _) if c.epoch == epoch => {
                if self.verdict.is_none() {
                    self.verdict = Some(decision);
                }
                match decision {
                    Decision::Committed => self.advance_commit(fx),
                    Decision::Refused => self.reopen(&c, fx),
                }
            }
            (Stage::Prepared(c), Decision::Refused) if c.epoch == epoch => {
                self.record(AgentRecord::Refused(epoch), fx);
                self.report(epoch, Report::Aborted, fx);
                self.remove_new(&c, fx);
            }
            (Stage::Settled | Stage::Prepared(_) | Stage::Armed(_), Decision::Refused)
                if epoch > self.ledger.latest_decided()
                    || self.preparing.as_ref().is_some_and(|c| c.epoch == epoch) =>
            {
                // Never heard of, or not yet ready: refuse it for good, so that a late `Prepare`
                // starts nothing.
                let preparing = self.preparing.take_if(|c| c.epoch == epoch);
                self.record(AgentRecord::Refused(epoch), fx);
                self.report(epoch, Report::Aborted, fx);
                if let Some(c) = preparing {
                    self.remove_new(&c, fx);
                }
            }
            (Stage::Settled | Stage::Prepared(_) | Stage::Armed(_), _) => self.report_status(fx),
        }
    }

    fn answer_again(&self, epoch: Epoch, known: Decision, fx: &mut Vec<AgentEffect>) {
        match known {
            Decision::Refused => self.report(epoch, Report::Aborted, fx),
            Decision::Committed if self.unopened.as_ref().is_some_and(|(e, _)| *e == epoch) => {
                let unopened = self.unopened.as_ref();
                let reason = unopened.map_or_else(String::new, |(_, reason)| reason.clone());
                self.report(epoch, Report::SwitchFailed { reason }, fx);
            }
            Decision::Committed => match self.live_readiness(epoch) {
                Readiness::Ready => {
                    self.report(epoch, Report::Switched(SwitchEvidence::default()), fx);
                }
                // After a restart the checks need a moment; the coordinator asks again.
                Readiness::Pending => {}
                Readiness::Dead => {
                    let reason = "the new release is not healthy".to_owned();
                    self.report(epoch, Report::SwitchFailed { reason }, fx);
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
    fn advance_commit(&mut self, fx: &mut Vec<AgentEffect>) {
        let Stage::Armed(cut_over) = self.ledger.stage.clone() else {
            return;
        };
        if self.verdict != Some(Decision::Committed) {
            return;
        }
        match self.targets_ready(&cut_over) {
            Readiness::Ready => {
                let colors = self.target_colors(&cut_over);
                let epoch = cut_over.epoch;
                fx.push(AgentEffect::Gate(GateAction::Open { epoch, colors }));
            }
            Readiness::Pending => {}
            Readiness::Dead => {
                let epoch = cut_over.epoch;
                let mut colors = self.target_colors(&cut_over);
                colors.retain(|_, color| color.is_none());
                let services = cut_over.brought().map(|(service, _)| service.clone());
                let services: BTreeSet<_> = services.collect();
                // Before the record: who finds it after a crash does not ask the gate again.
                fx.push(AgentEffect::Gate(GateAction::Park {
                    epoch,
                    services: services.clone(),
                }));
                self.record_switched(&cut_over, fx);
                self.unparked = services;
                if !colors.is_empty() {
                    fx.push(AgentEffect::Gate(GateAction::Open { epoch, colors }));
                }
                // It died when it was not yet live, so nothing has asked for its restart.
                Self::restart_soon(fx);
                let reason = "the new release died before the switch".to_owned();
                self.report(epoch, Report::SwitchFailed { reason }, fx);
            }
        }
    }

    /// The services of a cut-over that the gate knows: one that is removed may have come to the
    /// fleet while this instance was not part of it.
    fn concerned<'a>(&'a self, cut_over: &'a CutOver) -> impl Iterator<Item = &'a ServiceName> {
        let releases = cut_over.releases.iter();
        releases
            .filter(|(service, release)| {
                release.is_some() || self.ledger.live.contains_key(*service)
            })
            .map(|(service, _)| service)
    }

    fn target_colors(&self, cut_over: &CutOver) -> BTreeMap<ServiceName, Option<Color>> {
        self.concerned(cut_over)
            .map(|service| {
                let release = cut_over.releases[service].as_ref();
                let color = release.map(|_| self.ledger.idle_slot(service).color);
                (service.clone(), color)
            })
            .collect()
    }

    /// Opens the gate to the old release; the refusal becomes durable when it is open.
    fn reopen(&mut self, cut_over: &CutOver, fx: &mut Vec<AgentEffect>) {
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
            self.refused(epoch, cut_over, fx);
            return;
        }
        if colors.is_empty() || !self.old_is_ready(cut_over) {
            // Nothing was served before, or it is being started again: its check opens the gate.
            self.refused(epoch, cut_over, fx);
            self.reassert_gate(fx);
            return;
        }
        fx.push(AgentEffect::Gate(GateAction::Open { epoch, colors }));
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

    fn refused(&mut self, epoch: Epoch, cut_over: &CutOver, fx: &mut Vec<AgentEffect>) {
        self.hold = Hold::Open;
        self.verdict = None;
        self.record(AgentRecord::Refused(epoch), fx);
        self.report(epoch, Report::Aborted, fx);
        self.remove_new(cut_over, fx);
    }

    pub(super) fn gate_opened(
        &mut self,
        epoch: Epoch,
        colors: &BTreeMap<ServiceName, Option<Color>>,
        evidence: SwitchEvidence,
        fx: &mut Vec<AgentEffect>,
    ) {
        self.unopened = None;
        self.unparked
            .retain(|service| !colors.contains_key(service));
        match self.ledger.stage.clone() {
            Stage::Armed(c) if c.epoch == epoch => match self.verdict {
                Some(Decision::Committed) if *colors == self.target_colors(&c) => {
                    self.record_switched(&c, fx);
                    self.report(epoch, Report::Switched(evidence), fx);
                }
                Some(Decision::Refused) => self.refused(epoch, &c, fx),
                Some(Decision::Committed) | None => {}
            },
            Stage::Settled | Stage::Prepared(_) | Stage::Armed(_) => {
                if self.ledger.decided.get(&epoch) == Some(&Decision::Committed) {
                    self.report(epoch, Report::Switched(evidence), fx);
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
        fx: &mut Vec<AgentEffect>,
    ) {
        match self.ledger.stage.clone() {
            Stage::Armed(c) if c.epoch == epoch => {
                if self.verdict != Some(Decision::Committed) || *colors != self.target_colors(&c) {
                    return;
                }
                self.record_switched(&c, fx);
            }
            Stage::Settled | Stage::Prepared(_) | Stage::Armed(_) => {
                if self.ledger.decided.get(&epoch) != Some(&Decision::Committed) {
                    return;
                }
            }
        }
        self.unopened = Some((epoch, reason.clone()));
        self.report(epoch, Report::SwitchFailed { reason }, fx);
    }

    fn record_switched(&mut self, cut_over: &CutOver, fx: &mut Vec<AgentEffect>) {
        self.hold = Hold::Open;
        self.verdict = None;
        // What was parked was the release before it.
        self.parked
            .retain(|service| !cut_over.releases.contains_key(service));
        self.record(AgentRecord::Switched(cut_over.epoch), fx);
    }

    /// G2: a failed cut-over leaves no new application behind. What ran before it stays.
    pub(super) fn remove_new(&mut self, cut_over: &CutOver, fx: &mut Vec<AgentEffect>) {
        for service in cut_over.releases.keys() {
            let slot = self.ledger.idle_slot(service);
            let is_new = self
                .slots
                .get(&slot)
                .is_some_and(|running| running.incarnation.epoch == cut_over.epoch);
            if is_new {
                self.stop(&slot, &cut_over.policy, fx);
            }
        }
    }

    /// Whether the gate was told to open to the service's new release, which is live as soon as
    /// the gate has answered.
    pub(super) fn has_opened_to_new(&self, service: &ServiceName) -> bool {
        let Stage::Armed(cut_over) = &self.ledger.stage else {
            return false;
        };
        self.verdict == Some(Decision::Committed)
            && cut_over.releases.contains_key(service)
            && self.targets_ready(cut_over) == Readiness::Ready
    }

    /// Whether a hold covers the service, so that only a decision may open its gate.
    pub(super) fn is_held(&self, service: &ServiceName) -> bool {
        self.hold != Hold::Open
            && matches!(&self.ledger.stage, Stage::Armed(c) if c.releases.contains_key(service))
    }
}
