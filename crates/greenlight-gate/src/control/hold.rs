//! A hold, from the command to its answer: the moment from which nothing more reaches the colors
//! that were served.
//!
//! The deadline runs from the moment that the gates close, not from the answer. Another hold or
//! an opening of one of the services, or the deadline, refuses a hold that is not yet complete.

use super::running::{HoldStep, Running, Waits};
use super::{Awaited, Deadline, Durability, GateEffect, Mode, Refusal, Step, Ticket};
use crate::color::Color;
use crate::counts::CountsByCutOver;
use crate::mutant::broken;
use crate::wire::{HeldService, HoldAnswer, HoldRequest};
use std::collections::BTreeMap;

/// How long followers may take to say what they have counted, before it is left out.
pub(super) const COUNTS_TIMEOUT_MS: u64 = 500;
/// How long followers may take to carry out what has no deadline of its own.
pub(super) const REPLICATION_TIMEOUT_MS: u64 = 2_000;

impl HoldStep {
    /// Whether the gates are closed for it, and its answer is still to come.
    pub(super) fn is_on(&self) -> bool {
        match self {
            Self::Writing | Self::Closing { .. } | Self::Emptying | Self::Counting => true,
            Self::Freezing | Self::GivingUp | Self::GaveUp => false,
        }
    }
}

