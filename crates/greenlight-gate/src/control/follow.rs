//! Several processes of one machine: starts, handovers, and the replication of the routing.
//!
//! One process leads. Its predecessors that still have connections follow it: their requests
//! pass their own gates, so a command is carried out only when every follower has carried it out
//! too. Nothing is handed over while a hold is on or a command is running: the hold would change
//! hands together with its deadline and with the caller that waits for its answer. It is over in a
//! moment, and the successor asks again.

use super::running::Running;
use super::{
    Answer, Awaited, Durability, GateEffect, Mode, Refusal, ReplicateRequest, Role, Step, Ticket,
    hold,
};
use crate::color::{Color, Route};
use crate::counts::CountsByCutOver;
use crate::mutant::broken;
use std::collections::BTreeSet;

/// A leader that dies leaves a hold to its followers' own deadlines, which must come after the
/// leader's: while the leader lives, it decides. In milliseconds.
const AFTER_THE_LEADERS: u64 = 500;

impl<S: Clone + PartialEq> Step<'_, S> {
    /// A hold that was on is on again, with a fresh deadline; and followers are asked to follow
    /// this process from now on.
    pub(super) fn start(&mut self, followers: BTreeSet<String>) {
        self.control.followers = followers;
        self.reopen_closing();
        self.resume_deadlines();
        if !self.control.followers.is_empty() {
            // What was handed over is perhaps in another file.
            self.persist(None, Durability::Disk);
        }
        self.replicate(None);
    }

    /// Gates that closed for an opening have not flipped, or that would have been noted. No one is
    /// there any more to open them.
    fn reopen_closing(&mut self) {
        let services = self.control.services.iter();
        let closing = services.filter(|(_, service)| matches!(service.mode, Mode::Closing { .. }));
        let closing: Vec<_> = closing.map(|(name, _)| name.clone()).collect();
        if !closing.is_empty() {
            self.reopen(&closing);
            self.persist(None, Durability::Process);
        }
    }

    fn resume_deadlines(&mut self) {
        let services = self.control.services.iter();
        let held = services.filter_map(|(name, service)| {
            let deadline = service.mode.deadline()?;
            Some((name.clone(), deadline.max_hold_ms))
        });
        for (name, after_ms) in held.collect::<Vec<_>>() {
            let generation = self.next_generation([&name]);
            self.arm(generation, after_ms);
        }
    }

    /// Replicates the present routing to the followers. Returns whether `Replicated` will come.
    pub(super) fn replicate(&mut self, waits: Option<(Ticket, u64)>) -> bool {
        // Once this process follows, its successor replicates to them.
        let follows = matches!(self.control.role, Role::Follower { .. });
        if self.control.followers.is_empty() || follows {
            return false;
        }
        self.control.replicated += 1;
        let followed = ReplicateRequest {
            sequence: (self.control.id, self.control.replicated),
            state: self.control.routing(),
        };
        self.effects.push(GateEffect::Replicate { followed, waits });
        true
    }

    /// A command that is written waits until it is replicated as well, and is answered then.
    pub(super) fn wait_replicated(&mut self, ticket: Ticket, command: Running<S>) {
        if self.replicate(Some((ticket, hold::REPLICATION_TIMEOUT_MS))) {
            self.control.running.insert(ticket, command);
        } else {
            self.reply(ticket, Answer::Done);
        }
    }

    /// Adopts the leader's routing; answered when nothing more reaches a color that is not open.
    pub(super) fn follow(
        &mut self,
        ticket: Ticket,
        followed: ReplicateRequest<S>,
    ) -> Result<(), Refusal> {
        let Role::Follower { last } = self.control.role else {
            return Err(Refusal::NotFollowing);
        };
        if followed.sequence > last {
            self.control.role = Role::Follower {
                last: followed.sequence,
            };
            self.adopt(followed);
        }
        let services = self.control.services.iter();
        let closed = services.flat_map(|(name, service)| {
            let route = service.mode.route();
            let closed = Color::ALL.into_iter();
            let closed = closed.filter(move |color| route != Route::Open(*color));
            closed.map(|color| (name.clone(), color))
        });
        let closed = closed.collect();
        self.control.running.insert(ticket, Running::Follow);
        self.wait(ticket, Awaited::NoneAdmitting(closed));
        Ok(())
    }

    fn adopt(&mut self, followed: ReplicateRequest<S>) {
        let mut services = followed.state.controls();
        for (name, service) in &mut services {
            service.mode = service.mode.with_later_deadline(AFTER_THE_LEADERS);
            let Some(known) = self.control.services.get(name) else {
                continue;
            };
            // Whichever messages were lost, and whoever led then: these totals are of another one.
            if known.cut_over != service.cut_over {
                self.effects.push(GateEffect::ResetCounters(name.clone()));
            }
            let route = service.mode.route();
            if known.mode.route() != route {
                let service = name.clone();
                self.effects.push(GateEffect::SetRoute { service, route });
            }
        }
        self.control.services = services;
        self.effects.push(GateEffect::SetServices);
        self.resume_deadlines();
    }

    pub(super) fn follows(&mut self, ticket: Ticket) {
        let counts = self.control.own_counts(self.gates);
        self.reply(ticket, Answer::Counts(counts));
    }

    /// A follower has ended, and its counts are final. No other process has them now.
    pub(super) fn follower_ended(
        &mut self,
        ticket: Ticket,
        follower: &str,
        counts: &CountsByCutOver,
    ) {
        if self.control.followers.remove(follower) {
            self.control.final_counts.add_all(counts);
        }
        self.persist(None, Durability::Process);
        self.reply(ticket, Answer::Done);
    }

    /// A successor asks for everything. From here on no command is obeyed, until it has taken over
    /// or has failed to.
    pub(super) fn hand_over(&mut self, ticket: Ticket) -> Result<(), Refusal> {
        let mut services = self.control.services.values();
        let is_on = services.any(|service| service.mode.deadline().is_some());
        if is_on && !broken!(self.control, HandsOverHeld) {
            return Err(Refusal::HoldIsOn);
        }
        if !self.control.running.is_empty() {
            return Err(Refusal::CommandIsRunning);
        }
        self.control.role = Role::HandingOver;
        self.reply(ticket, Answer::Done);
        Ok(())
    }
}
