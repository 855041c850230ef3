//! In doubt: what an armed agent does when the decision does not come.
//!
//! It asks the coordinator at once and again, and every peer as well once the hold budget is over:
//! a question makes a peer that is merely late abort the epoch, so until the coordinator must have
//! decided it would do harm. A peer that knows the decision says so. A peer that has not
//! acknowledged a hold can still abort the epoch, and does, durably, *before* it answers: after that no commit can come about, because a commit needs its
//! acknowledgement. If all are held and nobody knows, all wait: nobody may guess (G1).

use super::{Agent, AgentEffect, AgentTimer, Decision, GateAction, Hold, Participation};
use crate::id::{Epoch, InstanceId};
use crate::message::{PeerAnswer, Report};
use crate::mutant::broken;
use std::time::Duration;

/// The wait before the first query, doubled after each up to the last.
const FIRST_QUERY_AFTER: Duration = Duration::from_millis(20);
/// How often the wait doubles: 20, 40, 80, 160, 320 ms.
const DOUBLINGS: u8 = 4;

impl Agent {
    pub(super) fn query_decision_later(epoch: Epoch, asked: u8, effects: &mut Vec<AgentEffect>) {
        effects.push(AgentEffect::SetTimer {
            timer: AgentTimer::QueryDecision { epoch, asked },
            after: Self::query_after(asked),
        });
    }

    /// The wait before question number `asked`, from 0.
    fn query_after(asked: u8) -> Duration {
        FIRST_QUERY_AFTER * (1 << asked.min(DOUBLINGS))
    }

    pub(super) fn query_decision(
        &mut self,
        epoch: Epoch,
        asked: u8,
        effects: &mut Vec<AgentEffect>,
    ) {
        let Participation::Armed(cut_over) = &self.ledger.participation else {
            return;
        };
        let waits = matches!(self.hold, Hold::Acknowledged(_) | Hold::Uncertain);
        if cut_over.epoch != epoch || !waits {
            return;
        }
        let peers: Vec<_> = cut_over
            .participants
            .iter()
            .filter(|peer| **peer != self.me)
            .cloned()
            .collect();
        let waited: Duration = (0..=asked).map(Self::query_after).sum();
        let overdue = waited >= cut_over.policy.hold_budget || asked == u8::MAX;
        if self.decision.is_none() {
            self.report(epoch, Report::InDoubt, effects);
            if overdue {
                for peer in peers {
                    effects.push(AgentEffect::AskPeer { peer, epoch });
                }
            }
        }
        Self::query_decision_later(epoch, asked.saturating_add(1), effects);
    }

    /// What a restart does: an armed agent comes back held and in doubt, never open to old.
    pub(super) fn recover_participation(&mut self, effects: &mut Vec<AgentEffect>) {
        let Participation::Armed(cut_over) = self.ledger.participation.clone() else {
            return;
        };
        if broken!(self, ReopenAfterRestart) {
            let colors = cut_over
                .releases
                .keys()
                .filter_map(|s| Some((s.clone(), Some(self.ledger.live.get(s)?.color))))
                .collect();
            let epoch = cut_over.epoch;
            effects.push(AgentEffect::Gate(GateAction::Open { epoch, colors }));
            return;
        }
        self.hold = Hold::Uncertain;
        effects.push(AgentEffect::Gate(self.hold_action(&cut_over)));
        Self::query_decision_later(cut_over.epoch, 0, effects);
    }

    /// The gate came back after it was away: hold again what was held.
    pub(super) fn reassert_hold(&mut self, effects: &mut Vec<AgentEffect>) {
        let Participation::Armed(cut_over) = self.ledger.participation.clone() else {
            return;
        };
        match (&self.hold, self.decision) {
            (Hold::Open, _) => {}
            (_, Some(decision)) => self.decided(cut_over.epoch, decision, effects),
            (Hold::Asked | Hold::Acknowledged(_) | Hold::Uncertain, None) => {
                effects.push(AgentEffect::Gate(self.hold_action(&cut_over)));
            }
        }
    }

    pub(super) fn peer_asked(
        &mut self,
        peer: InstanceId,
        epoch: Epoch,
        effects: &mut Vec<AgentEffect>,
    ) {
        let answer = self.answer_peer(epoch, effects);
        effects.push(AgentEffect::AnswerPeer {
            peer,
            epoch,
            answer,
        });
    }

    fn answer_peer(&mut self, epoch: Epoch, effects: &mut Vec<AgentEffect>) -> PeerAnswer {
        if let Some(known) = self.ledger.decided.get(&epoch) {
            return match known {
                Decision::Committed => PeerAnswer::Committed,
                Decision::Aborted => PeerAnswer::Aborted,
            };
        }
        if epoch <= self.ledger.latest_decided() {
            return PeerAnswer::Unknown;
        }
        if broken!(self, RefuseWithoutPromise) {
            let acknowledged = matches!(self.hold, Hold::Acknowledged(_) | Hold::Uncertain);
            return if acknowledged {
                PeerAnswer::Unknown
            } else {
                PeerAnswer::Aborted
            };
        }
        match self.ledger.participation.clone() {
            Participation::Armed(c) if c.epoch == epoch => match (&self.hold, self.decision) {
                (_, Some(Decision::Committed)) => PeerAnswer::Committed,
                (Hold::Open | Hold::Asked, _) => {
                    self.abort_unheld(&c, effects);
                    PeerAnswer::Aborted
                }
                (Hold::Acknowledged(_) | Hold::Uncertain, _) => PeerAnswer::Unknown,
            },
            Participation::Prepared(c) if c.epoch == epoch => {
                self.decided(epoch, Decision::Aborted, effects);
                PeerAnswer::Aborted
            }
            // Whoever is armed has heard that all were prepared: of this one's epochs none is
            // meant, and to abort what is to come would let a peer stop the fleet for good.
            Participation::Idle | Participation::Prepared(_) | Participation::Armed(_) => {
                PeerAnswer::Unknown
            }
        }
    }

    pub(super) fn peer_answered(
        &mut self,
        epoch: Epoch,
        answer: PeerAnswer,
        effects: &mut Vec<AgentEffect>,
    ) {
        let decision = match answer {
            PeerAnswer::Committed => Decision::Committed,
            PeerAnswer::Aborted => Decision::Aborted,
            PeerAnswer::Unknown => return,
        };
        if matches!(&self.ledger.participation, Participation::Armed(c) if c.epoch == epoch) {
            self.decided(epoch, decision, effects);
        }
    }
}
