//! The gate of one service: where requests are admitted, held or shed.
//!
//! The whole decision is one atomic word: what the gate does, for which color, and a generation
//! that grows with every change. A request passes in two steps.
//!
//! 1. *Claim*: count the request in flight for the color, then read the word again. If it changed
//!    in between, take the count back and look again. So a drain that first changes the word and
//!    then reads zero has seen every claim: either the count was there, or the claim saw the
//!    change. (Dekker's pattern: each side writes, then reads what the other writes. Both need
//!    `SeqCst`, or the two reads may both miss.)
//! 2. *Admit*: once a connection to the application is at hand, and right before the request is
//!    given to it, count it as being admitted and read the word again. If it changed, the request
//!    is *recalled*: nothing of it was sent, and it goes back to wait. The count goes down when
//!    the first byte is written, or the connection fails.
//!
//! A hold changes the word, then waits until no request is being admitted. After that no request
//! can reach the old color: a later admission reads the changed word and is recalled. That moment
//! is the acknowledgement.
//!
//! The proxy's own thread keeps the deadline of a hold, not the caller that requested it.

use crate::atomic::{AtomicI64, AtomicU64, AtomicUsize, SeqCst};
pub use greenlight_gate::{Color, InFlight, Route};
use tokio::sync::Notify;

fn index(color: Color) -> usize {
    match color {
        Color::Blue => 0,
        Color::Green => 1,
    }
}

const KIND_BITS: u32 = 2;
const COLOR_BITS: u32 = 2;

fn encode(route: Route, generation: u64) -> u64 {
    let (kind, color) = match route {
        Route::Closed => (0, None),
        Route::Open(color) => (1, Some(color)),
        Route::Held(color) => (2, color),
        Route::Shed(color) => (3, color),
    };
    let color = match color {
        None => 0,
        Some(Color::Blue) => 1,
        Some(Color::Green) => 2,
    };
    generation << (KIND_BITS + COLOR_BITS) | color << KIND_BITS | kind
}

fn decode(word: u64) -> Route {
    let color = match word >> KIND_BITS & 3 {
        1 => Some(Color::Blue),
        2 => Some(Color::Green),
        _ => None,
    };
    match (word & 3, color) {
        (1, Some(color)) => Route::Open(color),
        (2, color) => Route::Held(color),
        (3, color) => Route::Shed(color),
        _ => Route::Closed,
    }
}

/// What is in flight to one color.
#[derive(Debug, Default)]
struct Traffic {
    requests: AtomicI64,
    streams: AtomicI64,
    upgrades: AtomicI64,
    admitting: AtomicI64,
    admitted: AtomicU64,
    first_admission_ns: AtomicU64,
    last_admission_ns: AtomicU64,
}

/// The gate of one service.
#[derive(Debug)]
pub struct Gate {
    word: AtomicU64,
    traffic: [Traffic; 2],
    /// Wakes requests that wait for the word to change.
    changed: Notify,
    /// Wakes holds and drains that wait for a count to fall.
    settled: Notify,
    /// How many wait on `settled`: the request path asks before it notifies.
    watchers: AtomicUsize,
    /// Totals since the last hold; reset by it.
    pub(crate) counters: Counters,
}

/// What the gate counts over one cut-over.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) held: AtomicU64,
    pub(crate) max_held_us: AtomicU64,
    pub(crate) recalled: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) shed: AtomicU64,
    /// How often the deadline ended the hold.
    pub(crate) expired: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, SeqCst);
    }
}

/// Why a claim was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoClaim {
    /// The request has to wait.
    Held,
    /// The request is refused.
    Shed,
    /// Nothing is routed.
    Closed,
}

/// Whether a count is of requests, streams or upgraded connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request with an end in sight.
    Request,
    /// A response without a foreseeable end.
    Stream,
    /// A connection that has left HTTP.
    Upgrade,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(Route::Closed)
    }
}

