//! In doubt: what an armed agent does when the decision does not come.
//!
//! It asks the coordinator at once and again, and every peer as well once the hold budget is over:
//! a question makes a peer that is merely late abort the epoch, so until the coordinator must have
//! decided it would do harm. A peer that knows the decision answers with it. A peer that has not
//! acknowledged a hold can still abort the epoch, and does, durably, *before* it answers: after
//! that no commit can come about, because a commit needs its acknowledgement. If all are held and
//! none knows, all wait: none may guess (G1).
//!
//! What ends the epoch is in `cut_over.rs`; nothing here changes more than the output.

use super::effect::{AgentEffect, AgentTimer};
use super::ledger::{Decision, Ledger};
use super::output::Output;
use super::participation::{Hold, Participation};
use crate::id::{Epoch, InstanceId};
use crate::message::{PeerAnswer, Report};
use std::time::Duration;

/// The wait before the first query, doubled after each up to the last.
const FIRST_QUERY_AFTER: Duration = Duration::from_millis(20);
/// How often the wait doubles: 20, 40, 80, 160, 320 ms.
const DOUBLINGS: u8 = 4;

/// What this agent can answer to a peer that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToPeer {
    Answer(PeerAnswer),
    /// Once it has durably aborted the epoch: that it is aborted.
    AbortFirst,
}

pub(super) fn ask_later(epoch: Epoch, asked: u8, output: &mut Output) {
    let timer = AgentTimer::QueryDecision { epoch, asked };
    output.set_timer(timer, query_after(asked));
}

/// The wait before query number `asked`, from 0.
fn query_after(asked: u8) -> Duration {
    FIRST_QUERY_AFTER * (1 << asked.min(DOUBLINGS))
}

/// The timer has fired: asks for the decision if it has not come.
pub(super) fn ask(
    epoch: Epoch,
    asked: u8,
    me: &InstanceId,
    participation: &Participation,
    ledger: &Ledger,
    output: &mut Output,
) {
    let Participation::Armed {
        cut_over,
        hold,
        decision,
    } = participation
    else {
        return;
    };
    if cut_over.epoch != epoch || !hold.may_be_acknowledged() {
        return;
    }
    let waited: Duration = (0..=asked).map(query_after).sum();
    let overdue = waited >= cut_over.policy.hold_budget || asked == u8::MAX;
    if decision.is_none() {
        output.report(ledger, epoch, Report::InDoubt);
        if overdue {
            let others = cut_over.participants.iter();
            for peer in others.filter(|peer| *peer != me).cloned() {
                output.push(AgentEffect::AskPeer { peer, epoch });
            }
        }
    }
    ask_later(epoch, asked.saturating_add(1), output);
}

/// What a peer that asks for the decision of an epoch is answered.
pub(super) fn to_peer(epoch: Epoch, participation: &Participation, ledger: &Ledger) -> ToPeer {
    if let Some(known) = ledger.decided.get(&epoch) {
        return ToPeer::Answer(match known {
            Decision::Committed => PeerAnswer::Committed,
            Decision::Aborted => PeerAnswer::Aborted,
        });
    }
    if epoch <= ledger.latest_decided() {
        return ToPeer::Answer(PeerAnswer::Unknown);
    }
    match participation {
        Participation::Armed {
            cut_over,
            hold,
            decision,
        } if cut_over.epoch == epoch => match (hold, decision) {
            (_, Some(Decision::Committed)) => ToPeer::Answer(PeerAnswer::Committed),
            (Hold::Open | Hold::Asked, _) => ToPeer::AbortFirst,
            (Hold::Acknowledged(_) | Hold::Uncertain, _) => ToPeer::Answer(PeerAnswer::Unknown),
        },
        Participation::Prepared { cut_over, .. } if cut_over.epoch == epoch => ToPeer::AbortFirst,
        // An armed agent knows that all were prepared: of this one's epochs none is
        // meant, and to abort what is to come would let a peer stop the fleet for good.
        Participation::Idle
        | Participation::Preparing { .. }
        | Participation::Prepared { .. }
        | Participation::Armed { .. }
        | Participation::Retiring { .. } => ToPeer::Answer(PeerAnswer::Unknown),
    }
}

/// The same with a rule broken: it answers that the epoch is aborted, and aborts nothing.
#[cfg(feature = "mutants")]
pub(super) fn to_peer_without_promise(
    epoch: Epoch,
    participation: &Participation,
    ledger: &Ledger,
) -> ToPeer {
    let is_held = matches!(
        participation,
        Participation::Armed { hold, .. } if hold.may_be_acknowledged()
    );
    let is_open = !ledger.decided.contains_key(&epoch) && epoch > ledger.latest_decided();
    match (is_open, is_held) {
        (false, _) => to_peer(epoch, participation, ledger),
        (true, true) => ToPeer::Answer(PeerAnswer::Unknown),
        (true, false) => ToPeer::Answer(PeerAnswer::Aborted),
    }
}
