//! Users: requests from their arrival to their one answer, through the gate.
//!
//! A request that is idempotent is sent again when the application dies under it, as the proxy
//! does; any other is answered 502. Deliberately absent: connections and bodies.

use super::apps::End;
use super::event::Event;
use super::faults::{Failure, MOST_RESENT};
use super::gate::{Admits, RequestId, Route};
use super::oracle::{Admission, Answer, Checked, breach};
use super::simulation::{Act, Simulation};
use crate::world::proxy::ProcessId;
use greenlight_protocol::{Incarnation, ServiceName, Slot};

/// How long a request may wait at the gate, in microseconds.
const REQUEST_TIMEOUT: u64 = 30_000_000;

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestState {
    /// Not at the gate, or waiting there.
    Waiting,
    /// It has a place in flight and looks for a connection.
    Claimed { admits: Admits, generation: u64 },
    /// Its first byte is about to be written.
    Admitting {
        admits: Admits,
        incarnation: Incarnation,
    },
    /// The application has it.
    Sent {
        admits: Admits,
        incarnation: Incarnation,
    },
}

/// One request without an answer.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    at: usize,
    /// The process that has its connection.
    process: ProcessId,
    service: ServiceName,
    idempotent: bool,
    state: RequestState,
    /// When it came.
    since: u64,
    /// When it last began to reach an application.
    reached: u64,
    /// How often it was sent again after an application has seen it.
    resent: u32,
    /// Counts what happened to it: what was planned before does not happen.
    step: u32,
}

impl Request {
    /// Whether the proxy sends it again if an application that has seen it ends now.
    fn may_be_sent_again(&self) -> bool {
        self.idempotent && self.resent < MOST_RESENT
    }
}

impl Simulation {
    /// Users come all the time, and thick when gates move.
    pub(crate) fn traffic(&mut self) -> Checked {
        if self.act == Act::Ending {
            return Ok(());
        }
        let at = self.rng.index(self.machines.len());
        let service = self.rng.pick(&self.services.clone());
        self.ask(at, service)?;
        let unsettled = || self.machines.iter().any(|m| m.gate.is_unsettled());
        let gap = if self.now < self.tense_until {
            self.rng.micros(300, 4_000)
        } else if self.act == Act::Chaos && unsettled() {
            self.rng.micros(5_000, 60_000)
        } else {
            self.rng.micros(50_000, 500_000)
        };
        self.after(gap, Event::Traffic);
        Ok(())
    }

    /// A user asks one instance.
    pub(crate) fn ask(&mut self, at: usize, service: ServiceName) -> Checked {
        let id = self.asked;
        self.asked += 1;
        self.oracle.asked(id);
        let request = Request {
            at,
            process: self.connects_to(at),
            service,
            idempotent: self.rng.hits(0.7),
            state: RequestState::Waiting,
            since: self.now,
            reached: self.now,
            resent: 0,
            step: 0,
        };
        self.requests.insert(id, request);
        self.after(REQUEST_TIMEOUT, Event::RequestIsOverdue(id));
        self.try_at_gate(id)
    }

    /// The process that a user's connection leads to: the leader, which accepts new ones, or now and
    /// then a follower, which has it from before. Without either, nobody is at the gate.
    fn connects_to(&mut self, at: usize) -> ProcessId {
        let follower = self.machines[at].gate.proxy.followers().next();
        let leader = self.machines[at].gate.leader();
        match follower {
            Some(follower) if self.rng.hits(0.3) => follower,
            Some(_) | None => leader.unwrap_or_default(),
        }
    }

    /// Whether a process has a request without an answer.
    pub(crate) fn has_requests(&self, at: usize, process: ProcessId) -> bool {
        let mut requests = self.requests.values();
        requests.any(|request| request.at == at && request.process == process)
    }