impl Gate {
    /// A gate that begins with this route.
    pub fn new(route: Route) -> Self {
        Self {
            word: AtomicU64::new(encode(route, 0)),
            traffic: [Traffic::default(), Traffic::default()],
            changed: Notify::new(),
            settled: Notify::new(),
            watchers: AtomicUsize::new(0),
            counters: Counters::default(),
        }
    }

    /// What the gate does now.
    pub fn route(&self) -> Route {
        decode(self.word.load(SeqCst))
    }

    /// Changes what the gate does, for every thread at once, and wakes the waiting requests.
    pub fn set(&self, route: Route) {
        if let Route::Open(color) = route {
            self.traffic[index(color)]
                .first_admission_ns
                .store(0, SeqCst);
        }
        // Only the admin thread sets, so load and store cannot lose another change.
        let generation = self.word.load(SeqCst) >> (KIND_BITS + COLOR_BITS);
        self.word.store(encode(route, generation + 1), SeqCst);
        self.changed.notify_waiters();
    }

    /// Takes a place in flight for the color that is open.
    pub fn claim(self: &std::sync::Arc<Self>) -> Result<Claim, NoClaim> {
        loop {
            let word = self.word.load(SeqCst);
            let color = match decode(word) {
                Route::Open(color) => color,
                Route::Held(_) => return Err(NoClaim::Held),
                Route::Shed(_) => return Err(NoClaim::Shed),
                Route::Closed => return Err(NoClaim::Closed),
            };
            let traffic = &self.traffic[index(color)];
            traffic.requests.fetch_add(1, SeqCst);
            let claim = Claim {
                gate: self.clone(),
                color,
                word,
                kind: Kind::Request,
            };
            // Without this second look a drain could read zero between the look-up and the count.
            if self.word.load(SeqCst) == word {
                return Ok(claim);
            }
        }
    }

    /// Waits until the word differs from the one that the caller last read.
    pub async fn changed_from(&self, seen: Route) {
        let notified = self.changed.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if self.route() == seen {
            notified.await;
        }
    }

    /// Whether no request is being admitted to the color at this moment.
    pub(crate) fn admits_none(&self, color: Color) -> bool {
        self.traffic[index(color)].admitting.load(SeqCst) == 0
    }

    /// Waits until no request is being admitted to the color. With the gate closed to it, this is
    /// the moment from which nothing more reaches it.
    pub async fn none_admitting(&self, color: Color) {
        self.until(|| self.admits_none(color)).await;
    }

    /// Waits until the color has no request in flight; streams and upgrades do not count.
    pub async fn no_requests(&self, color: Color) {
        self.until(|| self.in_flight(color).requests == 0).await;
    }

    /// Waits until the color has nothing in flight.
    pub async fn drained(&self, color: Color) {
        self.until(|| self.in_flight(color).total() == 0).await;
    }

    /// What is in flight to the color.
    pub fn in_flight(&self, color: Color) -> InFlight {
        let traffic = &self.traffic[index(color)];
        let count = |counter: &AtomicI64| u64::try_from(counter.load(SeqCst)).unwrap_or(0);
        InFlight {
            requests: count(&traffic.requests),
            streams: count(&traffic.streams),
            upgrades: count(&traffic.upgrades),
        }
    }

    /// When the last request was admitted to the color; nanoseconds, `None` if never.
    pub fn last_admission_ns(&self, color: Color) -> Option<u64> {
        Some(self.traffic[index(color)].last_admission_ns.load(SeqCst)).filter(|ns| *ns > 0)
    }

    /// When the first request was admitted to the color since it was last opened.
    pub fn first_admission_ns(&self, color: Color) -> Option<u64> {
        Some(self.traffic[index(color)].first_admission_ns.load(SeqCst)).filter(|ns| *ns > 0)
    }

    /// How many requests were ever admitted to the color.
    pub fn admitted(&self, color: Color) -> u64 {
        self.traffic[index(color)].admitted.load(SeqCst)
    }

    /// Notes that a request failed although its client did nothing wrong.
    pub(crate) fn note_failed(&self) {
        Counters::add(&self.counters.failed);
    }

