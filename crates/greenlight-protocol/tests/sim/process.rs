//! One process: a real machine, its journal, its timers, and a clock that may be wrong.
//!
//! It takes one event, carries out the effects one after the other, and then takes the next;
//! each of these is a step of its own, so that everything else may happen in between, also its
//! end.

use super::disk::Disk;
use super::rng::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A clock that runs too fast or too slow, and may jump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Thousandths of a second that it counts in a second.
    rate: u64,
    offset: u64,
}

impl Clock {
    pub(crate) fn new(rng: &mut Rng, drift: u64) -> Self {
        Self {
            rate: rng.micros(1000 - drift, 1000 + drift),
            offset: rng.micros(10_000_000, 1_000_000_000),
        }
    }

    /// What it shows.
    pub(crate) fn reads(self, now: u64) -> u64 {
        self.offset + now * self.rate / 1000
    }

    /// How long it takes until it has counted this long.
    pub(crate) fn takes(self, wait: Duration) -> u64 {
        let micros = u64::try_from(wait.as_micros()).expect("no timer runs for ages");
        micros * 1000 / self.rate
    }

    /// Shows something else from now on, by up to this many microseconds.
    pub(crate) fn jump(&mut self, rng: &mut Rng, by: u64) {
        let jump = rng.micros(0, 2 * by);
        self.offset = (self.offset + jump).saturating_sub(by);
    }
}

/// What a process does next.
#[derive(Clone, Debug)]
pub(crate) enum Work<Effect> {
    Effect(Effect),
    /// A record was written and is being made durable.
    Sync,
    /// Ask what runs here.
    List,
}

/// A process, or the place where one could run.
#[derive(Debug)]
pub(crate) struct Process<Machine, Input, Effect, Record, Timer> {
    pub(crate) machine: Option<Machine>,
    /// Counts its starts: what was meant for an earlier one does not reach a later one.
    pub(crate) life: u64,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) work: VecDeque<Work<Effect>>,
    /// By timer: when it is due.
    pub(crate) timers: BTreeMap<Timer, u64>,
    pub(crate) due: VecDeque<Timer>,
    pub(crate) disk: Disk<Record>,
    pub(crate) clock: Clock,
    pub(crate) paused_until: u64,
    /// Whether a step of it is planned.
    pub(crate) busy: bool,
}

impl<Machine, Input, Effect, Record: Clone, Timer: Ord>
    Process<Machine, Input, Effect, Record, Timer>
{
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            machine: None,
            life: 0,
            inbox: VecDeque::new(),
            work: VecDeque::new(),
            timers: BTreeMap::new(),
            due: VecDeque::new(),
            disk: Disk::default(),
            clock,
            paused_until: 0,
            busy: false,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    pub(crate) fn has_work(&self) -> bool {
        !(self.work.is_empty() && self.due.is_empty() && self.inbox.is_empty())
    }

    /// The process is gone, and with it all that was not on disk.
    pub(crate) fn forget(&mut self) {
        self.machine = None;
        self.life += 1;
        self.inbox.clear();
        self.work.clear();
        self.timers.clear();
        self.due.clear();
        self.busy = false;
    }

    pub(crate) fn plan(&mut self, effects: Vec<Effect>) {
        self.work.extend(effects.into_iter().map(Work::Effect));
    }
}
