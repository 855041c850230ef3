//! The gate of one instance, with the semantics of the built-in proxy: its admin socket's fences,
//! its deadline, what it keeps across a restart, and requests that are recalled.
//!
//! Deliberately absent: connections, bytes, threads. A request has three moments here: it is
//! claimed, it is being admitted, it is written.

use greenlight_protocol::policy::Exclusive;
use greenlight_protocol::{
    Color, Epoch, GateAction, HoldEvidence, OnUncertain, ServiceName, SwitchEvidence,
};
use std::collections::{BTreeMap, BTreeSet};

/// Number of a request.
pub(crate) type RequestId = u64;

/// What a gate admits to, and which cut-over made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Admits {
    pub(crate) color: Color,
    /// The cut-over that made live what is there.
    pub(crate) ordinal: Epoch,
    /// The hold whose deadline has reopened the gate without a decision.
    pub(crate) expired: Option<Epoch>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    #[default]
    Closed,
    Open(Admits),
    Held(Option<Admits>),
    Shed(Option<Admits>),
}

impl Route {
    /// What the gate's one word says; who put it there is not in it.
    fn word(self) -> (u8, Option<Color>) {
        let kind = match self {
            Self::Closed => 0,
            Self::Open(_) => 1,
            Self::Held(_) => 2,
            Self::Shed(_) => 3,
        };
        (kind, self.served().map(|admits| admits.color))
    }

    fn served(self) -> Option<Admits> {
        match self {
            Self::Closed => None,
            Self::Open(admits) => Some(admits),
            Self::Held(admits) | Self::Shed(admits) => admits,
        }
    }
}

/// The gate of one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceGate {
    pub(crate) route: Route,
    /// Grows with every change of the route.
    pub(crate) generation: u64,
    in_flight: [u64; 2],
    admitting: [u64; 2],
    waiting: Vec<RequestId>,
}

/// What is kept across a restart.
#[derive(Clone, Debug, Default)]
struct Kept {
    epoch: Epoch,
    opened: Epoch,
    deadline: Option<(u64, OnUncertain)>,
    parked: BTreeSet<ServiceName>,
    routes: BTreeMap<ServiceName, Route>,
}

/// A hold that waits until nothing more reaches the old release.
#[derive(Clone, Debug)]
struct Waiting {
    epoch: Epoch,
    services: BTreeSet<ServiceName>,
    exclusive: Exclusive,
    turn: u64,
    /// The start of the agent that asked.
    asker: u64,
}

/// What the gate makes happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum GateOutput {
    /// These look at the gate again.
    Wakes(Vec<RequestId>),
    /// To the agent that asked.
    Held {
        asker: u64,
        epoch: Epoch,
        evidence: HoldEvidence,
    },
    /// To the agent that asked.
    Refused {
        asker: u64,
        epoch: Epoch,
        reason: &'static str,
    },
    /// The deadline of this turn passes after this many microseconds.
    Deadline { turn: u64, after: u64 },
}

/// The proxy's process and what it keeps.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) up: bool,
    /// Counts its starts.
    pub(crate) life: u64,
    epoch: Epoch,
    opened: Epoch,
    turn: u64,
    deadline: Option<(u64, OnUncertain)>,
    /// What the deadline is about.
    held: BTreeSet<ServiceName>,
    /// Only opening lets their requests go, no deadline.
    parked: BTreeSet<ServiceName>,
    pub(crate) services: BTreeMap<ServiceName, ServiceGate>,
    holds: Vec<Waiting>,
    /// Survives the process.
    kept: Kept,
    /// Survives the machine.
    synced: Kept,
    pub(crate) outputs: Vec<GateOutput>,
}

