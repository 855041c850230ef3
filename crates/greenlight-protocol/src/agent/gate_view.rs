//! What the agent knows of its gate, which is another process and may restart at any time.
//!
//! Only what an order depends on is kept. What the gate admits to at this moment is not: the agent
//! tells it again whenever that may have changed.

use crate::id::{Epoch, ServiceName};
use std::collections::BTreeMap;

/// What the agent knows of its gate; a service that is not listed has nothing special.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct GateView {
    services: BTreeMap<ServiceName, Parking>,
    /// The committed epoch that the front would not change to, and why; a restart asks it again.
    open_refused: Option<(Epoch, String)>,
}

/// How far a service's gate is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Parking {
    /// The new release was found dead at its switch, and the gate has not said that it is parked: one
    /// that restarts meanwhile leads to the release before it.
    Required,
    /// The live application is gone, and the gate has said that it is parked: no request can reach
    /// what is started there before its check has passed.
    Confirmed,
}

impl GateView {
    /// The new releases of these services were found dead at their switch.
    pub(super) fn require_parking(&mut self, services: impl Iterator<Item = ServiceName>) {
        self.services
            .retain(|_, parking| *parking == Parking::Confirmed);
        self.services
            .extend(services.map(|service| (service, Parking::Required)));
    }

    /// The gate has said that it is parked; whether that is worth something depends on whether the
    /// live application is gone.
    pub(super) fn has_parked(&mut self, service: &ServiceName, live_is_gone: bool) {
        if live_is_gone {
            self.services.insert(service.clone(), Parking::Confirmed);
        } else if self.must_be_parked(service) {
            self.services.remove(service);
        }
    }

    /// What the gate has said so far does not count any more; what is required still is.
    pub(super) fn forget_parked(&mut self, service: &ServiceName) {
        if self.is_parked(service) {
            self.services.remove(service);
        }
    }

    /// The gate has opened these services.
    pub(super) fn has_opened(&mut self, is_opened: impl Fn(&ServiceName) -> bool) {
        self.open_refused = None;
        self.services
            .retain(|service, parking| *parking == Parking::Confirmed || !is_opened(service));
    }

    /// The front would not change to the releases of a committed epoch.
    pub(super) fn has_refused_to_open(&mut self, epoch: Epoch, reason: String) {
        self.open_refused = Some((epoch, reason));
    }

    /// Why the front does not serve the releases of a committed epoch, if it would not change.
    pub(super) fn refusal(&self, epoch: Epoch) -> Option<&str> {
        let (refused, reason) = self.open_refused.as_ref()?;
        (*refused == epoch).then_some(reason)
    }

    pub(super) fn is_parked(&self, service: &ServiceName) -> bool {
        self.services.get(service) == Some(&Parking::Confirmed)
    }

    pub(super) fn must_be_parked(&self, service: &ServiceName) -> bool {
        self.services.get(service) == Some(&Parking::Required)
    }
}
