//! The gate of one instance, with the semantics of the built-in proxy: its admin socket's fences,
//! its deadlines, what it keeps across a restart, and requests that are recalled.
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

    /// What it admits to, or did before it was held.
    pub(crate) fn served(self) -> Option<Admits> {
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
    standing: Standing,
    /// The last hold, opening or expiry; earlier ones wait for nothing any more.
    turn: u64,
    in_flight: [u64; 2],
    admitting: [u64; 2],
    waiting: Vec<RequestId>,
}

/// What the orders so far mean for one service.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    epoch: Epoch,
    opened: Epoch,
    /// Only opening lets its requests go, no deadline.
    parked: bool,
    deadline: Option<(u64, OnUncertain)>,
}

/// What is kept across a restart, by service.
type Kept = BTreeMap<ServiceName, (Route, Standing)>;

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
    /// The last turn of any service.
    turn: u64,
    pub(crate) services: BTreeMap<ServiceName, ServiceGate>,
    holds: Vec<Waiting>,
    /// Survives the process.
    kept: Kept,
    /// Survives the machine.
    synced: Kept,
    pub(crate) outputs: Vec<GateOutput>,
}

impl Gate {
    /// The process comes up with what it kept. A hold that was on has a fresh deadline.
    pub(crate) fn start(&mut self) {
        self.up = true;
        self.life += 1;
        self.services = self
            .kept
            .iter()
            .map(|(name, (route, standing))| {
                let gate = ServiceGate {
                    route: *route,
                    standing: *standing,
                    ..ServiceGate::default()
                };
                (name.clone(), gate)
            })
            .collect();
        for gate in self.services.values_mut() {
            if let Some((after, _)) = gate.standing.deadline {
                self.turn += 1;
                gate.turn = self.turn;
                let turn = self.turn;
                self.outputs.push(GateOutput::Deadline { turn, after });
            }
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
        let known = || services.iter().filter_map(|s| self.services.get(s));
        let reason = if known().count() < services.len() {
            Some("an unknown service")
        } else if known().any(|gate| epoch < gate.standing.epoch) {
            Some("an older cut-over")
        } else if known().any(|gate| epoch <= gate.standing.opened) {
            Some("opened already")
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
        let turn = self.next_turn(services.iter());
        for service in services {
            let gate = self.gate(service);
            gate.standing.epoch = epoch;
            let old = gate.route.served();
            // What was never opened is refused at once, before and during its first deployment.
            if old.is_some() || gate.standing.parked {
                gate.standing.deadline = Some((max_hold, *on_uncertain));
                self.set(service, Route::Held(old));
            }
        }
        let after = max_hold;
        self.outputs.push(GateOutput::Deadline { turn, after });
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
        admits: &BTreeMap<ServiceName, Option<Admits>>,
    ) -> Option<SwitchEvidence> {
        if !self.may_obey(epoch, admits.keys()) {
            return None;
        }
        self.next_turn(admits.keys());
        for (service, admits) in admits {
            self.set(service, admits.map_or(Route::Closed, Route::Open));
            self.gate(service).standing = Standing {
                epoch,
                opened: epoch,
                parked: false,
                deadline: None,
            };
        }
        self.keep_synced();
        self.settle();
        Some(SwitchEvidence::default())
    }

    /// `POST /v1/park`.
    pub(crate) fn park(&mut self, epoch: Epoch, services: &BTreeSet<ServiceName>) -> bool {
        if !self.may_obey(epoch, services.iter()) {
            return false;
        }
        for service in services {
            let gate = self.gate(service);
            gate.standing.epoch = epoch;
            gate.standing.parked = true;
            let old = gate.route.served();
            self.set(service, Route::Held(old));
        }
        self.keep();
        self.settle();
        true
    }

    /// The deadline of a turn passes: what then, the hold has said. Says of which services whose
    /// hold has expired.
    pub(crate) fn expire(&mut self, turn: u64) -> Vec<(ServiceName, Epoch)> {
        let of_turn = self.services.iter().filter(|(_, gate)| gate.turn == turn);
        let of_turn: Vec<_> = of_turn.map(|(name, _)| name.clone()).collect();
        let mut expired = Vec::new();
        if of_turn.is_empty() {
            return expired;
        }
        self.next_turn(of_turn.iter());
        for service in of_turn {
            let gate = self.gate(&service);
            let Some((_, on_uncertain)) = gate.standing.deadline.take() else {
                continue;
            };
            let (epoch, old) = (gate.standing.epoch, gate.route.served());
            if gate.standing.parked {
                continue;
            }
            let route = match (on_uncertain, old) {
                (OnUncertain::Shed, old) => Route::Shed(old),
                (OnUncertain::ServeOld, None) => Route::Closed,
                (OnUncertain::ServeOld, Some(old)) => Route::Open(Admits {
                    expired: Some(epoch),
                    ..old
                }),
            };
            self.set(&service, route);
            expired.push((service, epoch));
        }
        self.keep();
        self.settle();
        expired
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

    /// Whether an order is of none of its services' past.
    fn may_obey<'a>(
        &self,
        epoch: Epoch,
        mut services: impl Iterator<Item = &'a ServiceName>,
    ) -> bool {
        services.all(|service| {
            let gate = self.services.get(service);
            gate.is_some_and(|gate| epoch >= gate.standing.epoch)
        })
    }

    fn next_turn<'a>(&mut self, services: impl Iterator<Item = &'a ServiceName>) -> u64 {
        self.turn += 1;
        let turn = self.turn;
        for service in services {
            self.gate(service).turn = turn;
        }
        turn
    }

    fn gate(&mut self, service: &ServiceName) -> &mut ServiceGate {
        let gate = self.services.get_mut(service);
        gate.expect("it was looked up before")
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
            let mut gates = hold.services.iter().map(|s| &self.services[s]);
            if gates.any(|gate| gate.turn != hold.turn) {
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
        let services = self.services.iter();
        self.kept = services
            .map(|(name, gate)| (name.clone(), (gate.route, gate.standing)))
            .collect();
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
