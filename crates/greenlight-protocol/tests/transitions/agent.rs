//! The agent: every state and what each event makes of it.

use super::cell;
use greenlight_protocol::{
    Agent, AgentEffect, AgentEvent, AgentRecord, CutOver, DeploymentId, Direction, Directive,
    DirectiveEnvelope, DrainEvidence, Epoch, GateAction, HoldEvidence, Incarnation,
    ParticipationView, PeerAnswer, Policy, Release, Slot, SwitchEvidence, Term, Token,
};

pub(crate) const STATES: [&str; 6] = [
    "idle",
    "preparing",
    "prepared",
    "armed",
    "armed, holding",
    "retiring",
];

/// The cut-over at hand; the one before it is live, and its release before that is warm.
const EPOCH: Epoch = Epoch(3);

/// Something that happens to a host.
type Step = fn(&mut Host);

/// An agent, its records, and what it has asked for last.
#[derive(Clone)]
struct Host {
    agent: Agent,
    records: Vec<AgentRecord>,
    effects: Vec<AgentEffect>,
}

pub(crate) fn rows() -> Vec<(String, Vec<String>)> {
    let events: [(&str, Step); 17] = [
        ("`Prepare`", |host| host.directed(EPOCH, prepare(EPOCH))),
        ("`Prepare` of a newer epoch", |host| {
            let newer = EPOCH.next();
            host.directed(newer, prepare(newer));
        }),
        ("all slots are ready", Host::slot_passes),
        ("a new slot dies", Host::slot_dies),
        ("`Arm`", |host| host.directed(EPOCH, Directive::Arm)),
        ("`Hold`", |host| host.directed(EPOCH, Directive::Hold)),
        ("the gate holds", Host::gate_holds),
        ("the gate refuses to hold", |host| {
            host.directed(EPOCH, Directive::Hold);
            let reason = "no".to_owned();
            host.handle(AgentEvent::GateRefused {
                epoch: EPOCH,
                reason,
            });
        }),
        ("`Switch`, and the gate opens", |host| {
            host.directed(EPOCH, Directive::Switch);
            host.gate_opens();
        }),
        ("`Switch`, and the front would not change", |host| {
            host.directed(EPOCH, Directive::Switch);
            host.front_fails();
        }),
        ("`Switch`, and the new release is dead", |host| {
            host.slot_dies();
            host.directed(EPOCH, Directive::Switch);
        }),
        ("`Abort`, and the gate opens", |host| {
            host.directed(EPOCH, Directive::Abort);
            host.gate_opens();
        }),
        ("a peer asks", |host| {
            host.handle(AgentEvent::PeerAsked {
                peer: "b".into(),
                epoch: EPOCH,
            });
        }),
        ("a peer answers `aborted`, and the gate opens", |host| {
            host.handle(AgentEvent::PeerAnswered {
                epoch: EPOCH,
                answer: PeerAnswer::Aborted,
            });
            host.gate_opens();
        }),
        ("`Retire`", |host| {
            host.directed(Epoch(2), Directive::Retire);
        }),
        ("all stops end", Host::stops_end),
        ("restart", Host::restarts),
    ];
    let row = |(title, event): (&str, Step)| {
        let cells = STATES.map(|state| {
            let mut host = at(state);
            event(&mut host);
            cell(state, host.state())
        });
        (title.to_owned(), cells.to_vec())
    };
    events.map(row).to_vec()
}

/// A host whose agent is in this state.
fn at(state: &str) -> Host {
    let mut host = Host::serving_the_second_release();
    let steps: [(&str, Step); 4] = [
        ("preparing", |host| {
            host.directed(EPOCH, prepare(EPOCH));
            host.stops_end();
        }),
        ("prepared", Host::slot_passes),
        ("armed", |host| host.directed(EPOCH, Directive::Arm)),
        ("armed, holding", Host::gate_holds),
    ];
    if state == "retiring" {
        host.directed(Epoch(2), Directive::Retire);
    } else if state != "idle" {
        let last = steps.iter().position(|(name, _)| *name == state);
        for (_, step) in &steps[..=last.expect("the state is known")] {
            step(&mut host);
        }
    }
    assert_eq!(host.state(), state);
    host
}

