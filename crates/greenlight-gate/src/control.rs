//! The control of a process's gates, as a pure state machine.
//!
//! It takes events and returns effects, which its shell carries out in their order. What each
//! command makes of a service's gate is the table in `mode.rs`; how far a command has come is one
//! enum in `running.rs`; [`GateControl::handle`] is the table of what comes next:
//!
//! ```text
//!  command    │ in this order
//!  ─────────┼──────────────────────────────────────────────────────────────────────────────
//!  hold     │ [count there], reset totals, set routes, arm deadline, persist, replicate and
//!           │ wait for none admitting, [wait for no requests], [count there], reply
//!  open     │ [close: set routes, replicate, none admitting], [note: persist, replicate],
//!           │ set routes, replicate, persist to the disk, [count there], reply
//!  park,    │ set routes, persist, replicate, reply
//!  shed     │
//!  define   │ persist to the disk, set services, replicate, reply
//!  remove   │ [count there], persist to the disk, set services, replicate, reply
//!  deadline │ count the expiry, set routes, persist, replicate
//!  follow   │ [reset totals], set routes, set services, arm deadlines, none admitting, reply
//! ```
//!
//! What is in brackets happens only where there are followers (counting, closing, the note), a
//! hold came before (the note), or the hold is exclusive (no requests).
//!
//! Commands are fenced, each service by itself: one of an older epoch than the last one obeyed is
//! refused, and so is a hold of an epoch that was opened. A command that is refused for one of its
//! services changes none of them.

mod account;
mod deadline;
mod follow;
mod hold;
mod mode;
mod open;
mod route;
mod running;
mod state;
mod vocabulary;

pub use mode::{Deadline, Mode};
pub use state::{HandoverState, RoutingState, ServiceControl, ServiceState};
pub use vocabulary::{
    Answer, Awaited, Command, Durability, GateEffect, GateEvent, ReadCounts, Refusal,
    ReplicateRequest, Ticket,
};

use crate::counts::CountsByCutOver;
use crate::evidence::EvidenceByEpoch;
use crate::mutant::{GateMutant, broken};
use running::{HoldStep, OpenStep, Running};
use std::collections::{BTreeMap, BTreeSet};

/// The process whose commands this one obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Those of the admin socket.
    Leader,
    /// None, for the moment: a successor is taking over.
    HandingOver,
    /// Those of its successor.
    Follower {
        /// The last one obeyed.
        last: (u64, u64),
    },
}

/// The control of all gates of one process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GateControl<S> {
    /// Which of the machine's processes this is: when it started.
    id: u64,
    role: Role,
    services: BTreeMap<String, ServiceControl<S>>,
    evidence: EvidenceByEpoch,
    /// Predecessors that still have connections: their gates follow this process's.
    followers: BTreeSet<String>,
    /// What those counted that have ended.
    final_counts: CountsByCutOver,
    running: BTreeMap<Ticket, Running<S>>,
    /// The last generation of any service.
    generation: u64,
    /// How often the routing was replicated to followers.
    replicated: u64,
    mutant: GateMutant,
}

impl<S: Clone + PartialEq> GateControl<S> {
    /// The control of a process that begins with what another one knew, or with what was kept.
    /// `id` is greater than those of the machine's earlier processes.
    pub fn new(id: u64, state: HandoverState<S>) -> Self {
        Self::with_mutant(id, state, GateMutant::None)
    }

    /// The same, with a rule broken.
    pub fn with_mutant(id: u64, state: HandoverState<S>, mutant: GateMutant) -> Self {
        Self {
            id,
            role: Role::Leader,
            services: state.routing.controls(),
            evidence: state.evidence,
            followers: BTreeSet::new(),
            final_counts: state.final_counts,
            running: BTreeMap::new(),
            generation: 0,
            replicated: 0,
            mutant,
        }
    }

    /// Takes an event, and returns what to do. `now_ns` is the monotonic clock's.
    pub fn handle(
        &mut self,
        event: GateEvent<S>,
        now_ns: u64,
        gates: &dyn ReadCounts,
    ) -> Vec<GateEffect<S>> {
        let mut step = Step {
            control: self,
            now_ns,
            gates,
            effects: Vec::new(),
        };
        step.take(event);
        step.effects
    }

