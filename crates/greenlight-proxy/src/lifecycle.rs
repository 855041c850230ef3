//! The life of a proxy's threads: starting, serving, handed over, draining.

/// What the thread does with connections. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lifecycle {
    /// Accept nothing yet.
    Starting,
    Serving,
    /// A successor accepts. Every connection continues until the response to its next request,
    /// which closes it; end when nothing is left.
    HandedOver,
    /// Accept nothing more; answer open requests, close idle connections; end when nothing is left,
    /// or the time for that is over.
    Draining,
}
