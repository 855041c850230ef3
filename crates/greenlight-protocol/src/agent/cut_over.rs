//! The phases of a cut-over as the instance goes through them, and its one end.
//!
//! What is here may begin, go on with, decide or end an epoch, and then everything may change: the
//! promise in the ledger, the slots that were started for it, and what the gate is told. So these
//! are methods of the whole agent. What changes less is a function of the parts that it changes, in
//! a file of its own.

use super::effect::AgentEffect;
use super::in_doubt::{self, ToPeer};
use super::ledger::AgentRecord;
use super::output::Fits;
use super::participation::{Hold, Participation};
use super::slots::{Readiness, SlotState};
use super::{Agent, Decision, GateAction, hold, live, targets};
use crate::cut_over::CutOver;
use crate::evidence::SwitchEvidence;
use crate::id::{Epoch, InstanceId, ServiceName};
use crate::message::{PeerAnswer, Report};
use crate::mutant::broken;
use crate::release::Color;
use std::collections::BTreeMap;
use std::time::Duration;

impl Agent {
    /// Directive `Prepare`.
    pub(super) fn prepare(&mut self, cut_over: CutOver) -> Fits {
        let epoch = cut_over.epoch;
        if let Some(known) = self.ledger.decided.get(&epoch).copied() {
            // The first answer may have been lost, and no other process knows of this abort.
            self.answer_again(epoch, known);
            return Fits::Yes;
        }
        match &self.participation {
            Participation::Prepared { cut_over: c, .. } if c.epoch == epoch => {
                self.report(epoch, Report::Prepared);
                return Fits::Yes;
            }
            Participation::Prepared {
                cut_over: older, ..
            } if older.epoch < epoch => {
                let older = older.epoch;
                self.finish(older, Decision::Aborted, Report::Aborted);
            }
            // Overtaken on its way by a newer cut-over's (G6); or only the decision of the armed
            // epoch can end that, and the coordinator will see so.
            Participation::Prepared { .. } | Participation::Armed { .. } => return Fits::No,
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Retiring { .. } => {}
        }
        if epoch <= self.ledger.latest_decided() {
            return Fits::No;
        }
        if let Participation::Preparing { cut_over: other } = &self.participation {
            if other.epoch >= epoch {
                return Fits::Yes;
            }
            let older = other.epoch;
            self.finish(older, Decision::Aborted, Report::Aborted);
        }
        self.participation = Participation::Preparing { cut_over };
        self.advance();
        Fits::Yes
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
                Some(_) => self.slots.stop(&slot, &cut_over.policy, &mut self.output),
                None if self.slots.are_listed()
                    && live::is_shut_off(service, &self.ledger, &self.slots, &self.gate) =>
                {
                    let within = cut_over.policy.prepare;
                    let output = &mut self.output;
                    self.slots
                        .start(slot, cut_over.epoch, release.clone(), within, output);
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
    pub(super) fn arm(&mut self, epoch: Epoch) -> Fits {
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
                None => return Fits::No,
            },
        }
        Fits::Yes
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
    pub(super) fn decided(&mut self, epoch: Epoch, decision: Decision) -> Fits {
        if let Some(known) = self.ledger.decided.get(&epoch).copied() {
            self.answer_again(epoch, known);
            return Fits::Yes;
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
            ) => return Fits::No,
        }
        Fits::Yes
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
                let output = &mut self.output;
                self.slots.stop(&slot, &cut_over.policy, output);
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
                match targets::live_readiness(epoch, &self.ledger, &self.slots) {
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
        let mut colors = targets::colors(cut_over, &self.ledger);
        match self.targets_ready(cut_over) {
            Readiness::Ready => self.output.tell_gate(GateAction::Open { epoch, colors }),
            Readiness::Pending => {}
            Readiness::Dead => {
                colors.retain(|_, color| color.is_none());
                let dead = cut_over.new_releases().map(|(service, _)| service.clone());
                let dead: Vec<_> = dead.collect();
                // Before the record: an agent that finds the record after a crash does not ask the
                // gate again.
                self.output.tell_gate(GateAction::Park {
                    epoch,
                    services: dead.iter().cloned().collect(),
                });
                let reason = "the new release died before the switch".to_owned();
                let report = Report::SwitchFailed { reason };
                self.finish(epoch, Decision::Committed, report);
                self.gate.require_parking(dead.into_iter());
                if !colors.is_empty() {
                    self.output.tell_gate(GateAction::Open { epoch, colors });
                }
                // It died when it was not yet live, so nothing has asked for its restart.
                live::restart_soon(&mut self.output);
            }
        }
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
        self.output.tell_gate(GateAction::Open { epoch, colors });
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
                Some(Decision::Committed) if *colors == targets::colors(cut_over, &self.ledger) => {
                    self.finish(epoch, Decision::Committed, Report::Switched(evidence));
                }
                Some(Decision::Aborted) => {
                    if let Participation::Armed { hold, .. } = &mut self.participation {
                        *hold = Hold::Open;
                    }
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
                let is_ours = *colors == targets::colors(cut_over, &self.ledger);
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

    // In doubt.

    /// What a restart does: an armed agent comes back held and in doubt, never open to old.
    pub(super) fn resume_in_doubt(&mut self) {
        let Participation::Armed { cut_over, hold, .. } = &mut self.participation else {
            return;
        };
        let epoch = cut_over.epoch;
        if broken!(self, ReopenAfterRestart) {
            *hold = Hold::Open;
            let live = |service| Some((service, self.ledger.live.get(service)?));
            let colors = cut_over.releases.keys().filter_map(live);
            let colors = colors.map(|(service, live)| (service.clone(), Some(live.color)));
            let colors = colors.collect();
            self.output.tell_gate(GateAction::Open { epoch, colors });
            return;
        }
        self.reassert_hold();
        in_doubt::ask_later(epoch, 0, &mut self.output);
    }

    /// The gate came back after it was away, or a live application did: tells it everything again.
    pub(super) fn reassert_gate(&mut self) {
        self.live().reassert();
        self.reassert_hold();
    }

    /// Holds again what was held.
    fn reassert_hold(&mut self) {
        let Participation::Armed {
            cut_over,
            hold: Hold::Asked | Hold::Acknowledged(_) | Hold::Uncertain,
            decision,
        } = &self.participation
        else {
            return;
        };
        if let Some(decision) = *decision {
            let epoch = cut_over.epoch;
            if self.decided(epoch, decision) == Fits::No {
                self.report_status();
            }
        } else {
            let action = hold::action(cut_over, &self.ledger);
            self.output.tell_gate(action);
        }
    }

    pub(super) fn peer_asked(&mut self, peer: InstanceId, epoch: Epoch) {
        let answer = match self.to_peer(epoch) {
            ToPeer::Answer(answer) => answer,
            ToPeer::AbortFirst => {
                self.finish(epoch, Decision::Aborted, Report::Aborted);
                PeerAnswer::Aborted
            }
        };
        self.output.push(AgentEffect::AnswerPeer {
            peer,
            epoch,
            answer,
        });
    }

    fn to_peer(&self, epoch: Epoch) -> ToPeer {
        #[cfg(feature = "mutants")]
        if broken!(self, RefuseWithoutPromise) {
            return in_doubt::to_peer_without_promise(epoch, &self.participation, &self.ledger);
        }
        in_doubt::to_peer(epoch, &self.participation, &self.ledger)
    }

    pub(super) fn peer_answered(&mut self, epoch: Epoch, answer: PeerAnswer) {
        let decision = match answer {
            PeerAnswer::Committed => Decision::Committed,
            PeerAnswer::Aborted => Decision::Aborted,
            PeerAnswer::Unknown => return,
        };
        if let Participation::Armed { cut_over, .. } = &self.participation
            && cut_over.epoch == epoch
            && self.decided(epoch, decision) == Fits::No
        {
            self.report_status();
        }
    }
}
