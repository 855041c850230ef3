//! What a cut-over leads to on this instance: which services change, to which slots, and whether
//! those are ready. Reads the ledger and the slots, and changes nothing.

use super::ledger::{Decision, Ledger};
use super::participation::Participation;
use super::slots::{Readiness, Slots};
use crate::cut_over::CutOver;
use crate::id::{Epoch, ServiceName};
use crate::release::Color;
use std::collections::BTreeMap;

/// The readiness of a cut-over as a whole.
pub(super) fn readiness(cut_over: &CutOver, ledger: &Ledger, slots: &Slots) -> Readiness {
    let mut all = Readiness::Ready;
    for (service, release) in cut_over.new_releases() {
        let slot = ledger.idle_slot(service);
        all = all.and(slots.readiness(&slot, release));
    }
    all
}

/// The readiness of what is live since this epoch.
pub(super) fn live_readiness(epoch: Epoch, ledger: &Ledger, slots: &Slots) -> Readiness {
    let mut all = Readiness::Ready;
    for (service, live) in &ledger.live {
        if live.epoch == epoch {
            let slot = live.slot(service);
            all = all.and(slots.readiness(&slot, &live.release));
        }
    }
    all
}

/// The services of a cut-over that the gate knows: one that is removed may have come to the
/// fleet while this instance was not part of it.
pub(super) fn affected_services<'a>(
    cut_over: &'a CutOver,
    ledger: &'a Ledger,
) -> impl Iterator<Item = &'a ServiceName> {
    let releases = cut_over.releases.iter();
    releases
        .filter(|(service, release)| release.is_some() || ledger.live.contains_key(*service))
        .map(|(service, _)| service)
}

/// Where each of them goes; nowhere, if it is removed.
pub(super) fn colors(cut_over: &CutOver, ledger: &Ledger) -> BTreeMap<ServiceName, Option<Color>> {
    affected_services(cut_over, ledger)
        .map(|service| {
            let release = cut_over.releases[service].as_ref();
            let color = release.map(|_| ledger.idle_slot(service).color);
            (service.clone(), color)
        })
        .collect()
}

/// Whether the gate was told to open to the service's new release, which is live as soon as
/// the gate has answered.
pub(super) fn has_opened_to_new(
    service: &ServiceName,
    participation: &Participation,
    ledger: &Ledger,
    slots: &Slots,
) -> bool {
    let Participation::Armed {
        cut_over,
        decision: Some(Decision::Committed),
        ..
    } = participation
    else {
        return false;
    };
    cut_over.releases.contains_key(service)
        && readiness(cut_over, ledger, slots) == Readiness::Ready
}
