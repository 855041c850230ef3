//! The commands that are being carried out, by how far each has come.

use super::state::ServiceControl;
use super::vocabulary::Refusal;
use crate::color::Color;
use crate::wire::{HoldRequest, OpenRequest};

/// A command that is being carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Running<S> {
    Hold {
        request: HoldRequest,
        step: HoldStep,
    },
    Open {
        request: OpenRequest,
        /// The services of it that are known.
        services: Vec<String>,
        step: OpenStep,
    },
    /// A parking or shedding, which is written and replicated.
    Close,
    /// A service that was defined or removed is written and replicated. If it cannot be written,
    /// what was there before stays.
    Reroute {
        name: String,
        before: Option<ServiceControl<S>>,
    },
    /// Followers say what they have counted of a service, before it is removed.
    Remove { name: String },
    /// This process follows its leader's word as soon as nothing more reaches what is not open.
    Follow,
}

/// How far a hold has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum HoldStep {
    /// Followers say what they have counted, before the totals begin anew.
    Freezing,
    /// The gates are closed, and that is being written.
    Writing,
    /// Requests on their way here, and followers, are waited for.
    Closing { here: Waits, there: Waits },
    /// An exclusive hold waits for requests in flight.
    Emptying,
    /// Followers say what they have counted.
    Counting,
    /// Requests in flight took too long; followers open again.
    GivingUp,
    /// They say what they still have.
    GaveUp,
}

/// How far an opening has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum OpenStep {
    /// No hold came before: followers close first.
    ClosingThere {
        closed: Vec<(String, Color)>,
        generation: u64,
    },
    /// And this process.
    ClosingHere,
    /// That the gate is about to flip is being noted.
    Noting,
    /// And by the followers.
    NotingThere,
    /// The gates have flipped, and that is being written.
    Writing { opened_at_ns: u64 },
    /// Followers flip.
    Replicating {
        opened_at_ns: u64,
        released: u64,
        written: Result<(), Refusal>,
    },
    /// They say how many requests had waited there.
    Counting { opened_at_ns: u64, released: u64 },
}

/// Whether something is still waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waits {
    Yes,
    No,
}
