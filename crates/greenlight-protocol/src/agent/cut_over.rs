//! The phases of a cut-over as the instance goes through them.

use super::ledger::AgentRecord;
use super::participation::{Hold, Participation};
use super::slots::{Readiness, SlotState};
use super::{Agent, Decision, GateAction};
use crate::cut_over::CutOver;
use crate::evidence::{HoldEvidence, SwitchEvidence};
use crate::id::{Epoch, ServiceName};
use crate::message::Report;
use crate::mutant::broken;
use crate::release::Color;
use std::collections::BTreeMap;
use std::time::Duration;

impl Agent {
    /// Directive `Prepare`.
    pub(super) fn prepare(&mut self, cut_over: CutOver) {
        let epoch = cut_over.epoch;
        if let Some(known) = self.ledger.decided.get(&epoch).copied() {
            // The first answer may have been lost, and no other process knows of this abort.
            self.answer_again(epoch, known);
            return;
        }
        match &self.participation {
            Participation::Prepared { cut_over: c, .. } if c.epoch == epoch => {
                self.report(epoch, Report::Prepared);
                return;
            }
            Participation::Prepared {
                cut_over: older, ..
            } if older.epoch < epoch => {
                let older = older.epoch;
                self.finish(older, Decision::Aborted, Report::Aborted);
            }
            // Overtaken on its way by a newer cut-over's (G6); or only the decision of the armed
            // epoch can end that, and the coordinator will see so.
            Participation::Prepared { .. } | Participation::Armed { .. } => {
                self.report_status();
                return;
            }
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Retiring { .. } => {}
        }
        if epoch <= self.ledger.latest_decided() {
            self.report_status();
            return;
        }
        if let Participation::Preparing { cut_over: other } = &self.participation {
            if other.epoch >= epoch {
                return;
            }
            let older = other.epoch;
            self.finish(older, Decision::Aborted, Report::Aborted);
        }
        self.participation = Participation::Preparing { cut_over };
        self.advance();
    }

    /// Goes as far as the slots allow: from preparing to prepared, or from a decision to the gate.
    pub(super) fn advance(&mut self) {
        match &self.participation {
            Participation::Preparing { cut_over } => {
                let cut_over = cut_over.clone();
                self.advance_prepare(cut_over);
            }
            Participation::Armed { .. } => self.advance_commit(),
            Participation::Idle
            | Participation::Prepared { .. }
            | Participation::Retiring { .. } => {}
        }
    }

    fn advance_prepare(&mut self, cut_over: CutOver) {
        let mut ready = true;
        for (service, release) in cut_over.new_releases() {
            let slot = self.ledger.idle_slot(service);
            match self.slots.get(&slot).map(|r| (r.state, &r.digest)) {
                Some((SlotState::Ready, digest)) if *digest == release.digest => continue,
                Some((SlotState::Starting, digest)) if *digest == release.digest => {}
                Some((SlotState::Stopping, _)) => {}
                Some(_) => self.slots.stop(&slot, &cut_over.policy, &mut self.effects),
                None if self.slots.are_listed() && self.is_shut_off(service) => {
                    let within = cut_over.policy.prepare;
                    let effects = &mut self.effects;
                    self.slots
                        .start(slot, cut_over.epoch, release.clone(), within, effects);
                }
                None => {}
            }
            ready = false;
        }
        if ready {
            let epoch = cut_over.epoch;
            self.record(AgentRecord::Prepared(Box::new(cut_over.clone())));
            self.participation = Participation::prepared(cut_over);
            self.report(epoch, Report::Prepared);
        }
    }

    /// Directive `Arm`.
    pub(super) fn arm(&mut self, epoch: Epoch) {
        let sync = Duration::ZERO;
        match &self.participation {
            Participation::Prepared { cut_over, .. } if cut_over.epoch == epoch => {
                match self.targets_ready(cut_over) {
                    Readiness::Ready => {
                        self.promise(epoch);
                        self.report(epoch, Report::Armed { sync });
                    }
                    // After a restart the checks need a moment; the coordinator asks again.
                    Readiness::Pending => {}
                    Readiness::Dead => {
                        let reason = "the new release died after it was ready".to_owned();
                        let report = Report::PrepareFailed { reason };
                        self.finish(epoch, Decision::Aborted, report);
                    }
                }
            }
            Participation::Armed { cut_over, .. } if cut_over.epoch == epoch => {
                self.report(epoch, Report::Armed { sync });
            }
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Prepared { .. }
            | Participation::Armed { .. }
            | Participation::Retiring { .. } => match self.ledger.decided.get(&epoch).copied() {
                Some(known) => self.answer_again(epoch, known),
                None => self.report_status(),
            },
        }
    }