impl Gate {
    /// The process comes up with what it kept.
    pub(crate) fn start(&mut self) {
        self.up = true;
        self.life += 1;
        self.epoch = self.kept.epoch;
        self.opened = self.kept.opened;
        self.deadline = self.kept.deadline;
        self.parked = self.kept.parked.clone();
        self.turn += 1;
        self.services = self
            .kept
            .routes
            .iter()
            .map(|(name, route)| {
                let gate = ServiceGate {
                    route: *route,
                    ..ServiceGate::default()
                };
                (name.clone(), gate)
            })
            .collect();
        let held = self.services.iter();
        self.held = held
            .filter(|(_, gate)| matches!(gate.route, Route::Held(_)))
            .map(|(name, _)| name.clone())
            .collect();
        if let Some((after, _)) = self.deadline {
            let turn = self.turn;
            self.outputs.push(GateOutput::Deadline { turn, after });
        }
    }

    /// The process is gone; with the machine, so is what was not synced.
    pub(crate) fn end(&mut self, with_machine: bool) {
        self.up = false;
        self.life += 1;
        self.services.clear();
        self.holds.clear();
        if with_machine {
            self.kept = self.synced.clone();
        }
    }

    /// Makes a service known.
    pub(crate) fn define(&mut self, service: &ServiceName) {
        self.services.entry(service.clone()).or_default();
        self.keep_synced();
    }

    /// `POST /v1/hold`.
    pub(crate) fn hold(&mut self, action: &GateAction, max_hold: u64, asker: u64) {
        let GateAction::Hold {
            epoch,
            services,
            on_uncertain,
            exclusive,
            ..
        } = action
        else {
            unreachable!("only holds come here")
        };
        let epoch = *epoch;
        let reason = if epoch < self.epoch {
            Some("an older cut-over")
        } else if epoch <= self.opened {
            Some("opened already")
        } else if services.iter().any(|s| !self.services.contains_key(s)) {
            Some("an unknown service")
        } else {
            None
        };
        if let Some(reason) = reason {
            self.outputs.push(GateOutput::Refused {
                asker,
                epoch,
                reason,
            });
            return;
        }
        self.epoch = epoch;
        for service in services {
            let old = self.services[service].route.served();
            self.set(service, Route::Held(old));
        }
        self.deadline = Some((max_hold, *on_uncertain));
        self.held.extend(services.iter().cloned());
        self.turn += 1;
        let turn = self.turn;
        self.outputs.push(GateOutput::Deadline {
            turn,
            after: max_hold,
        });
        self.keep();
        self.holds.push(Waiting {
            epoch,
            services: services.clone(),
            exclusive: *exclusive,
            turn,
            asker,
        });
        self.settle();
    }

    /// `POST /v1/open`. `None` if it was refused.
    pub(crate) fn open(
        &mut self,
        epoch: Epoch,
        admits: &BTreeMap<ServiceName, Admits>,
    ) -> Option<SwitchEvidence> {
        if epoch < self.epoch || admits.keys().any(|s| !self.services.contains_key(s)) {
            return None;
        }
        self.turn += 1;
        for (service, admits) in admits {
            self.set(service, Route::Open(*admits));
            self.held.remove(service);
            self.parked.remove(service);
        }
        self.epoch = epoch;
        self.opened = epoch;
        if self.held.is_empty() {
            self.deadline = None;
        }
        if let Some((after, _)) = self.deadline {
            let turn = self.turn;
            self.outputs.push(GateOutput::Deadline { turn, after });
        }
        self.keep_synced();
        self.settle();
        Some(SwitchEvidence::default())
    }

    /// `POST /v1/park`.
    pub(crate) fn park(&mut self, epoch: Epoch, services: &BTreeSet<ServiceName>) -> bool {
        if epoch < self.epoch || services.iter().any(|s| !self.services.contains_key(s)) {
            return false;
        }
        for service in services {
            let old = self.services[service].route.served();
            self.set(service, Route::Held(old));
            self.parked.insert(service.clone());
        }
        self.epoch = epoch;
        self.keep();
        self.settle();
        true
    }

