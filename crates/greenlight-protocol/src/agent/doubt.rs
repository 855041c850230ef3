//! Doubt and its end: what an armed agent does when the decision does not come.
//!
//! It asks the coordinator at once and again, and every peer as well once the hold budget is over:
//! a question makes a peer that is merely late refuse, so until the coordinator must have decided
//! it would do harm. A peer that knows the decision says so. A peer that has not acknowledged a hold can still refuse the epoch, and does, durably,
//! *before* it answers: after that no commit can come about, because a commit needs its
//! acknowledgement. If all are held and nobody knows, all wait: nobody may guess (G1).

use super::{Agent, AgentEffect, AgentTimer, Decision, GateAction, Hold, Stage};
use crate::id::{Epoch, InstanceId};
use crate::message::{PeerAnswer, Report};
use crate::mutant::broken;
use std::time::Duration;

/// The wait before the first question, doubled after each up to the last.
const FIRST_DOUBT: Duration = Duration::from_millis(20);
/// How often the wait doubles: 20, 40, 80, 160, 320 ms.
const DOUBLINGS: u8 = 4;

impl Agent {
    pub(super) fn doubt(epoch: Epoch, asked: u8, fx: &mut Vec<AgentEffect>) {
        fx.push(AgentEffect::SetTimer {
            timer: AgentTimer::Doubt { epoch, asked },
            after: Self::doubt_after(asked),
        });
    }

    /// The wait before question number `asked`, from 0.
    fn doubt_after(asked: u8) -> Duration {
        FIRST_DOUBT * (1 << asked.min(DOUBLINGS))
    }

    pub(super) fn still_in_doubt(&mut self, epoch: Epoch, asked: u8, fx: &mut Vec<AgentEffect>) {
        let Stage::Armed(cut_over) = &self.ledger.stage else {
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
        let waited: Duration = (0..=asked).map(Self::doubt_after).sum();
        let overdue = waited >= cut_over.policy.hold_budget || asked == u8::MAX;
        if self.verdict.is_none() {
            self.report(epoch, Report::InDoubt, fx);
            if overdue {
                for peer in peers {
                    fx.push(AgentEffect::AskPeer { peer, epoch });
                }
            }
        }
        Self::doubt(epoch, asked.saturating_add(1), fx);
    }

    /// What a restart does: an armed agent comes back held and in doubt, never open to old.
    pub(super) fn come_back(&mut self, fx: &mut Vec<AgentEffect>) {
        let Stage::Armed(cut_over) = self.ledger.stage.clone() else {
            return;
        };
        if broken!(self, ReopenAfterRestart) {
            let colors = cut_over
                .releases
                .keys()
                .filter_map(|s| Some((s.clone(), Some(self.ledger.live.get(s)?.color))))
                .collect();
            let epoch = cut_over.epoch;
            fx.push(AgentEffect::Gate(GateAction::Open { epoch, colors }));
            return;
        }
        self.hold = Hold::Uncertain;
        fx.push(AgentEffect::Gate(self.hold_action(&cut_over)));
        Self::doubt(cut_over.epoch, 0, fx);
    }

    /// The gate came back after it was away: hold again what was held.
    pub(super) fn reassert_hold(&mut self, fx: &mut Vec<AgentEffect>) {
        let Stage::Armed(cut_over) = self.ledger.stage.clone() else {
            return;
        };
        match (&self.hold, self.verdict) {
            (Hold::Open, _) => {}
            (_, Some(decision)) => self.decided(cut_over.epoch, decision, fx),
            (Hold::Asked | Hold::Acknowledged(_) | Hold::Uncertain, None) => {
                fx.push(AgentEffect::Gate(self.hold_action(&cut_over)));
            }
        }
    }

    pub(super) fn peer_asked(&mut self, peer: InstanceId, epoch: Epoch, fx: &mut Vec<AgentEffect>) {
        let answer = self.answer_peer(epoch, fx);
        fx.push(AgentEffect::AnswerPeer {
            peer,
            epoch,
            answer,
        });
    }

    fn answer_peer(&mut self, epoch: Epoch, fx: &mut Vec<AgentEffect>) -> PeerAnswer {
        if let Some(known) = self.ledger.decided.get(&epoch) {
            return match known {
                Decision::Committed => PeerAnswer::Committed,
                Decision::Refused => PeerAnswer::Refused,
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
                PeerAnswer::Refused
            };
        }
        match self.ledger.stage.clone() {
            Stage::Armed(c) if c.epoch == epoch => match (&self.hold, self.verdict) {
                (_, Some(Decision::Committed)) => PeerAnswer::Committed,
                (Hold::Open | Hold::Asked, _) => {
                    self.refuse_unheld(&c, fx);
                    PeerAnswer::Refused
                }
                (Hold::Acknowledged(_) | Hold::Uncertain, _) => PeerAnswer::Unknown,
            },
            Stage::Prepared(c) if c.epoch == epoch => {
                self.decided(epoch, Decision::Refused, fx);
                PeerAnswer::Refused
            }
            // Whoever is armed has heard that all were prepared: of this one's epochs none is
            // meant, and to refuse what is to come would let a peer stop the fleet for good.
            Stage::Settled | Stage::Prepared(_) | Stage::Armed(_) => PeerAnswer::Unknown,
        }
    }

    pub(super) fn peer_answered(
        &mut self,
        epoch: Epoch,
        answer: PeerAnswer,
        fx: &mut Vec<AgentEffect>,
    ) {
        let decision = match answer {
            PeerAnswer::Committed => Decision::Committed,
            PeerAnswer::Refused => Decision::Refused,
            PeerAnswer::Unknown => return,
        };
        if matches!(&self.ledger.stage, Stage::Armed(c) if c.epoch == epoch) {
            self.decided(epoch, decision, fx);
        }
    }
}
