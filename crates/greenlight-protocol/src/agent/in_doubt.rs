//! In doubt: what an armed agent does when the decision does not come.
//!
//! It asks the coordinator at once and again, and every peer as well once the hold budget is over:
//! a question makes a peer that is merely late abort the epoch, so until the coordinator must have
//! decided it would do harm. A peer that knows the decision answers with it. A peer that has not
//! acknowledged a hold can still abort the epoch, and does, durably, *before* it answers: after
//! that no commit can come about, because a commit needs its acknowledgement. If all are held and
//! none knows, all wait: none may guess (G1).

use super::participation::{Hold, Participation};
use super::{Agent, AgentEffect, AgentTimer, Decision, GateAction};
use crate::id::{Epoch, InstanceId};
use crate::message::{PeerAnswer, Report};
use crate::mutant::broken;
use std::time::Duration;

/// The wait before the first query, doubled after each up to the last.
const FIRST_QUERY_AFTER: Duration = Duration::from_millis(20);
/// How often the wait doubles: 20, 40, 80, 160, 320 ms.
const DOUBLINGS: u8 = 4;

impl Agent {
    pub(super) fn query_decision_later(&mut self, epoch: Epoch, asked: u8) {
        self.effects.push(AgentEffect::SetTimer {
            timer: AgentTimer::QueryDecision { epoch, asked },
            after: Self::query_after(asked),
        });
    }

    /// The wait before query number `asked`, from 0.
    fn query_after(asked: u8) -> Duration {
        FIRST_QUERY_AFTER * (1 << asked.min(DOUBLINGS))
    }

    /// The timer has fired: asks for the decision if it has not come.
    pub(super) fn query_decision(&mut self, epoch: Epoch, asked: u8) {
        let Participation::Armed {
            cut_over,
            hold,
            decision,
        } = &self.participation
        else {
            return;
        };
        if cut_over.epoch != epoch || !hold.may_be_acknowledged() {
            return;
        }
        let others = cut_over.participants.iter();
        let others = others.filter(|peer| **peer != self.me).cloned();
        let others: Vec<_> = others.collect();
        let waited: Duration = (0..=asked).map(Self::query_after).sum();
        let overdue = waited >= cut_over.policy.hold_budget || asked == u8::MAX;
        if decision.is_none() {
            self.report(epoch, Report::InDoubt);
            if overdue {
                let queries = others.into_iter();
                let queries = queries.map(|peer| AgentEffect::AskPeer { peer, epoch });
                self.effects.extend(queries);
            }
        }
        self.query_decision_later(epoch, asked.saturating_add(1));
    }

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
            self.tell_gate(GateAction::Open { epoch, colors });
            return;
        }
        self.reassert_hold();
        self.query_decision_later(epoch, 0);
    }

    /// The gate came back after it was away: hold again what was held.
    pub(super) fn reassert_hold(&mut self) {
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
            self.decided(epoch, decision);
        } else {
            let action = self.hold_action(cut_over);
            self.tell_gate(action);
        }
    }

    pub(super) fn peer_asked(&mut self, peer: InstanceId, epoch: Epoch) {
        let answer = self.answer_peer(epoch);
        self.effects.push(AgentEffect::AnswerPeer {
            peer,
            epoch,
            answer,
        });
    }

    fn answer_peer(&mut self, epoch: Epoch) -> PeerAnswer {
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
            let is_held = matches!(
                &self.participation,
                Participation::Armed { hold, .. } if hold.may_be_acknowledged()
            );
            return match is_held {
                true => PeerAnswer::Unknown,
                false => PeerAnswer::Aborted,
            };
        }
        match &self.participation {
            Participation::Armed {
                cut_over,
                hold,
                decision,
            } if cut_over.epoch == epoch => match (hold, decision) {
                (_, Some(Decision::Committed)) => PeerAnswer::Committed,
                (Hold::Open | Hold::Asked, _) => {
                    self.finish(epoch, Decision::Aborted, Report::Aborted);
                    PeerAnswer::Aborted
                }
                (Hold::Acknowledged(_) | Hold::Uncertain, _) => PeerAnswer::Unknown,
            },
            Participation::Prepared { cut_over, .. } if cut_over.epoch == epoch => {
                self.finish(epoch, Decision::Aborted, Report::Aborted);
                PeerAnswer::Aborted
            }
            // An armed agent knows that all were prepared: of this one's epochs none is
            // meant, and to abort what is to come would let a peer stop the fleet for good.
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Prepared { .. }
            | Participation::Armed { .. }
            | Participation::Retiring { .. } => PeerAnswer::Unknown,
        }
    }

    pub(super) fn peer_answered(&mut self, epoch: Epoch, answer: PeerAnswer) {
        let decision = match answer {
            PeerAnswer::Committed => Decision::Committed,
            PeerAnswer::Aborted => Decision::Aborted,
            PeerAnswer::Unknown => return,
        };
        if let Participation::Armed { cut_over, .. } = &self.participation
            && cut_over.epoch == epoch
        {
            self.decided(epoch, decision);
        }
    }
}
