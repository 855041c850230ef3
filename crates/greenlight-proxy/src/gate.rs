//! The gate of one service, with those who wait at it.
//!
//! What a gate is, and why nothing slips past a hold, is in [`greenlight_gate::Gate`]. Here is what
//! needs a runtime: to wait until it opens, or until a count has fallen.

mod waiters;

pub(crate) use greenlight_gate::{Color, Counters, Kind, NoClaim, Route};
use waiters::Waiters;

/// The gate of one service.
pub(crate) type Gate = greenlight_gate::Gate<Waiters>;
/// A place in flight.
pub(crate) type Claim = greenlight_gate::Claim<Waiters>;
/// A request between the decision to send it and its first byte.
pub(crate) type Admission = greenlight_gate::Admission<Waiters>;

/// Waiting at a gate.
pub(crate) trait Wait {
    /// Waits until the word differs from the one that the caller last read.
    async fn changed_from(&self, seen: Route);
    /// Waits until no request is being admitted to the color. With the gate closed to it, this is
    /// the moment from which nothing more reaches it.
    async fn none_admitting(&self, color: Color);
    /// Waits until the color has no request in flight; streams and upgrades do not count.
    async fn no_requests(&self, color: Color);
    /// Waits until the color has nothing in flight.
    async fn drained(&self, color: Color);
    /// Waits until a request was admitted to the color since it was last opened.
    async fn first_admission(&self, color: Color);
}

impl Wait for Gate {
    async fn changed_from(&self, seen: Route) {
        self.waiters().changed_unless(|| self.route() != seen).await;
    }

    async fn none_admitting(&self, color: Color) {
        until(self, || self.admits_none(color)).await;
    }

    async fn no_requests(&self, color: Color) {
        until(self, || self.in_flight(color).requests == 0).await;
    }

    async fn drained(&self, color: Color) {
        until(self, || self.in_flight(color).total() == 0).await;
    }

    async fn first_admission(&self, color: Color) {
        until(self, || self.first_admission_ns(color).is_some()).await;
    }
}

async fn until(gate: &Gate, is_reached: impl Fn() -> bool) {
    let _watching = gate.watch();
    gate.waiters().settled_until(is_reached).await;
}
