//! Draining and stopping what is not live any more.

use super::ledger::{AgentRecord, Ledger};
use super::output::{Fits, Output};
use super::participation::Participation;
use super::slots::Slots;
use crate::evidence::DrainEvidence;
use crate::id::Epoch;
use crate::message::Report;
use crate::release::Slot;

/// Directive `Retire`: what is not live since `epoch` is drained and stopped.
pub(super) fn retire(
    epoch: Epoch,
    participation: &mut Participation,
    ledger: &mut Ledger,
    slots: &mut Slots,
    output: &mut Output,
) -> Fits {
    let is_busy = participation.cut_over().is_some();
    if is_busy || epoch < ledger.switched {
        return Fits::No;
    }
    *participation = Participation::Retiring {
        epoch,
        drained: DrainEvidence::default(),
    };
    for slot in not_live(ledger, slots) {
        slots.stop(&slot, &ledger.policy, output);
    }
    has_stopped(
        DrainEvidence::default(),
        participation,
        ledger,
        slots,
        output,
    );
    Fits::Yes
}

/// A slot has stopped; reports when the last one has.
pub(super) fn has_stopped(
    stopped: DrainEvidence,
    participation: &mut Participation,
    ledger: &mut Ledger,
    slots: &Slots,
    output: &mut Output,
) {
    let is_over = slots.are_listed() && not_live(ledger, slots).is_empty();
    let Participation::Retiring { epoch, drained } = participation else {
        return;
    };
    drained.requests += stopped.requests;
    drained.streams += stopped.streams;
    drained.upgrades += stopped.upgrades;
    if !is_over {
        return;
    }
    let (epoch, drained) = (*epoch, *drained);
    *participation = Participation::Idle;
    if !ledger.warm.is_empty() {
        output.record(ledger, AgentRecord::Retired(epoch));
    }
    output.report(ledger, epoch, Report::Retired(drained));
}

/// Slots that are in use, and not by what is live.
fn not_live(ledger: &Ledger, slots: &Slots) -> Vec<Slot> {
    let slots = slots.iter().map(|(slot, _)| slot);
    slots
        .filter(|slot| !ledger.is_live(slot))
        .cloned()
        .collect()
}