impl<S: Clone + PartialEq> Step<'_, S> {
    pub(super) fn hold(&mut self, ticket: Ticket, request: HoldRequest) -> Result<(), Refusal> {
        self.fence_hold(&request.services, request.epoch)?;
        if self.control.followers.is_empty() {
            let others = self.control.final_counts.clone();
            self.begin(ticket, request, &others);
        } else {
            let within_ms = COUNTS_TIMEOUT_MS;
            self.hold_waits(ticket, request, HoldStep::Freezing);
            self.wait(ticket, Awaited::Counts { within_ms });
        }
        Ok(())
    }

    /// Closes the gates. Another command may have come since this one did.
    pub(super) fn begin(&mut self, ticket: Ticket, request: HoldRequest, others: &CountsByCutOver) {
        let epoch = request.epoch;
        if let Err(refusal) = self.fence_hold(&request.services, epoch) {
            return self.refuse(ticket, refusal);
        }
        self.freeze_evidence(&request.services, others);
        self.begin_evidence(&request.services, epoch);
        let generation = self.next_generation(&request.services);
        let deadline = Deadline {
            max_hold_ms: request.max_hold_ms,
            on_uncertain: request.on_uncertain,
        };
        let mut is_armed = false;
        for name in &request.services {
            let never_opened_is_held = broken!(self.control, HoldsWhatWasNeverOpened);
            let service = self.service(name);
            service.epoch = epoch;
            let mut mode = service.mode.held(deadline);
            if never_opened_is_held && mode == Mode::Closed {
                mode = mode.parked();
            }
            is_armed |= mode.deadline().is_some();
            self.set_mode(name, mode);
        }
        if is_armed {
            self.arm(generation, request.max_hold_ms);
        }
        self.hold_waits(ticket, request, HoldStep::Writing);
        self.persist(Some(ticket), Durability::Process);
    }

    /// Waits until nothing more reaches what was served, here and in every follower.
    pub(super) fn wait_held(&mut self, ticket: Ticket, request: HoldRequest) {
        let of = self.served_of(&request.services);
        let there = match self.replicate(Some((ticket, longest_wait(&request)))) {
            true => Waits::Yes,
            false => Waits::No,
        };
        let here = Waits::Yes;
        self.hold_waits(ticket, request, HoldStep::Closing { here, there });
        self.wait(ticket, Awaited::NoneAdmitting(of));
    }

    pub(super) fn closed_here(&mut self, ticket: Ticket, request: HoldRequest, there: Waits) {
        match there {
            Waits::Yes => {
                let here = Waits::No;
                self.hold_waits(ticket, request, HoldStep::Closing { here, there });
            }
            Waits::No => self.is_closed(ticket, request),
        }
    }

    pub(super) fn closed_there(&mut self, ticket: Ticket, request: HoldRequest, here: Waits) {
        match here {
            Waits::Yes => {
                let there = Waits::No;
                self.hold_waits(ticket, request, HoldStep::Closing { here, there });
            }
            Waits::No => self.is_closed(ticket, request),
        }
    }

    fn is_closed(&mut self, ticket: Ticket, request: HoldRequest) {
        let Some(within_ms) = request.exclusive_ms else {
            return self.count(ticket, request);
        };
        let of = self.served_of(&request.services);
        self.hold_waits(ticket, request, HoldStep::Emptying);
        self.wait(ticket, Awaited::NoRequests { of, within_ms });
    }

    pub(super) fn count(&mut self, ticket: Ticket, request: HoldRequest) {
        if self.control.followers.is_empty() {
            let others = self.control.final_counts.clone();
            return self.is_held(ticket, &request, &others);
        }
        let within_ms = longest_wait(&request);
        self.hold_waits(ticket, request, HoldStep::Counting);
        self.wait(ticket, Awaited::Counts { within_ms });
    }

    pub(super) fn is_held(
        &mut self,
        ticket: Ticket,
        request: &HoldRequest,
        others: &CountsByCutOver,
    ) {
        let mut answer = HoldAnswer {
            held_at_ns: self.now_ns,
            services: BTreeMap::new(),
        };
        for name in self.still_known(&request.services) {
            let counts = self.counts(&name, others);
            let color = self.control.services[&name].mode.served();
            let old = color.map(|color| *counts.color(color));
            let last_admission_ns = old.and_then(|old| old.last_admission_ns);
            self.note_hold(&name, request.epoch, last_admission_ns);
            let held = HeldService {
                color,
                last_admission_ns,
                in_flight: old.map_or(0, |old| old.in_flight.total()),
                recalled: counts.recalled,
            };
            answer.services.insert(name, held);
        }
        self.reply(ticket, super::Answer::Held(answer));
    }

    /// An exclusive hold that takes too long ends nothing: what was served is served again.
    pub(super) fn give_up(&mut self, ticket: Ticket, request: HoldRequest) {
        let services = self.still_known(&request.services);
        self.reopen(&services);
        self.persist(None, Durability::Process);
        if self.replicate(Some((ticket, REPLICATION_TIMEOUT_MS))) {
            self.hold_waits(ticket, request, HoldStep::GivingUp);
        } else {
            self.count_what_is_left(ticket, request);
        }
    }

    pub(super) fn count_what_is_left(&mut self, ticket: Ticket, request: HoldRequest) {
        if self.control.followers.is_empty() {
            let others = self.control.final_counts.clone();
            return self.gave_up(ticket, &request, &others);
        }
        self.hold_waits(ticket, request, HoldStep::GaveUp);
        let within_ms = COUNTS_TIMEOUT_MS;
        self.wait(ticket, Awaited::Counts { within_ms });
    }

    pub(super) fn gave_up(
        &mut self,
        ticket: Ticket,
        request: &HoldRequest,
        others: &CountsByCutOver,
    ) {
        let mut requests = Vec::new();
        for name in self.still_known(&request.services) {
            if let Some(color) = self.control.services[&name].mode.served() {
                let counts = self.counts(&name, others);
                requests.push((name, counts.color(color).in_flight.requests));
            }
        }
        self.refuse(ticket, Refusal::StillInFlight { requests });
    }

    /// Gives up what keeps requests back, where nothing but a hold or an opening does.
    pub(super) fn reopen(&mut self, services: &[String]) {
        self.next_generation(services);
        for name in services {
            let mode = self.service(name).mode.given_up();
            self.set_mode(name, mode);
        }
    }

    /// The colors that were served, by service.
    pub(super) fn served_of(&self, services: &[String]) -> Vec<(String, Color)> {
        let served = |name: &String| {
            let service = self.control.services.get(name)?;
            Some((name.clone(), service.mode.served()?))
        };
        services.iter().filter_map(served).collect()
    }

    pub(super) fn wait(&mut self, ticket: Ticket, what: Awaited) {
        self.effects.push(GateEffect::Await { ticket, what });
    }

    fn hold_waits(&mut self, ticket: Ticket, request: HoldRequest, step: HoldStep) {
        let hold = Running::Hold { request, step };
        self.control.running.insert(ticket, hold);
    }
}

/// How long a hold waits for followers. Where a deadline runs, it comes first and refuses the hold;
/// but a service that was never opened has none, and one that is removed has none any more.
fn longest_wait(request: &HoldRequest) -> u64 {
    request.max_hold_ms.saturating_add(REPLICATION_TIMEOUT_MS)
}