    /// Which rule is broken.
    #[cfg(feature = "mutants")]
    pub fn mutant(&self) -> GateMutant {
        self.mutant
    }

    /// Forgets what no decision depends on, so that controls that do the same are equal: what was
    /// counted; the numbers of processes, commands, replications, and deadlines that do not run; the
    /// deadlines of services that are parked or shed, which do nothing; and fences that no command
    /// can meet, because all that come are of cut-overs from `decided` on, and holds of later ones.
    /// Takes the generations whose deadlines run, and returns them as they are numbered now.
    #[cfg(feature = "mutants")]
    pub fn normalize(&mut self, armed: &BTreeSet<u64>, decided: u64) -> BTreeSet<u64> {
        for service in self.services.values_mut() {
            service.mode = service.mode.normal_form();
            service.cut_over = 0;
            if service.mode.deadline().is_none() && service.epoch <= decided {
                service.epoch = 0;
                service.opened = 0;
            }
        }
        self.evidence.clear();
        self.final_counts = CountsByCutOver::default();
        self.replicated = 0;
        self.id = 0;
        if let Role::Follower { last } = &mut self.role {
            *last = (0, 0);
        }
        let running = std::mem::take(&mut self.running).into_values();
        self.running = (1..).map(Ticket).zip(running).collect();
        let services = self.services.values();
        let runs = services.filter(|service| service.mode.deadline().is_some());
        let runs: BTreeSet<_> = runs.map(|service| service.generation).collect();
        let runs: Vec<_> = runs.intersection(armed).copied().collect();
        for service in self.services.values_mut() {
            let number = runs.iter().position(|known| *known == service.generation);
            service.generation = number.map_or(0, |number| number as u64 + 1);
        }
        self.generation = runs.len() as u64;
        (1..=self.generation).collect()
    }

    /// Whose commands are obeyed.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The services, by name.
    pub fn services(&self) -> &BTreeMap<String, ServiceControl<S>> {
        &self.services
    }

    /// The highest epoch that any service has obeyed.
    pub fn epoch(&self) -> u64 {
        let epochs = self.services.values().map(|service| service.epoch);
        epochs.max().unwrap_or(0)
    }

    /// Predecessors that still have connections.
    pub fn followers(&self) -> &BTreeSet<String> {
        &self.followers
    }

    /// What a successor must know.
    pub fn to_hand_over(&self) -> HandoverState<S> {
        let mut routing = self.routing();
        if broken!(self, SuccessorOpensParked) {
            for service in routing.services.values_mut() {
                if service.mode.is_parked() {
                    service.mode = Mode::opened(service.mode.served());
                }
            }
        }
        HandoverState {
            routing,
            evidence: self.evidence.clone(),
            final_counts: self.final_counts.clone(),
        }
    }

    /// The routing, as followers and successors get it.
    fn routing(&self) -> RoutingState<S> {
        let services = self.services.iter().map(|(name, service)| {
            let state = ServiceState {
                settings: service.settings.clone(),
                mode: service.mode,
                epoch: service.epoch,
                opened: service.opened,
                cut_over: service.cut_over,
                evidence: None,
            };
            (name.clone(), state)
        });
        RoutingState {
            services: services.collect(),
        }
    }

    /// What has to survive this process.
    pub fn to_persist(&self, gates: &dyn ReadCounts) -> RoutingState<S> {
        let mut routing = self.routing();
        for (name, state) in &mut routing.services {
            state.evidence = self.evidence_to_keep(name, gates);
        }
        routing
    }
}

/// One event being handled: what may be changed by it, and what follows.
struct Step<'a, S> {
    control: &'a mut GateControl<S>,
    now_ns: u64,
    gates: &'a dyn ReadCounts,
    effects: Vec<GateEffect<S>>,
}

