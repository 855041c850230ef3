//! The hold of the armed epoch, up to its acknowledgement. Changes how far it has come; a gate that
//! refuses it ends the epoch (`cut_over.rs`).

use super::effect::GateAction;
use super::in_doubt;
use super::ledger::Ledger;
use super::output::{Fits, Output};
use super::participation::{Hold, Participation};
use super::slots::{Readiness, Slots};
use super::targets;
use crate::cut_over::CutOver;
use crate::evidence::HoldEvidence;
use crate::id::Epoch;
use crate::message::Report;

/// Directive `Hold`.
pub(super) fn hold(
    epoch: Epoch,
    participation: &mut Participation,
    ledger: &Ledger,
    slots: &Slots,
    output: &mut Output,
) -> Fits {
    let Participation::Armed {
        cut_over,
        hold,
        decision: None,
    } = participation
    else {
        return Fits::No;
    };
    if cut_over.epoch != epoch {
        return Fits::No;
    }
    match hold {
        Hold::Open if targets::readiness(cut_over, ledger, slots) == Readiness::Ready => {
            output.tell_gate(action(cut_over, ledger));
            *hold = Hold::Asked;
        }
        Hold::Open => {
            let reason = "the new release is no longer healthy".to_owned();
            output.report(ledger, epoch, Report::HoldRefused { reason });
        }
        Hold::Asked => {}
        Hold::Acknowledged(evidence) => {
            output.report(ledger, epoch, Report::Held(evidence.clone()));
        }
        Hold::Uncertain => {
            let reason = "the agent restarted while armed".to_owned();
            output.report(ledger, epoch, Report::HoldRefused { reason });
        }
    }
    Fits::Yes
}

/// The gate holds: acknowledges it, and asks for the decision if that does not come.
pub(super) fn held(
    epoch: Epoch,
    evidence: HoldEvidence,
    participation: &mut Participation,
    ledger: &Ledger,
    output: &mut Output,
) {
    let Participation::Armed {
        cut_over,
        hold: hold @ Hold::Asked,
        decision: None,
    } = participation
    else {
        return;
    };
    if cut_over.epoch == epoch {
        *hold = Hold::Acknowledged(evidence.clone());
        output.report(ledger, epoch, Report::Held(evidence));
        in_doubt::ask_later(epoch, 0, output);
    }
}

/// What the gate is told.
pub(super) fn action(cut_over: &CutOver, ledger: &Ledger) -> GateAction {
    GateAction::Hold {
        epoch: cut_over.epoch,
        services: targets::affected_services(cut_over, ledger)
            .cloned()
            .collect(),
        max_hold: cut_over.policy.max_hold,
        on_uncertain: cut_over.policy.on_uncertain,
        exclusive: cut_over.policy.exclusive,
    }
}