    fn promise(&mut self, epoch: Epoch) {
        let record = AgentRecord::Armed(epoch);
        if broken!(self, ArmedVolatile) {
            self.ledger.apply(&record);
        } else {
            self.record(record);
        }
        if let Some(Participation::Prepared { cut_over, .. }) = self.participation.leave(epoch) {
            self.participation = Participation::Armed {
                cut_over,
                hold: Hold::Open,
                decision: None,
            };
        }
    }

    /// Directive `Hold`.
    pub(super) fn hold(&mut self, epoch: Epoch) {
        let Participation::Armed {
            cut_over,
            hold,
            decision: None,
        } = &self.participation
        else {
            self.report_status();
            return;
        };
        if cut_over.epoch != epoch {
            self.report_status();
            return;
        }
        match hold.clone() {
            Hold::Open if self.targets_ready(cut_over) == Readiness::Ready => {
                let action = self.hold_action(cut_over);
                self.tell_gate(action);
                self.set_hold(Hold::Asked);
            }
            Hold::Open => {
                let reason = "the new release is no longer healthy".to_owned();
                self.report(epoch, Report::HoldRefused { reason });
            }
            Hold::Asked => {}
            Hold::Acknowledged(evidence) => self.report(epoch, Report::Held(evidence)),
            Hold::Uncertain => {
                let reason = "the agent restarted while armed".to_owned();
                self.report(epoch, Report::HoldRefused { reason });
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

    fn set_hold(&mut self, new: Hold) {
        if let Participation::Armed { hold, .. } = &mut self.participation {
            *hold = new;
        }
    }

    pub(super) fn gate_held(&mut self, epoch: Epoch, evidence: HoldEvidence) {
        let Participation::Armed {
            cut_over,
            hold: hold @ Hold::Asked,
            decision: None,
        } = &mut self.participation
        else {
            return;
        };
        if cut_over.epoch == epoch {
            *hold = Hold::Acknowledged(evidence.clone());
            self.report(epoch, Report::Held(evidence));
            self.query_decision_later(epoch, 0);
        }
    }

    /// The gate could not hold: without this instance's acknowledgement the epoch can never be
    /// committed.
    pub(super) fn gate_refused(&mut self, epoch: Epoch, reason: String) {
        let Participation::Armed {
            cut_over,
            hold: Hold::Asked,
            decision: None | Some(Decision::Aborted),
        } = &self.participation
        else {
            return;
        };
        if cut_over.epoch == epoch {
            self.report(epoch, Report::HoldRefused { reason });
            self.finish(epoch, Decision::Aborted, Report::Aborted);
        }
    }

    /// Obeys the decision of an epoch, no matter who delivers it.
    pub(super) fn decided(&mut self, epoch: Epoch, decision: Decision) {
        if let Some(known) = self.ledger.decided.get(&epoch).copied() {
            self.answer_again(epoch, known);
            return;
        }
        let latest = self.ledger.latest_decided();
        match (&mut self.participation, decision) {
            (
                Participation::Armed {
                    cut_over,
                    decision: known,
                    ..
                },
                _,
            ) if cut_over.epoch == epoch => {
                known.get_or_insert(decision);
                match decision {
                    Decision::Committed => self.advance_commit(),
                    Decision::Aborted => self.reopen(),
                }
            }
            (
                Participation::Preparing { cut_over } | Participation::Prepared { cut_over, .. },
                Decision::Aborted,
            ) if cut_over.epoch == epoch => {
                self.finish(epoch, Decision::Aborted, Report::Aborted);
            }
            // Never heard of: abort it for good, so that a late `Prepare` starts nothing.
            (
                Participation::Idle
                | Participation::Preparing { .. }
                | Participation::Prepared { .. }
                | Participation::Armed { .. }
                | Participation::Retiring { .. },
                Decision::Aborted,
            ) if epoch > latest => self.finish(epoch, Decision::Aborted, Report::Aborted),
            (
                Participation::Idle
                | Participation::Preparing { .. }
                | Participation::Prepared { .. }
                | Participation::Armed { .. }
                | Participation::Retiring { .. },
                Decision::Committed | Decision::Aborted,
            ) => self.report_status(),
        }
    }

    /// Ends an epoch: the only way out of it. The decision becomes durable, and then the
    /// coordinator is told. After an abort the gate is told to reopen if it may be held, and what
    /// was started for the epoch is stopped (G2).
    pub(super) fn finish(&mut self, epoch: Epoch, decision: Decision, report: Report) {
        let left = self.participation.leave(epoch);
        match decision {
            Decision::Committed => {
                // What was parked was the release before it.
                let cut_over = left.as_ref().and_then(Participation::cut_over);
                for service in cut_over.into_iter().flat_map(|c| c.releases.keys()) {
                    self.gate.forget_parked(service);
                }
                self.record(AgentRecord::Switched(epoch));
                self.report(epoch, report);
            }
            Decision::Aborted => {
                self.record(AgentRecord::Aborted(epoch));
                if let Some(Participation::Armed { hold, .. }) = &left
                    && *hold != Hold::Open
                {
                    self.reassert_gate();
                }
                self.report(epoch, report);
                if let Some(cut_over) = left.as_ref().and_then(Participation::cut_over) {
                    self.stop_new(cut_over);
                }
            }
        }
    }

    /// G2: a failed cut-over leaves no new application behind. What ran before it stays.
    fn stop_new(&mut self, cut_over: &CutOver) {
        for service in cut_over.releases.keys() {
            let slot = self.ledger.idle_slot(service);
            let running = self.slots.get(&slot);
            if running.is_some_and(|running| running.incarnation.epoch == cut_over.epoch) {
                let effects = &mut self.effects;
                self.slots.stop(&slot, &cut_over.policy, effects);
            }
        }
    }

    /// Answers once more for an epoch whose decision is durable here.
    fn answer_again(&mut self, epoch: Epoch, known: Decision) {
        match known {
            Decision::Aborted => self.report(epoch, Report::Aborted),
            Decision::Committed => {
                if let Some(reason) = self.gate.refusal(epoch) {
                    let reason = reason.to_owned();
                    self.report(epoch, Report::SwitchFailed { reason });
                    return;
                }
                match self.live_readiness(epoch) {
                    Readiness::Ready => {
                        self.report(epoch, Report::Switched(SwitchEvidence::default()));
                    }
                    // After a restart the checks need a moment; the coordinator asks again.
                    Readiness::Pending => {}
                    Readiness::Dead => {
                        let reason = "the new release is not healthy".to_owned();
                        self.report(epoch, Report::SwitchFailed { reason });
                    }
                }
            }
        }
    }

    fn live_readiness(&self, epoch: Epoch) -> Readiness {
        let mut all = Readiness::Ready;
        for (service, live) in &self.ledger.live {
            if live.epoch == epoch {
                let slot = live.slot(service);
                all = all.and(self.slots.readiness(&slot, &live.release));
            }
        }
        all
    }

    /// Opens to the new release if the epoch is committed and the release is healthy (G4).
    fn advance_commit(&mut self) {
        let Participation::Armed {
            cut_over,
            decision: Some(Decision::Committed),
            ..
        } = &self.participation
        else {
            return;
        };
        let epoch = cut_over.epoch;
        let mut colors = self.target_colors(cut_over);
        match self.targets_ready(cut_over) {
            Readiness::Ready => self.tell_gate(GateAction::Open { epoch, colors }),
            Readiness::Pending => {}
            Readiness::Dead => {
                colors.retain(|_, color| color.is_none());
                let dead = cut_over.new_releases().map(|(service, _)| service.clone());
                let dead: Vec<_> = dead.collect();
                // Before the record: an agent that finds the record after a crash does not ask the
                // gate again.
                self.tell_gate(GateAction::Park {
                    epoch,
                    services: dead.iter().cloned().collect(),
                });
                let reason = "the new release died before the switch".to_owned();
                let report = Report::SwitchFailed { reason };
                self.finish(epoch, Decision::Committed, report);
                self.gate.require_parking(dead.into_iter());
                if !colors.is_empty() {
                    self.tell_gate(GateAction::Open { epoch, colors });
                }
                // It died when it was not yet live, so nothing has asked for its restart.
                self.restart_soon();
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

    /// Opens the gate of the aborted epoch to the old release. The abort becomes durable when the
    /// gate is open, or at once if it was never held or cannot be opened: then a check opens it.
    fn reopen(&mut self) {
        let Participation::Armed { cut_over, hold, .. } = &self.participation else {
            return;
        };
        let epoch = cut_over.epoch;
        let live = |service| Some((service, self.ledger.live.get(service)?));
        let old: BTreeMap<_, _> = cut_over.releases.keys().filter_map(live).collect();
        let is_ready = old
            .iter()
            .all(|(service, live)| self.slots.is_ready(&live.slot(service), &live.release));
        if *hold == Hold::Open || old.is_empty() || !is_ready {
            self.finish(epoch, Decision::Aborted, Report::Aborted);
            return;
        }
        let colors = old.into_iter();
        let colors = colors.map(|(service, live)| (service.clone(), Some(live.color)));
        let colors = colors.collect();
        self.tell_gate(GateAction::Open { epoch, colors });
    }

    pub(super) fn gate_opened(
        &mut self,
        epoch: Epoch,
        colors: &BTreeMap<ServiceName, Option<Color>>,
        evidence: SwitchEvidence,
    ) {
        self.gate.has_opened(|service| colors.contains_key(service));
        match &self.participation {
            Participation::Armed {
                cut_over, decision, ..
            } if cut_over.epoch == epoch => match decision {
                Some(Decision::Committed) if *colors == self.target_colors(cut_over) => {
                    self.finish(epoch, Decision::Committed, Report::Switched(evidence));
                }
                Some(Decision::Aborted) => {
                    self.set_hold(Hold::Open);
                    self.finish(epoch, Decision::Aborted, Report::Aborted);
                }
                Some(Decision::Committed) | None => {}
            },
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Prepared { .. }
            | Participation::Armed { .. }
            | Participation::Retiring { .. } => {
                if self.ledger.decided.get(&epoch) == Some(&Decision::Committed) {
                    self.report(epoch, Report::Switched(evidence));
                }
            }
        }
    }

    /// The front could not be brought to the new release. The decision stands all the same, so it
    /// is recorded; the coordinator rolls the fleet back, and the old release runs until then.
    /// After an abort the front is merely asked again: it never left the old release.
    pub(super) fn gate_failed(
        &mut self,
        epoch: Epoch,
        colors: &BTreeMap<ServiceName, Option<Color>>,
        reason: String,
    ) {
        let report = Report::SwitchFailed {
            reason: reason.clone(),
        };
        match &self.participation {
            Participation::Armed {
                cut_over, decision, ..
            } if cut_over.epoch == epoch => {
                let is_ours = *colors == self.target_colors(cut_over);
                if *decision != Some(Decision::Committed) || !is_ours {
                    return;
                }
                self.finish(epoch, Decision::Committed, report);
            }
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Prepared { .. }
            | Participation::Armed { .. }
            | Participation::Retiring { .. } => {
                if self.ledger.decided.get(&epoch) != Some(&Decision::Committed) {
                    return;
                }
                self.report(epoch, report);
            }
        }
        self.gate.has_refused_to_open(epoch, reason);
    }

    /// Whether the gate was told to open to the service's new release, which is live as soon as
    /// the gate has answered.
    pub(super) fn has_opened_to_new(&self, service: &ServiceName) -> bool {
        let Participation::Armed {
            cut_over,
            decision: Some(Decision::Committed),
            ..
        } = &self.participation
        else {
            return false;
        };
        cut_over.releases.contains_key(service) && self.targets_ready(cut_over) == Readiness::Ready
    }

    /// Whether a hold covers the service, so that only a decision may open its gate.
    pub(super) fn is_held(&self, service: &ServiceName) -> bool {
        matches!(
            &self.participation,
            Participation::Armed { cut_over, hold, .. }
                if *hold != Hold::Open && cut_over.releases.contains_key(service)
        )
    }
}
