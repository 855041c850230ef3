//! An opening, from the command to its answer.
//!
//! The gates flip before that is written to the disk, because every instance waits for the last
//! one. So that a process which ends between the two is not taken for one that never flipped,
//! the gate *notes* that it is about to, in the state file and with its followers: a restart then
//! serves neither color until the next command ([`Mode::Opening`]).
//!
//! Where followers have connections and no hold came before, one process would admit to the new
//! color while another still admits to the old one; so the gates close in all of them first.

use super::hold::{COUNTS_TIMEOUT_MS, REPLICATION_TIMEOUT_MS};
use super::running::{OpenStep, Running};
use super::{Answer, Awaited, Durability, Mode, Refusal, Step, Ticket};
use crate::color::{Color, Route};
use crate::counts::CountsByCutOver;
use crate::mutant::broken;
use crate::wire::{OpenAnswer, OpenRequest};

impl OpenStep {
    fn is_before_flip(&self) -> bool {
        match self {
            Self::ClosingThere { .. } | Self::ClosingHere | Self::Noting | Self::NotingThere => {
                true
            }
            Self::Writing { .. } | Self::Replicating { .. } | Self::Counting { .. } => false,
        }
    }
}

impl<S: Clone + PartialEq> Step<'_, S> {
    pub(super) fn open(&mut self, ticket: Ticket, request: OpenRequest) -> Result<(), Refusal> {
        // What is not known goes nowhere already.
        let known = &self.control.services;
        let services = request.services.iter();
        let services = services.filter(|(name, to)| to.is_some() || known.contains_key(*name));
        let services: Vec<_> = services.map(|(name, _)| name.clone()).collect();
        self.fence(&services, request.epoch)?;
        if self.control.followers.is_empty() {
            self.note(ticket, request, services);
        } else {
            self.close_before_flip(ticket, request, services);
        }
        Ok(())
    }

    fn close_before_flip(&mut self, ticket: Ticket, request: OpenRequest, services: Vec<String>) {
        let mut closed = Vec::new();
        for name in &services {
            if let Route::Open(served) = self.service(name).mode.route()
                && request.services[name] != Some(served)
            {
                self.set_mode(name, Mode::Closing { served });
                closed.push((name.clone(), served));
            }
        }
        if closed.is_empty() {
            return self.note(ticket, request, services);
        }
        // The deadlines of what is held already run on until the flip.
        let generation = self.next_generation(closed.iter().map(|(name, _)| name));
        self.replicate(Some((ticket, REPLICATION_TIMEOUT_MS)));
        let step = OpenStep::ClosingThere { closed, generation };
        self.open_waits(ticket, request, services, step);
    }

    pub(super) fn has_closed_there(
        &mut self,
        ticket: Ticket,
        request: OpenRequest,
        services: Vec<String>,
        closed: Vec<(String, Color)>,
        generation: u64,
        result: Result<(), Refusal>,
    ) {
        if let Err(refusal) = result {
            // Unless another command has come, the color that served continues to serve.
            let control = &self.control.services;
            let closed = closed.into_iter().map(|(name, _)| name);
            let mut closed: Vec<_> = closed.collect();
            closed.retain(|name| {
                control
                    .get(name)
                    .is_some_and(|s| s.generation == generation)
            });
            self.reopen_as_before(&closed);
            return self.refuse(ticket, refusal);
        }
        self.open_waits(ticket, request, services, OpenStep::ClosingHere);
        self.wait(ticket, Awaited::NoneAdmitting(closed));
    }

    pub(super) fn has_closed_here(
        &mut self,
        ticket: Ticket,
        request: OpenRequest,
        services: Vec<String>,
    ) {
        match self.fence(&services, request.epoch) {
            Ok(()) => self.note(ticket, request, services),
            Err(refusal) => self.refuse_opening(ticket, &services, refusal),
        }
    }

    /// What closed for an opening that does not come serves as before.
    fn refuse_opening(&mut self, ticket: Ticket, services: &[String], refusal: Refusal) {
        let mut closed = self.still_known(services);
        closed.retain(|name| matches!(self.service(name).mode, Mode::Closing { .. }));
        if !closed.is_empty() {
            self.reopen_as_before(&closed);
        }
        self.refuse(ticket, refusal);
    }

    /// What was written meanwhile may say that they are closed.
    fn reopen_as_before(&mut self, closed: &[String]) {
        self.reopen(closed);
        self.persist(None, Durability::Process);
        self.replicate(None);
    }

    /// Services are parked or shed: openings of them that have not flipped yet do not come.
    pub(super) fn supersede_openings(&mut self, services: &[String]) {
        let running = self.control.running.iter();
        let superseded = running.filter_map(|(ticket, command)| match command {
            Running::Open {
                services: of, step, ..
            } if step.is_before_flip() && of.iter().any(|name| services.contains(name)) => {
                Some((*ticket, of.clone()))
            }
            Running::Open { .. }
            | Running::Hold { .. }
            | Running::Close
            | Running::Reroute { .. }
            | Running::Remove { .. }
            | Running::Follow => None,
        });
        for (ticket, of) in superseded.collect::<Vec<_>>() {
            self.control.running.remove(&ticket);
            self.refuse_opening(ticket, &of, Refusal::Superseded);
        }
    }

    /// Notes that the gates are about to flip, if one of them could serve the old color after a
    /// restart.
    fn note(&mut self, ticket: Ticket, request: OpenRequest, services: Vec<String>) {
        let has_followers = !self.control.followers.is_empty();
        let mut is_noted = false;
        for name in &services {
            let mode = self.service(name).mode;
            // Of an opening that is repeated, the note may still be on its way to the followers.
            is_noted |= has_followers && matches!(mode, Mode::Opening { .. });
            if mode.needs_note(request.services[name]) && !broken!(self.control, FlipsUnnoted) {
                self.set_mode(name, mode.noted());
                is_noted = true;
            }
        }
        if is_noted {
            self.open_waits(ticket, request, services, OpenStep::Noting);
            self.persist(Some(ticket), Durability::Process);
        } else {
            self.flip(ticket, request, services);
        }
    }

    pub(super) fn replicate_note(
        &mut self,
        ticket: Ticket,
        request: OpenRequest,
        services: Vec<String>,
    ) {
        let alone = broken!(self.control, NotesAlone);
        if !alone && self.replicate(Some((ticket, REPLICATION_TIMEOUT_MS))) {
            self.open_waits(ticket, request, services, OpenStep::NotingThere);
        } else {
            self.flip(ticket, request, services);
        }
    }

    pub(super) fn flip(&mut self, ticket: Ticket, request: OpenRequest, services: Vec<String>) {
        // Followers were waited for: another command may have come.
        if let Err(refusal) = self.fence(&services, request.epoch) {
            return self.refuse_opening(ticket, &services, refusal);
        }
        if broken!(self.control, OpeningStopsOtherDeadlines) {
            let all: Vec<_> = self.control.services.keys().cloned().collect();
            self.next_generation(&all);
        }
        self.next_generation(&services);
        let opened_at_ns = self.now_ns;
        for name in &services {
            let color = request.services[name];
            self.note_opening(name, request.epoch, color);
            let mode = Mode::opened(color);
            if let Some(color) = color
                && self.service(name).mode.route() != mode.route()
            {
                self.control.final_counts.opened(name, color);
            }
            self.set_mode(name, mode);
            let service = self.service(name);
            service.epoch = request.epoch;
            service.opened = request.epoch;
        }
        // Before the disk, which may be slow: followers open at once. The answer waits for both.
        self.replicate(Some((ticket, REPLICATION_TIMEOUT_MS)));
        let step = OpenStep::Writing { opened_at_ns };
        self.open_waits(ticket, request, services, step);
        self.persist(Some(ticket), Durability::Disk);
    }

    pub(super) fn has_flipped(
        &mut self,
        ticket: Ticket,
        request: OpenRequest,
        services: Vec<String>,
        opened_at_ns: u64,
        written: Result<(), Refusal>,
    ) {
        let held = services.iter().map(|name| self.gates.counts(name).held);
        let released = held.sum();
        if self.control.followers.is_empty() {
            self.has_replicated(ticket, request, services, opened_at_ns, released, written);
        } else {
            let step = OpenStep::Replicating {
                opened_at_ns,
                released,
                written,
            };
            self.open_waits(ticket, request, services, step);
        }
    }

    pub(super) fn has_replicated(
        &mut self,
        ticket: Ticket,
        request: OpenRequest,
        services: Vec<String>,
        opened_at_ns: u64,
        released: u64,
        done: Result<(), Refusal>,
    ) {
        if let Err(refusal) = done {
            // G1: requests may have come to the new color, so nothing goes back to the old one.
            return self.refuse(ticket, refusal);
        }
        if self.control.followers.is_empty() {
            let others = self.control.final_counts.clone();
            return self.is_open(ticket, &services, opened_at_ns, released, &others);
        }
        let step = OpenStep::Counting {
            opened_at_ns,
            released,
        };
        self.open_waits(ticket, request, services, step);
        let within_ms = COUNTS_TIMEOUT_MS;
        self.wait(ticket, Awaited::Counts { within_ms });
    }

    pub(super) fn is_open(
        &mut self,
        ticket: Ticket,
        services: &[String],
        opened_at_ns: u64,
        released: u64,
        others: &CountsByCutOver,
    ) {
        let there = services
            .iter()
            .map(|name| others.of(name, self.control.counted_cut_over(name)).held);
        let released = released + there.sum::<u64>();
        let answer = OpenAnswer {
            opened_at_ns,
            released,
        };
        self.reply(ticket, Answer::Opened(answer));
    }

    fn open_waits(
        &mut self,
        ticket: Ticket,
        request: OpenRequest,
        services: Vec<String>,
        step: OpenStep,
    ) {
        let open = Running::Open {
            request,
            services,
            step,
        };
        self.control.running.insert(ticket, open);
    }
}
