//! A gate in which nothing takes time: it carries out each command as soon as it is given.
//!
//! Deliberately absent: predecessors, clocks, and requests. Whoever has them counts requests in
//! `counts`, and says when a deadline passes.

use super::shell::{Done, GateProcess};
use greenlight_gate::{
    Answer, Awaited, Command, CountsByService, GateEvent, GateMutant, Mode, Refusal, Route,
    RoutingState, Ticket,
};
use std::collections::{BTreeMap, BTreeSet};

/// A proxy's process with its state file.
#[derive(Clone, Debug)]
pub(crate) struct PromptGate {
    pub(crate) process: GateProcess,
    /// What the gates of this process have counted.
    pub(crate) counts: CountsByService,
    /// The deadlines that were armed, and after how many milliseconds they pass.
    pub(crate) armed: BTreeMap<u64, u64>,
    /// The state file.
    pub(crate) written: RoutingState<()>,
    mutant: GateMutant,
    waits: BTreeMap<Ticket, Awaited>,
    answers: BTreeMap<Ticket, Result<Answer, Refusal>>,
    tickets: u64,
}

impl PromptGate {
    /// A gate that knows no service.
    pub(crate) fn new() -> Self {
        let kept = RoutingState::default();
        let mutant = GateMutant::None;
        Self::of(GateProcess::restarted(1, kept, mutant), mutant)
    }

    /// The gate of a process that waits for nothing.
    pub(crate) fn of(process: GateProcess, mutant: GateMutant) -> Self {
        assert!(!process.has_effects(), "it has something left to do");
        let counts = CountsByService::new();
        Self {
            written: process.control.to_persist(&counts),
            process,
            counts,
            armed: BTreeMap::new(),
            mutant,
            waits: BTreeMap::new(),
            answers: BTreeMap::new(),
            tickets: 100,
        }
    }

    /// Makes a service known.
    pub(crate) fn define(&mut self, service: &str) {
        let name = service.to_owned();
        let ticket = self.give(Command::Define { name, settings: () }, 0);
        self.answers.remove(&ticket);
    }

    /// Gives the control a command.
    pub(crate) fn give(&mut self, command: Command<()>, now_ns: u64) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.take(GateEvent::Commanded { ticket, command }, now_ns);
        ticket
    }

    /// What a command was answered; nothing while it waits for requests in flight.
    pub(crate) fn answer(&mut self, ticket: Ticket) -> Option<Result<Answer, Refusal>> {
        self.answers.remove(&ticket)
    }

    /// What the gate of a service does; nothing if it is not known.
    pub(crate) fn mode(&self, service: &str) -> Option<Mode> {
        let services = self.process.control.services();
        services.get(service).map(|service| service.mode)
    }

    /// A deadline that was armed passes.
    pub(crate) fn deadline_passes(&mut self, generation: u64, now_ns: u64) {
        self.armed.remove(&generation);
        self.take(GateEvent::DeadlinePassed { generation }, now_ns);
    }

    /// The process ends, and starts with this in its file.
    pub(crate) fn restart_with(&mut self, kept: RoutingState<()>, now_ns: u64) {
        self.process = GateProcess::restarted(2, kept.clone(), self.mutant);
        self.written = kept;
        self.counts.clear();
        self.armed.clear();
        self.waits.clear();
        let followers = BTreeSet::new();
        self.take(GateEvent::Started { followers }, now_ns);
    }

    /// The counts have changed: a command that has waited for that goes on.
    pub(crate) fn settle(&mut self, now_ns: u64) {
        while let Some((ticket, event)) = self.is_over() {
            self.waits.remove(&ticket);
            self.take(event, now_ns);
        }
    }

    fn is_over(&self) -> Option<(Ticket, GateEvent<()>)> {
        self.waits.iter().find_map(|(ticket, what)| {
            let ticket = *ticket;
            let event = match what {
                // Nothing is on its way for long.
                Awaited::NoneAdmitting(_) => Some(GateEvent::NoneAdmitting { ticket }),
                Awaited::NoRequests { of, .. } => {
                    let none = of.iter().all(|(service, color)| {
                        let counts = self.counts.get(service);
                        counts.is_none_or(|counts| counts.color(*color).in_flight.requests == 0)
                    });
                    none.then_some(GateEvent::NoRequests {
                        ticket,
                        in_time: true,
                    })
                }
                Awaited::Counts { .. } => None,
            };
            Some((ticket, event?))
        })
    }

    fn take(&mut self, event: GateEvent<()>, now_ns: u64) {
        self.process.take(event, now_ns, &self.counts);
        while let Some(done) = self.process.next(&self.counts) {
            match done {
                Done::ResetCounters(service) => {
                    self.counts.entry(service).or_default().reset_totals();
                }
                Done::CountExpiry(service) => {
                    self.counts.entry(service).or_default().expired += 1;
                }
                Done::Routed { service, route } => {
                    let counts = self.counts.entry(service).or_default();
                    if let Route::Open(color) = route {
                        counts.opened(color);
                    }
                }
                Done::Armed {
                    generation,
                    after_ms,
                } => {
                    self.armed.insert(generation, after_ms);
                }
                Done::Persists { ticket, state, .. } => {
                    self.written = state;
                    if let Some(ticket) = ticket {
                        let result = Ok(());
                        let written = GateEvent::Written { ticket, result };
                        self.process.take(written, now_ns, &self.counts);
                    }
                }
                Done::Waits { ticket, what } => {
                    self.waits.insert(ticket, what);
                }
                Done::Replied { ticket, answer } => {
                    self.waits.remove(&ticket);
                    self.answers.insert(ticket, answer);
                }
                Done::ServicesSet | Done::Replicates { .. } => {}
            }
        }
        self.settle(now_ns);
    }
}
