//! A shell of the control for tests: carries out one effect at a time, so that a test can end the
//! process between any two.
//!
//! Deliberately absent: time, and what counts. Whoever drives it has both.

use greenlight_gate::{
    Answer, Awaited, Durability, GateControl, GateEffect, GateEvent, GateMutant, HandoverState,
    ReadCounts, Refusal, ReplicateRequest, Route, RoutingState, Ticket,
};
use std::collections::{BTreeMap, VecDeque};

/// A process that has gates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GateProcess {
    pub(crate) control: GateControl<()>,
    /// What the gates do: what requests see.
    pub(crate) routes: BTreeMap<String, Route>,
    effects: VecDeque<GateEffect<()>>,
}

/// An effect, carried out as far as no one else is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    ResetCounters(String),
    CountExpiry(String),
    /// A gate does something else from now on.
    Routed {
        service: String,
        route: Route,
    },
    ServicesSet,
    Armed {
        generation: u64,
        after_ms: u64,
    },
    /// Give this to the file, then say `Written` if a command waits for it.
    Persists {
        ticket: Option<Ticket>,
        durability: Durability,
        state: RoutingState<()>,
    },
    Replicates {
        followed: ReplicateRequest<()>,
        /// Who waits, and for how many milliseconds at most.
        waits: Option<(Ticket, u64)>,
    },
    Waits {
        ticket: Ticket,
        what: Awaited,
    },
    Replied {
        ticket: Ticket,
        answer: Result<Answer, Refusal>,
    },
}

impl GateProcess {
    /// A process that begins with what was kept.
    pub(crate) fn restarted(id: u64, kept: RoutingState<()>, mutant: GateMutant) -> Self {
        let state = HandoverState {
            evidence: kept.evidence(u64::MAX),
            routing: kept,
            ..HandoverState::default()
        };
        Self::with(id, state, mutant)
    }

    /// A process that begins with what another one has handed over.
    pub(crate) fn with(id: u64, state: HandoverState<()>, mutant: GateMutant) -> Self {
        Self::around(GateControl::with_mutant(id, state, mutant))
    }

    /// The process of a control that has nothing left to do.
    pub(crate) fn around(control: GateControl<()>) -> Self {
        let mut process = Self {
            routes: BTreeMap::new(),
            control,
            effects: VecDeque::new(),
        };
        process.set_services();
        process
    }

    /// Gives the control an event; its effects wait to be carried out.
    pub(crate) fn take(&mut self, event: GateEvent<()>, now_ns: u64, counts: &dyn ReadCounts) {
        let effects = self.control.handle(event, now_ns, counts);
        self.effects.extend(effects);
    }

    /// Whether effects wait to be carried out.
    pub(crate) fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Carries out the next effect.
    pub(crate) fn next(&mut self, counts: &dyn ReadCounts) -> Option<Done> {
        let done = match self.effects.pop_front()? {
            GateEffect::ResetCounters(service) => Done::ResetCounters(service),
            GateEffect::CountExpiry(service) => Done::CountExpiry(service),
            GateEffect::SetRoute { service, route } => {
                self.routes.insert(service.clone(), route);
                Done::Routed { service, route }
            }
            GateEffect::SetServices => {
                self.set_services();
                Done::ServicesSet
            }
            GateEffect::ArmDeadline {
                generation,
                after_ms,
            } => Done::Armed {
                generation,
                after_ms,
            },
            GateEffect::Persist { ticket, durability } => Done::Persists {
                ticket,
                durability,
                state: self.control.to_persist(counts),
            },
            GateEffect::Replicate { followed, waits } => Done::Replicates { followed, waits },
            GateEffect::Await { ticket, what } => Done::Waits { ticket, what },
            GateEffect::Reply { ticket, answer } => Done::Replied { ticket, answer },
        };
        Some(done)
    }

    /// A known service keeps its gate, a new one gets one that does what the control says.
    fn set_services(&mut self) {
        let services = self.control.services();
        self.routes.retain(|name, _| services.contains_key(name));
        for (name, service) in services {
            let route = service.mode.route();
            self.routes.entry(name.clone()).or_insert(route);
        }
    }
}
