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
//! Deliberately absent: waiting. A gate says when whoever waits should look again ([`Wake`]). It
//! says so of counts only while one watches them, because the request path must not pay for it.

use crate::atomic::{AtomicI64, AtomicU64, AtomicUsize, SeqCst};
use crate::color::{Color, Route};
use crate::counts::{ColorCounts, Counts, InFlight};
use crate::evidence::ServiceEvidence;
use std::sync::Arc;

/// Wakes those who wait at a gate.
pub trait Wake {
    /// What the gate does has changed.
    fn changed(&self);
    /// A count has fallen, or a request was admitted.
    fn settled(&self);
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

/// The gate of one service. `W` wakes those who wait at it.
#[derive(Debug)]
pub struct Gate<W> {
    word: AtomicU64,
    traffic: [Traffic; 2],
    /// How many wait for a count to fall: the request path asks before it wakes them.
    watchers: AtomicUsize,
    /// Totals since the last hold; reset by it.
    pub counters: Counters,
    waiters: W,
}

/// What the gate counts over one cut-over.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that waited.
    pub held: AtomicU64,
    /// The longest wait, in microseconds.
    pub max_held_us: AtomicU64,
    /// Requests picked but not yet sent that were taken back.
    pub recalled: AtomicU64,
    /// Requests sent again because the application died under them.
    pub retried: AtomicU64,
    /// Requests that failed although their clients did nothing wrong.
    pub failed: AtomicU64,
    /// Requests answered 503 by the gate.
    pub shed: AtomicU64,
    /// How often the deadline ended the hold.
    pub expired: AtomicU64,
}

impl Counters {
    /// Counts one more.
    #[inline]
    pub fn add(counter: &AtomicU64) {
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

impl<W: Wake + Default> Default for Gate<W> {
    fn default() -> Self {
        Self::new(Route::Closed)
    }
}

impl<W: Wake + Default> Gate<W> {
    /// A gate that begins with this route.
    pub fn new(route: Route) -> Self {
        Self {
            word: AtomicU64::new(encode(route, 0)),
            traffic: [Traffic::default(), Traffic::default()],
            watchers: AtomicUsize::new(0),
            counters: Counters::default(),
            waiters: W::default(),
        }
    }
}

impl<W: Wake> Gate<W> {
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
        self.waiters.changed();
    }

    /// Takes a place in flight for the color that is open.
    pub fn claim(self: &Arc<Self>) -> Result<Claim<W>, NoClaim> {
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

    /// Whether no request is being admitted to the color at this moment. Once that was so with the
    /// gate closed to the color, nothing more reaches it.
    pub fn admits_none(&self, color: Color) -> bool {
        self.traffic[index(color)].admitting.load(SeqCst) == 0
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

    /// When the first request was admitted to the color since it was last opened.
    pub fn first_admission_ns(&self, color: Color) -> Option<u64> {
        time(&self.traffic[index(color)].first_admission_ns)
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        let counters = &self.counters;
        Counts {
            blue: self.color_counts(Color::Blue),
            green: self.color_counts(Color::Green),
            held: counters.held.load(SeqCst),
            max_held_us: counters.max_held_us.load(SeqCst),
            recalled: counters.recalled.load(SeqCst),
            retried: counters.retried.load(SeqCst),
            failed: counters.failed.load(SeqCst),
            shed: counters.shed.load(SeqCst),
            expired: counters.expired.load(SeqCst),
        }
    }

    fn color_counts(&self, color: Color) -> ColorCounts {
        let traffic = &self.traffic[index(color)];
        ColorCounts {
            in_flight: self.in_flight(color),
            admitted: traffic.admitted.load(SeqCst),
            first_admission_ns: time(&traffic.first_admission_ns),
            last_admission_ns: time(&traffic.last_admission_ns),
        }
    }

    /// Continues with the totals of a process that has ended.
    pub fn resume(&self, seen: &ServiceEvidence) {
        let counters = &self.counters;
        counters.held.store(seen.held, SeqCst);
        counters.max_held_us.store(seen.max_held_us, SeqCst);
        counters.recalled.store(seen.recalled, SeqCst);
        counters.retried.store(seen.retried, SeqCst);
        counters.failed.store(seen.failed, SeqCst);
        counters.shed.store(seen.shed, SeqCst);
    }

    /// Notes that a request failed although its client did nothing wrong.
    pub fn note_failed(&self) {
        Counters::add(&self.counters.failed);
    }

    /// Notes how long a request waited at the gate before it was admitted, in microseconds.
    pub fn waited(&self, micros: u64) {
        self.counters.max_held_us.fetch_max(micros, SeqCst);
    }

    /// Starts the totals of a new cut-over.
    pub fn reset_counters(&self) {
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

    /// Those who wait at this gate.
    pub fn waiters(&self) -> &W {
        &self.waiters
    }

    /// From here on, until what is returned is dropped, [`Wake::settled`] is called. A count that is
    /// read after this call and has not fallen yet will be followed by such a call.
    pub fn watch(&self) -> Watching<'_, W> {
        self.watchers.fetch_add(1, SeqCst);
        Watching(self)
    }

    fn wake_watchers(&self) {
        if self.watchers.load(SeqCst) > 0 {
            self.waiters.settled();
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

// Crates are optimised one by one. What a request needs of this file is generic, and so inlined into
// the proxy, or marked.

#[inline]
fn index(color: Color) -> usize {
    match color {
        Color::Blue => 0,
        Color::Green => 1,
    }
}

const KIND_BITS: u32 = 2;
const COLOR_BITS: u32 = 2;

#[inline]
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

#[inline]
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

#[inline]
fn time(counter: &AtomicU64) -> Option<u64> {
    Some(counter.load(SeqCst)).filter(|ns| *ns > 0)
}

/// A wait for a count to fall.
#[derive(Debug)]
pub struct Watching<'a, W>(&'a Gate<W>);

impl<W> Drop for Watching<'_, W> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, SeqCst);
    }
}

/// A place in flight. Dropping it gives the place back.
#[derive(Debug)]
pub struct Claim<W: Wake> {
    gate: Arc<Gate<W>>,
    color: Color,
    word: u64,
    kind: Kind,
}

impl<W: Wake> Claim<W> {
    /// The gate it was claimed at.
    pub fn gate(&self) -> &Gate<W> {
        &self.gate
    }

    /// The color claimed.
    pub fn color(&self) -> Color {
        self.color
    }

    /// Right before the request is given to a connection: counts it as being admitted, unless
    /// the gate has changed since the claim; then the request is recalled.
    pub fn admit(&self) -> Option<Admission<W>> {
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
        self.gate.wake_watchers();
    }
}

impl<W: Wake> Drop for Claim<W> {
    fn drop(&mut self) {
        self.gate
            .counter(self.color, self.kind)
            .fetch_sub(1, SeqCst);
        self.gate.wake_watchers();
    }
}

/// A request between the decision to send it and its first byte. Dropping it says that the
/// first byte was written ([`Admission::written`] came before) or never will be.
#[derive(Debug)]
pub struct Admission<W: Wake> {
    gate: Arc<Gate<W>>,
    color: Color,
}

impl<W: Wake> Admission<W> {
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

impl<W: Wake> Drop for Admission<W> {
    fn drop(&mut self) {
        self.gate.traffic[index(self.color)]
            .admitting
            .fetch_sub(1, SeqCst);
        self.gate.wake_watchers();
    }
}
