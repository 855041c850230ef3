//! What is live by decision: its gate is opened while it is ready (G4), parked when it is gone, and
//! it is restarted once the gate has confirmed that its requests are parked.
//!
//! Reads the ledger and where the instance stands in a cut-over, which stay as they are: nothing
//! here begins or ends an epoch.

use super::effect::{AgentTimer, GateAction};
use super::gate_view::GateView;
use super::ledger::Ledger;
use super::output::Output;
use super::participation::Participation;
use super::slots::{Readiness, Slots};
use super::targets;
use crate::id::ServiceName;
use crate::message::Report;
use crate::release::{Release, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a dead live application stays dead before it is started again: long enough for a
/// rollback to be the faster remedy, short enough for requests to wait through.
pub(super) const RESTART_AFTER: Duration = Duration::from_secs(1);

/// How long the gate has to park before an application is started after a restart of the agent.
pub(super) const PARK_TIMEOUT: Duration = Duration::from_millis(20);

/// The live releases, with the parts that are changed for them.
pub(super) struct Live<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) participation: &'a Participation,
    pub(super) slots: &'a mut Slots,
    pub(super) gate: &'a mut GateView,
    pub(super) output: &'a mut Output,
}

impl Live<'_> {
    /// Opens the gate to every live release that is ready, unless a hold is on, and to nothing for
    /// what was removed; parks what was never opened.
    pub(super) fn reassert(&mut self) {
        self.open();
        let ledger = self.ledger;
        for (service, live) in &ledger.live {
            if self.must_be_parked(&live.slot(service), &live.release) {
                self.park(service);
            }
        }
    }

    fn open(&mut self) {
        let mut epoch = self.ledger.latest_decided();
        let mut colors = BTreeMap::new();
        for (service, live) in &self.ledger.live {
            let is_ready = self.slots.is_ready(&live.slot(service), &live.release);
            if is_ready && !self.participation.holds(service) {
                epoch = epoch.max(live.epoch);
                colors.insert(service.clone(), Some(live.color));
            }
        }
        let removed = self.ledger.removed.keys();
        let removed = removed.filter(|service| !self.participation.holds(service));
        colors.extend(removed.map(|service| (service.clone(), None)));
        if !colors.is_empty() {
            self.output.tell_gate(GateAction::Open { epoch, colors });
        }
    }

    /// Keeps the requests of a service whose live application is gone. A held gate is parked as
    /// well, or its deadline would let them through to what is being started there; the gate
    /// knows the hold's cut-over, and would refuse an older one.
    pub(super) fn park(&mut self, service: &ServiceName) {
        self.gate.forget_parked(service);
        let (ledger, participation) = (self.ledger, self.participation);
        if targets::has_opened_to_new(service, participation, ledger, self.slots) {
            return;
        }
        let epoch = match participation {
            Participation::Armed { cut_over, .. } if participation.holds(service) => cut_over.epoch,
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Prepared { .. }
            | Participation::Armed { .. }
            | Participation::Retiring { .. } => ledger.latest_decided(),
        };
        self.output.tell_gate(GateAction::Park {
            epoch,
            services: [service.clone()].into(),
        });
    }

    /// The gate has parked these services. An answer from before a later start or cut-over does not
    /// apply to what runs now.
    pub(super) fn has_parked(&mut self, services: &BTreeSet<ServiceName>) {
        for service in services {
            let slot = self.ledger.live_slot(service);
            let live_is_gone = slot.is_some_and(|slot| self.slots.is_empty(&slot));
            self.gate.has_parked(service, live_is_gone);
        }
    }

    /// Starts every live release that does not run, if its gate is parked; if not, it is to be
    /// parked, as is what was found dead at its switch, and this is tried `again` later.
    pub(super) fn restart(&mut self, again: Duration) {
        if !self.slots.are_listed() {
            return;
        }
        let ledger = self.ledger;
        let mut waits = false;
        for (service, live) in &ledger.live {
            let slot = live.slot(service);
            let gone = self.slots.is_empty(&slot);
            if gone && self.gate.is_parked(service) {
                self.gate.forget_parked(service);
                let within = ledger.policy.prepare;
                let (release, output) = (live.release.clone(), &mut *self.output);
                self.slots.start(slot, live.epoch, release, within, output);
            } else if gone || self.must_be_parked(&slot, &live.release) {
                self.park(service);
                waits = true;
            }
        }
        if waits {
            self.output.set_timer(AgentTimer::Restart, again);
        }
    }

    /// Whether it was found dead at its switch and still is, and its gate has not said that it is
    /// parked. One that is well again is opened instead.
    fn must_be_parked(&self, slot: &Slot, release: &Release) -> bool {
        self.gate.must_be_parked(&slot.service) && !self.slots.is_ready(slot, release)
    }
}

/// Has [`Live::restart`] happen.
pub(super) fn restart_soon(output: &mut Output) {
    output.set_timer(AgentTimer::Restart, RESTART_AFTER);
}

/// Reports which live applications do not run, once all that does is listed: the coordinator must
/// know, and an earlier report of the death may have been lost.
pub(super) fn report_gone(ledger: &Ledger, slots: &Slots, output: &mut Output) {
    for (service, live) in &ledger.live {
        if slots.is_empty(&live.slot(service)) {
            let service = service.clone();
            let reason = "it was dead when the agent came back".to_owned();
            output.report(ledger, live.epoch, Report::Unhealthy { service, reason });
        }
    }
}

/// Reports again which live applications are down: the first report may have been lost.
pub(super) fn report_unhealthy(ledger: &Ledger, slots: &Slots, output: &mut Output) {
    for (service, live) in &ledger.live {
        let slot = live.slot(service);
        if slots.readiness(&slot, &live.release) == Readiness::Dead {
            let service = service.clone();
            let reason = "the live application is not healthy".to_owned();
            output.report(ledger, live.epoch, Report::Unhealthy { service, reason });
        }
    }
}

/// Whether no request can reach what is started in the idle slot. If the live application
/// died before its switch, its gate was never opened to it: one that has restarted since may
/// lead to the release before it, until it confirms that it is parked.
pub(super) fn is_shut_off(
    service: &ServiceName,
    ledger: &Ledger,
    slots: &Slots,
    gate: &GateView,
) -> bool {
    let live = ledger.live_slot(service);
    let runs = live.is_none_or(|slot| !slots.is_empty(&slot));
    !gate.must_be_parked(service) && (runs || gate.is_parked(service))
}