impl<S: Clone + PartialEq> Step<'_, S> {
    fn take(&mut self, event: GateEvent<S>) {
        match event {
            GateEvent::Started { followers } => self.start(followers),
            GateEvent::Commanded { ticket, command } => self.command(ticket, command),
            GateEvent::DeadlinePassed { generation } => self.expire(generation),
            GateEvent::FollowerGone { follower } => {
                self.control.followers.remove(&follower);
            }
            GateEvent::HandedOver => self.control.role = Role::Follower { last: (0, 0) },
            GateEvent::HandoverFailed => self.control.role = Role::Leader,
            GateEvent::Written { ticket, result } => {
                let result = result.map_err(|reason| Refusal::NotWritten { reason });
                self.written(ticket, result);
            }
            GateEvent::Replicated { ticket, in_time } => {
                let result = match in_time {
                    true => Ok(()),
                    false => Err(Refusal::FollowerSilent),
                };
                self.replicated(ticket, result);
            }
            GateEvent::NoneAdmitting { ticket } => self.none_admitting(ticket),
            GateEvent::NoRequests { ticket, in_time } => self.no_requests(ticket, in_time),
            GateEvent::Counted { ticket, others } => {
                let mut counts = self.control.final_counts.clone();
                counts.add_all(&others.unwrap_or_default());
                self.counted(ticket, &counts);
            }
        }
    }

    fn command(&mut self, ticket: Ticket, command: Command<S>) {
        let is_for_a_follower = matches!(command, Command::Follow(_));
        if self.control.role != Role::Leader && !is_for_a_follower {
            return self.refuse(ticket, Refusal::HandingOver);
        }
        let taken = match command {
            Command::Hold(request) => self.hold(ticket, request),
            Command::Open(request) => self.open(ticket, request),
            Command::Park(mut request) => {
                let known = &self.control.services;
                request.services.retain(|name| known.contains_key(name));
                self.close(ticket, &request, Mode::parked)
            }
            Command::Shed(request) => self.close(ticket, &request, Mode::shed),
            Command::Define { name, settings } => {
                self.define(ticket, name, settings);
                Ok(())
            }
            Command::Remove { name } => self.remove(ticket, name),
            Command::Follow(followed) => self.follow(ticket, followed),
            Command::FollowerEnded { follower, counts } => {
                self.follower_ended(ticket, &follower, &counts);
                Ok(())
            }
            Command::HandOver => self.hand_over(ticket),
        };
        if let Err(refusal) = taken {
            self.refuse(ticket, refusal);
        }
    }

    // What comes next for a command that waits. An event for a command that is over, or that waits
    // for something else, changes nothing.

    fn written(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        match (self.control.running.remove(&ticket), result) {
            (
                Some(Running::Hold {
                    request,
                    step: HoldStep::Writing,
                }),
                Ok(()),
            ) => self.wait_held(ticket, request),
            (
                Some(Running::Open {
                    request,
                    services,
                    step: OpenStep::Noting,
                }),
                // What cannot be noted is flipped all the same: others have opened.
                Ok(()) | Err(_),
            ) => self.replicate_note(ticket, request, services),
            (
                Some(Running::Open {
                    request,
                    services,
                    step: OpenStep::Writing { opened_at_ns },
                }),
                result,
            ) => self.has_flipped(ticket, request, services, opened_at_ns, result),
            (Some(Running::Close), Ok(())) => self.wait_replicated(ticket, Running::Close),
            (Some(Running::Reroute { name, before }), Ok(())) => {
                self.forget_counts_of_unknown(&name);
                self.effects.push(GateEffect::SetServices);
                self.wait_replicated(ticket, Running::Reroute { name, before });
            }
            (Some(Running::Reroute { name, before }), Err(refusal)) => {
                self.take_back(&name, before);
                self.refuse(ticket, refusal);
            }
            (Some(Running::Hold { .. } | Running::Close), Err(refusal)) => {
                self.refuse(ticket, refusal);
            }
            (Some(other), _) => self.still_waits(ticket, other),
            (None, _) => {}
        }
    }

    fn replicated(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        match (self.control.running.remove(&ticket), result) {
            (
                Some(Running::Hold {
                    request,
                    step: HoldStep::Closing { here, .. },
                }),
                Ok(()),
            ) => self.closed_there(ticket, request, here),
            (
                Some(Running::Hold {
                    request,
                    step: HoldStep::GivingUp,
                }),
                Ok(()),
            ) => self.count_what_is_left(ticket, request),
            (
                Some(Running::Open {
                    request,
                    services,
                    step: OpenStep::ClosingThere { closed, generation },
                }),
                result,
            ) => self.has_closed_there(ticket, request, services, closed, generation, result),
            (
                Some(Running::Open {
                    request,
                    services,
                    step: OpenStep::NotingThere,
                }),
                // A follower that does not answer is waited for no longer. While it stands still it
                // admits nothing. If its hold has run out when it goes on, it may admit to the old
                // release before it reads the note.
                Ok(()) | Err(_),
            ) => self.flip(ticket, request, services),
            (
                Some(Running::Open {
                    request,
                    services,
                    step:
                        OpenStep::Replicating {
                            opened_at_ns,
                            released,
                            written,
                        },
                }),
                result,
            ) => {
                let done = written.and(result);
                self.has_replicated(ticket, request, services, opened_at_ns, released, done);
            }
            (Some(Running::Close | Running::Reroute { .. }), Ok(())) => {
                self.reply(ticket, Answer::Done);
            }
            (
                Some(
                    Running::Close
                    | Running::Reroute { .. }
                    | Running::Hold {
                        step: HoldStep::Closing { .. } | HoldStep::GivingUp,
                        ..
                    },
                ),
                Err(refusal),
            ) => self.refuse(ticket, refusal),
            (Some(other), _) => self.still_waits(ticket, other),
            (None, _) => {}
        }
    }

    fn none_admitting(&mut self, ticket: Ticket) {
        match self.control.running.remove(&ticket) {
            Some(Running::Hold {
                request,
                step: HoldStep::Closing { there, .. },
            }) => self.closed_here(ticket, request, there),
            Some(Running::Open {
                request,
                services,
                step: OpenStep::ClosingHere,
            }) => self.has_closed_here(ticket, request, services),
            Some(Running::Follow) => self.follows(ticket),
            Some(other) => self.still_waits(ticket, other),
            None => {}
        }
    }

    fn no_requests(&mut self, ticket: Ticket, in_time: bool) {
        match self.control.running.remove(&ticket) {
            Some(Running::Hold {
                request,
                step: HoldStep::Emptying,
            }) => match in_time {
                true => self.count(ticket, request),
                false => self.give_up(ticket, request),
            },
            Some(other) => self.still_waits(ticket, other),
            None => {}
        }
    }

    fn counted(&mut self, ticket: Ticket, others: &CountsByCutOver) {
        match self.control.running.remove(&ticket) {
            Some(Running::Hold {
                request,
                step: HoldStep::Freezing,
            }) => self.begin(ticket, request, others),
            Some(Running::Hold {
                request,
                step: HoldStep::Counting,
            }) => self.is_held(ticket, &request, others),
            Some(Running::Hold {
                request,
                step: HoldStep::GaveUp,
            }) => self.gave_up(ticket, &request, others),
            Some(Running::Open {
                services,
                step:
                    OpenStep::Counting {
                        opened_at_ns,
                        released,
                    },
                ..
            }) => self.is_open(ticket, &services, opened_at_ns, released, others),
            Some(Running::Remove { name }) => {
                if let Err(refusal) = self.remove_counted(ticket, name, others) {
                    self.refuse(ticket, refusal);
                }
            }
            Some(other) => self.still_waits(ticket, other),
            None => {}
        }
    }

    fn still_waits(&mut self, ticket: Ticket, command: Running<S>) {
        self.control.running.insert(ticket, command);
    }

    fn reply(&mut self, ticket: Ticket, answer: Answer) {
        let answer = Ok(answer);
        self.effects.push(GateEffect::Reply { ticket, answer });
    }

    fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        let answer = Err(refusal);
        self.effects.push(GateEffect::Reply { ticket, answer });
    }
}