    pub(crate) fn try_at_gate(&mut self, id: RequestId) -> Checked {
        let Some(request) = self.requests.get_mut(&id) else {
            return Ok(());
        };
        request.step += 1;
        let gate = &mut self.machines[request.at].gate;
        let process = request.process;
        if gate.proxy.process(process).is_none() {
            return self.answer(id, Answer::ProxyGone);
        }
        match gate.route(process, &request.service) {
            None | Some(Route::Closed) => self.answer(id, Answer::NothingDeployed),
            Some(Route::Shed(_)) => self.answer(id, Answer::Shed),
            Some(Route::Held(_)) => {
                let (at, service) = (request.at, request.service.clone());
                gate.wait(process, &service, id, self.now);
                self.gate_settled(at)
            }
            Some(Route::Open(admits)) => {
                let generation = gate.generation(process, &request.service);
                request.state = RequestState::Claimed { admits, generation };
                gate.claim(process, &request.service, admits.color);
                let takes = self.rng.micros(20, 1_000);
                self.moves_after(id, takes);
                Ok(())
            }
        }
    }

    fn moves_after(&mut self, id: RequestId, micros: u64) {
        let step = self.requests[&id].step;
        let request = id;
        self.after(micros, Event::RequestMoves { request, step });
    }

    pub(crate) fn request_moves(&mut self, id: RequestId, step: u32) -> Checked {
        let Some(request) = self.requests.get_mut(&id) else {
            return Ok(());
        };
        if request.step != step {
            return Ok(());
        }
        request.step += 1;
        match request.state {
            RequestState::Waiting => self.try_at_gate(id),
            RequestState::Claimed { admits, generation } => self.connects(id, admits, generation),
            RequestState::Admitting {
                admits,
                incarnation,
            } => self.is_written(id, admits, incarnation),
            RequestState::Sent { admits, .. } => {
                let (at, service) = (request.at, request.service.clone());
                let (process, now) = (request.process, self.now);
                let gate = &mut self.machines[at].gate;
                gate.release(process, &service, admits.color, now);
                self.answer(id, Answer::Served)?;
                self.gate_settled(at)
            }
        }
    }

    fn connects(&mut self, id: RequestId, admits: Admits, generation: u64) -> Checked {
        let request = self.requests.get_mut(&id).expect("it has just moved");
        let (at, process) = (request.at, request.process);
        let service = request.service.clone();
        let machine = &mut self.machines[at];
        let slot = Slot {
            service: service.clone(),
            color: admits.color,
        };
        let app = machine
            .slots
            .get(&slot)
            .filter(|app| app.condition.listening);
        let Some(app) = app else {
            // Refused: it waits, and looks again.
            request.state = RequestState::Waiting;
            machine
                .gate
                .release(process, &service, admits.color, self.now);
            let pause = self.rng.micros(5_000, 50_000);
            self.moves_after(id, pause);
            return self.gate_settled(at);
        };
        if machine.gate.generation(process, &service) != generation {
            // Recalled: nothing of it was sent.
            request.state = RequestState::Waiting;
            machine
                .gate
                .release(process, &service, admits.color, self.now);
            self.stats.count("request recalled");
            self.gate_settled(at)?;
            return self.try_at_gate(id);
        }
        request.state = RequestState::Admitting {
            admits,
            incarnation: app.incarnation,
        };
        request.reached = self.now;
        machine
            .gate
            .begin_admitting(process, &service, admits.color);
        let takes = self.rng.micros(5, 2_000);
        self.moves_after(id, takes);
        Ok(())
    }

    fn is_written(&mut self, id: RequestId, admits: Admits, incarnation: Incarnation) -> Checked {
        let request = self.requests.get_mut(&id).expect("it has just moved");
        let (at, process) = (request.at, request.process);
        let machine = &mut self.machines[at];
        let slot = Slot {
            service: request.service.clone(),
            color: admits.color,
        };
        let app = machine.slots.get(&slot);
        let app = app.expect("requests to what has ended are taken back");
        self.oracle.admitted(&Admission {
            instance: &machine.name,
            service: &request.service,
            admits,
            incarnation,
            digest: &app.digest,
            passed: app.passed,
        })?;
        self.faults
            .application_is_there(at, &slot.service, &app.digest, self.now);
        request.state = RequestState::Sent {
            admits,
            incarnation,
        };
        let (service, now) = (&slot.service, self.now);
        machine.gate.admitted(process, service, admits, now);
        let takes = if self.rng.hits(0.03) {
            self.rng.micros(300_000, 4_000_000)
        } else {
            self.rng.micros(500, 20_000)
        };
        self.moves_after(id, takes);
        self.gate_settled(at)
    }