impl Host {
    fn serving_the_second_release() -> Self {
        let mut host = Self {
            agent: Agent::new("a".into()),
            records: Vec::new(),
            effects: Vec::new(),
        };
        host.handle(AgentEvent::SlotsListed);
        for epoch in [1, 2].map(Epoch) {
            host.directed(epoch, prepare(epoch));
            host.slot_passes();
            for directive in [Directive::Arm, Directive::Hold] {
                host.directed(epoch, directive);
            }
            let evidence = HoldEvidence::default();
            host.handle(AgentEvent::GateHeld { epoch, evidence });
            host.directed(epoch, Directive::Switch);
            host.gate_opens();
        }
        host
    }

    fn state(&self) -> &'static str {
        match self.agent.status().participation {
            ParticipationView::Idle if self.agent.is_retiring() => "retiring",
            ParticipationView::Idle => "idle",
            ParticipationView::Preparing(_) => "preparing",
            ParticipationView::Prepared(_) => "prepared",
            ParticipationView::Armed(_) if self.agent.is_holding() => "armed, holding",
            ParticipationView::Armed(_) => "armed",
        }
    }

    fn handle(&mut self, event: AgentEvent) {
        let effects = self.agent.handle(event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<AgentEffect>) {
        for effect in &effects {
            if let AgentEffect::Persist(record) = effect {
                self.records.push(record.clone());
            }
        }
        self.effects.extend(effects);
    }

    fn directed(&mut self, epoch: Epoch, directive: Directive) {
        let term = Term(1);
        let token = Token { term, epoch };
        self.handle(AgentEvent::Directed(DirectiveEnvelope { token, directive }));
    }

    /// What was started last.
    fn started(&self) -> Option<(Slot, Incarnation)> {
        self.effects.iter().rev().find_map(|effect| {
            let AgentEffect::Start {
                slot, incarnation, ..
            } = effect
            else {
                return None;
            };
            Some((slot.clone(), *incarnation))
        })
    }

    fn slot_passes(&mut self) {
        if let Some((slot, incarnation)) = self.started() {
            self.handle(AgentEvent::SlotReady { slot, incarnation });
        }
    }

    /// What was started for the cut-over at hand dies, if anything was.
    fn slot_dies(&mut self) {
        let started = self.started();
        if let Some((slot, incarnation)) = started.filter(|(_, its)| its.epoch == EPOCH) {
            self.handle(AgentEvent::SlotExited {
                slot,
                incarnation,
                reason: "dead".to_owned(),
            });
        }
    }

    fn gate_holds(&mut self) {
        self.directed(EPOCH, Directive::Hold);
        let evidence = HoldEvidence::default();
        self.handle(AgentEvent::GateHeld {
            epoch: EPOCH,
            evidence,
        });
    }

    /// The gate does what it was told last, if that is to open.
    fn gate_opens(&mut self) {
        if let Some(AgentEffect::Gate(GateAction::Open { epoch, colors })) = self.effects.last() {
            let event = AgentEvent::GateOpened {
                epoch: *epoch,
                colors: colors.clone(),
                evidence: SwitchEvidence::default(),
            };
            self.handle(event);
        }
    }

    fn front_fails(&mut self) {
        if let Some(AgentEffect::Gate(GateAction::Open { epoch, colors })) = self.effects.last() {
            let event = AgentEvent::GateFailed {
                epoch: *epoch,
                colors: colors.clone(),
                reason: "it would not change".to_owned(),
            };
            self.handle(event);
        }
    }

    fn stops_end(&mut self) {
        let stops = std::mem::take(&mut self.effects);
        for effect in stops {
            if let AgentEffect::Stop { slot, .. } = effect {
                let drained = DrainEvidence::default();
                self.handle(AgentEvent::SlotStopped { slot, drained });
            }
        }
    }

    fn restarts(&mut self) {
        let (agent, effects) = Agent::recover("a".into(), &self.records);
        self.agent = agent;
        self.carry_out(effects);
    }
}

fn prepare(epoch: Epoch) -> Directive {
    let version = format!("v{epoch}");
    let release = Release {
        version: version.clone(),
        digest: version,
        spec: String::new(),
    };
    Directive::Prepare(Box::new(CutOver {
        epoch,
        deployment: DeploymentId(format!("d{epoch}")),
        direction: Direction::Forward,
        participants: ["a".into(), "b".into()].into(),
        releases: [("shop".into(), Some(release))].into(),
        policy: Policy::default(),
    }))
}
