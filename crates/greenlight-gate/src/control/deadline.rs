//! The deadlines of holds: what starts one, what supersedes one, and what happens when one passes.
//!
//! A deadline belongs to a generation of services. A command that ends their hold or begins
//! another starts a new generation, and the deadlines of earlier ones then do nothing. What an
//! expired hold makes of a gate is in `mode.rs`.

use super::running::Running;
use super::{Durability, GateEffect, Mode, Refusal, Step};
use crate::mutant::broken;
use std::collections::BTreeSet;

impl<S: Clone + PartialEq> Step<'_, S> {
    pub(super) fn arm(&mut self, generation: u64, after_ms: u64) {
        self.effects.push(GateEffect::ArmDeadline {
            generation,
            after_ms,
        });
    }

    /// Starts a generation of these services. The deadlines of their earlier ones do nothing any
    /// more, and holds that wait for them are refused.
    pub(super) fn next_generation<'b>(
        &mut self,
        services: impl IntoIterator<Item = &'b String>,
    ) -> u64 {
        self.control.generation += 1;
        let generation = self.control.generation;
        let services: BTreeSet<_> = services.into_iter().collect();
        for name in &services {
            self.service(name).generation = generation;
        }
        let superseded = self
            .control
            .running
            .iter()
            .filter(|(_, command)| match command {
                Running::Hold { request, step } => {
                    step.is_on() && request.services.iter().any(|name| services.contains(name))
                }
                Running::Open { .. }
                | Running::Close
                | Running::Reroute { .. }
                | Running::Remove { .. }
                | Running::Follow => false,
            });
        let superseded: Vec<_> = superseded.map(|(ticket, _)| *ticket).collect();
        for ticket in superseded {
            self.control.running.remove(&ticket);
            self.refuse(ticket, Refusal::Superseded);
        }
        generation
    }

    /// A deadline ends the hold of those services that are still in its generation.
    pub(super) fn expire(&mut self, generation: u64) {
        let services = self.control.services.iter();
        let services = services.filter(|(_, service)| {
            service.generation == generation && service.mode.deadline().is_some()
        });
        let services: Vec<_> = services.map(|(name, _)| name.clone()).collect();
        if services.is_empty() {
            return;
        }
        self.next_generation(&services);
        for name in &services {
            let before = self.service(name).mode;
            let mut mode = before.expired();
            if broken!(self.control, DeadlineEndsParking)
                && let Mode::Parked {
                    served: Some(color),
                    ..
                } = before
            {
                mode = Mode::Open { color };
            }
            if mode.route() != before.route() {
                self.note_expiry(name);
            }
            self.set_mode(name, mode);
        }
        self.persist(None, Durability::Process);
        self.replicate(None);
    }
}