    /// The deadline passes: what then, the hold has said.
    pub(crate) fn expire(&mut self, turn: u64) -> bool {
        let Some((_, on_uncertain)) = self.deadline.filter(|_| turn == self.turn) else {
            return false;
        };
        self.turn += 1;
        self.deadline = None;
        for service in std::mem::take(&mut self.held) {
            if self.parked.contains(&service) {
                continue;
            }
            let old = self.services[&service].route.served();
            let route = match (on_uncertain, old) {
                (OnUncertain::Shed, old) => Route::Shed(old),
                (OnUncertain::ServeOld, None) => Route::Closed,
                (OnUncertain::ServeOld, Some(old)) => Route::Open(Admits {
                    expired: Some(self.epoch),
                    ..old
                }),
            };
            self.set(&service, route);
        }
        self.keep();
        self.settle();
        true
    }

    /// A request takes a place in flight.
    pub(crate) fn claim(&mut self, service: &ServiceName, color: Color) {
        self.gate(service).in_flight[index(color)] += 1;
    }

    /// A request gives its place back.
    pub(crate) fn release(&mut self, service: &ServiceName, color: Color) {
        self.gate(service).in_flight[index(color)] -= 1;
        self.settle();
    }

    /// The moment before its first byte.
    pub(crate) fn begin_admitting(&mut self, service: &ServiceName, color: Color) {
        self.gate(service).admitting[index(color)] += 1;
    }

    pub(crate) fn end_admitting(&mut self, service: &ServiceName, color: Color) {
        self.gate(service).admitting[index(color)] -= 1;
        self.settle();
    }

    pub(crate) fn wait(&mut self, service: &ServiceName, request: RequestId) {
        self.gate(service).waiting.push(request);
    }

    pub(crate) fn in_flight(&self, service: &ServiceName, color: Color) -> u64 {
        let gate = self.services.get(service);
        gate.map_or(0, |gate| gate.in_flight[index(color)])
    }

    pub(crate) fn is_unsettled(&self) -> bool {
        self.services
            .values()
            .any(|gate| matches!(gate.route, Route::Held(_) | Route::Shed(_)))
    }

    fn gate(&mut self, service: &ServiceName) -> &mut ServiceGate {
        let gate = self.services.get_mut(service);
        gate.expect("a request came through it")
    }

    fn set(&mut self, service: &ServiceName, route: Route) {
        let gate = self.services.get_mut(service).expect("it was looked up");
        let before = std::mem::replace(&mut gate.route, route);
        if before.word() == route.word() {
            return;
        }
        gate.generation += 1;
        let woken = std::mem::take(&mut gate.waiting);
        if !woken.is_empty() {
            self.outputs.push(GateOutput::Wakes(woken));
        }
    }

    /// Answers the holds that have waited for long enough.
    fn settle(&mut self) {
        let holds = std::mem::take(&mut self.holds);
        for hold in holds {
            let (asker, epoch) = (hold.asker, hold.epoch);
            if hold.turn != self.turn {
                let reason = "another order came";
                self.outputs.push(GateOutput::Refused {
                    asker,
                    epoch,
                    reason,
                });
            } else if self.is_complete(&hold) {
                let evidence = HoldEvidence::default();
                self.outputs.push(GateOutput::Held {
                    asker,
                    epoch,
                    evidence,
                });
            } else {
                self.holds.push(hold);
            }
        }
    }

    fn is_complete(&self, hold: &Waiting) -> bool {
        hold.services.iter().all(|service| {
            let gate = &self.services[service];
            gate.route.served().is_none_or(|old| {
                let color = index(old.color);
                let quiet = hold.exclusive == Exclusive::No || gate.in_flight[color] == 0;
                gate.admitting[color] == 0 && quiet
            })
        })
    }

    fn keep(&mut self) {
        self.kept = Kept {
            epoch: self.epoch,
            opened: self.opened,
            deadline: self.deadline,
            parked: self.parked.clone(),
            routes: self
                .services
                .iter()
                .map(|(name, gate)| (name.clone(), gate.route))
                .collect(),
        };
    }

    fn keep_synced(&mut self) {
        self.keep();
        self.synced = self.kept.clone();
    }
}

fn index(color: Color) -> usize {
    match color {
        Color::Blue => 0,
        Color::Green => 1,
    }
}