    /// Notes how long a request waited at the gate before it was admitted.
    pub(crate) fn waited(&self, micros: u64) {
        self.counters.max_held_us.fetch_max(micros, SeqCst);
    }

    /// Starts the totals of a new cut-over.
    pub(crate) fn reset_counters(&self) {
        for counter in [
            &self.counters.held,
            &self.counters.max_held_us,
            &self.counters.recalled,
            &self.counters.retried,
            &self.counters.failed,
            &self.counters.shed,
            &self.counters.expired,
        ] {
            counter.store(0, SeqCst);
        }
    }

    /// Waits until a request was admitted to the color since it was last opened.
    pub async fn first_admission(&self, color: Color) {
        self.until(|| self.first_admission_ns(color).is_some())
            .await;
    }

    async fn until(&self, reached: impl Fn() -> bool) {
        let _watching = Watching::of(self);
        loop {
            let notified = self.settled.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if reached() {
                return;
            }
            notified.await;
        }
    }

    fn notify_settled(&self) {
        if self.watchers.load(SeqCst) > 0 {
            self.settled.notify_waiters();
        }
    }

    fn counter(&self, color: Color, kind: Kind) -> &AtomicI64 {
        let traffic = &self.traffic[index(color)];
        match kind {
            Kind::Request => &traffic.requests,
            Kind::Stream => &traffic.streams,
            Kind::Upgrade => &traffic.upgrades,
        }
    }
}

/// A task that waits for a count to fall. Waiters are counted, so that requests notify only if
/// needed once the hold or the drain is over.
struct Watching<'a>(&'a Gate);

impl<'a> Watching<'a> {
    fn of(gate: &'a Gate) -> Self {
        gate.watchers.fetch_add(1, SeqCst);
        Self(gate)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, SeqCst);
    }
}

/// A place in flight. Dropping it gives the place back.
#[derive(Debug)]
pub struct Claim {
    gate: std::sync::Arc<Gate>,
    color: Color,
    word: u64,
    kind: Kind,
}

impl Claim {
    /// The gate it was claimed at.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The color claimed.
    pub fn color(&self) -> Color {
        self.color
    }

    /// Right before the request is given to a connection: counts it as being admitted, unless
    /// the gate has changed since the claim; then the request is recalled.
    pub fn admit(&self) -> Option<Admission> {
        let traffic = &self.gate.traffic[index(self.color)];
        traffic.admitting.fetch_add(1, SeqCst);
        let admission = Admission {
            gate: self.gate.clone(),
            color: self.color,
        };
        // The same second look as in `claim`, against the hold that waits for `admitting`.
        (self.gate.word.load(SeqCst) == self.word).then_some(admission)
    }

    /// Counts the request as something else from here on.
    pub fn reclassify(&mut self, kind: Kind) {
        self.gate.counter(self.color, kind).fetch_add(1, SeqCst);
        self.gate
            .counter(self.color, self.kind)
            .fetch_sub(1, SeqCst);
        self.kind = kind;
        self.gate.notify_settled();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.gate
            .counter(self.color, self.kind)
            .fetch_sub(1, SeqCst);
        self.gate.notify_settled();
    }
}

/// A request between the decision to send it and its first byte. Dropping it says that the
/// first byte was written ([`Admission::written`] came before) or never will be.
#[derive(Debug)]
pub struct Admission {
    gate: std::sync::Arc<Gate>,
    color: Color,
}

impl Admission {
    /// The first byte is written: the request is admitted.
    pub fn written(self, now_ns: u64) {
        let traffic = &self.gate.traffic[index(self.color)];
        traffic.admitted.fetch_add(1, SeqCst);
        traffic.last_admission_ns.fetch_max(now_ns, SeqCst);
        if traffic.first_admission_ns.load(SeqCst) == 0 {
            let first = &traffic.first_admission_ns;
            // Another thread may have been first; then its time is kept.
            let _ = first.compare_exchange(0, now_ns, SeqCst, SeqCst);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.gate.traffic[index(self.color)]
            .admitting
            .fetch_sub(1, SeqCst);
        self.gate.notify_settled();
    }
}