    /// An application has ended: what was on its way to it must go on or be answered.
    pub(crate) fn requests_lose(
        &mut self,
        at: usize,
        slot: &Slot,
        incarnation: Incarnation,
        end: End,
    ) -> Checked {
        let lost: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, request)| request.at == at && request.service == slot.service)
            .filter_map(|(id, request)| match request.state {
                RequestState::Admitting {
                    admits,
                    incarnation: to,
                }
                | RequestState::Sent {
                    admits,
                    incarnation: to,
                } if admits.color == slot.color && to == incarnation => Some(*id),
                RequestState::Waiting
                | RequestState::Claimed { .. }
                | RequestState::Admitting { .. }
                | RequestState::Sent { .. } => None,
            })
            .collect();
        if !lost.is_empty() && matches!(end, End::Drained | End::Replaced) {
            let name = &self.machines[at].name;
            return breach(format!(
                "G7: `{slot}` on `{name}` was stopped under {} requests",
                lost.len()
            ));
        }
        for id in lost {
            let request = self.requests.get_mut(&id).expect("it was listed");
            let written = matches!(request.state, RequestState::Sent { .. });
            if matches!(end, End::CutOff { began } if request.reached > began) {
                let name = &self.machines[at].name;
                return breach(format!(
                    "G7: `{slot}` on `{name}` was given a request after its drain had begun"
                ));
            }
            request.state = RequestState::Waiting;
            request.step += 1;
            let again = !written || request.may_be_sent_again();
            request.resent += u32::from(written);
            let process = request.process;
            let gate = &mut self.machines[at].gate;
            if !written {
                gate.end_admitting(process, &slot.service, slot.color, self.now);
            }
            gate.release(process, &slot.service, slot.color, self.now);
            if again {
                let pause = self.rng.micros(5_000, 50_000);
                self.moves_after(id, pause);
            } else if end == End::Died {
                self.answer(id, Answer::DiedUnderIt)?;
            } else {
                self.answer(id, Answer::CutOffByDrain)?;
            }
        }
        self.gate_settled(at)
    }

    /// A process of a proxy has ended, and every connection of it.
    pub(crate) fn connections_are_lost(&mut self, at: usize, process: ProcessId) -> Checked {
        let lost: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, request)| request.at == at && request.process == process)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.answer(id, Answer::ProxyGone)?;
        }
        Ok(())
    }

    pub(crate) fn overdue(&mut self, id: RequestId) -> Checked {
        let waits = |request: &Request| request.state == RequestState::Waiting;
        if self.requests.get(&id).is_some_and(waits) {
            return self.answer(id, Answer::TimedOut);
        }
        Ok(())
    }

    /// The one answer of a request.
    fn answer(&mut self, id: RequestId, answer: Answer) -> Checked {
        let request = self.requests.remove(&id);
        self.oracle.answered(id, answer)?;
        let Some(request) = request else {
            return Ok(());
        };
        let machine = &self.machines[request.at];
        let route = machine.gate.route(request.process, &request.service);
        let failure = Failure {
            at: request.at,
            instance: &machine.name,
            service: &request.service,
            admits: route.and_then(Route::served),
            since: request.since,
            now: self.now,
            is_behind: {
                let mut behind = machine.gate.proxy.replications();
                behind.any(|to| to == request.process)
            },
            resendable: request.may_be_sent_again(),
        };
        if self.faults.excuse(answer, &failure, &self.oracle) {
            return Ok(());
        }
        let (service, name) = (&request.service, &machine.name);
        breach(format!(
            "G3: request {id} to `{service}` on `{name}`: {answer:?}"
        ))
    }
}
