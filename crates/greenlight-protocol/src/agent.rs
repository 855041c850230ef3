//! The instance's half of the cut-over protocol.
//!
//! ```text
//!    Idle  ──Prepare──▶ Preparing ──slots ready──▶ Prepared ──Arm──▶ Armed ──Hold──▶ (gate held)
//!     ▲                     │                         │                │                  │
//!     └──── Aborted ◀───────┴──────── Abort ──────────┴────────────────┴──────────────────┤
//!     └──── Switched ◀─────────────────────── Switch ─────────────────────────────────────┘
//! ```
//!
//! The rules that make it sound, each also a mutant that the model check must find:
//! the promise is durable before it is acknowledged; an agent that restarts while armed comes
//! back held and in doubt, never open to old; and a peer that answers "not committed" first
//! durably aborts the epoch itself.
//!
//! After `Armed` this agent cannot decide alone. It obeys a decision from whoever brings it:
//! decisions are facts. Everything else is fenced by (term, epoch).

mod attempt;
mod cut_over;
mod effect;
mod in_doubt;
mod ledger;
mod slots;

pub use effect::{AgentEffect, AgentEvent, AgentTimer, GateAction};
pub use ledger::{AgentRecord, Decision, Ledger, Participation};
pub use slots::SlotState;

use self::attempt::Attempt;
use crate::cut_over::CutOver;
use crate::evidence::{Alignment, DrainEvidence, HoldEvidence};
use crate::id::{Epoch, Incarnation, InstanceId, ServiceName, Term, Token};
use crate::message::{
    Directive, DirectiveEnvelope, Healthy, InstanceStatus, LiveReleaseView, ParticipationView,
    Report, ReportEnvelope,
};
use crate::mutant::Mutant;
use crate::release::Slot;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The agent: a durable ledger, and what is known only while the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    me: InstanceId,
    ledger: Ledger,
    /// A cut-over whose slots are being started; forgotten by a restart, and asked for again.
    preparing: Option<CutOver>,
    hold: Hold,
    /// A decision that the gate has yet to carry out.
    decision: Option<Decision>,
    slots: BTreeMap<Slot, RunningSlot>,
    /// Whether the runtime has told what runs; until then an absent slot is unknown, not empty.
    listed: Listed,
    /// Services whose live application is gone and whose gate is known to be parked: no request
    /// can reach what is started there before its check has passed.
    parked: BTreeSet<ServiceName>,
    /// Services whose new release was found dead at the switch, and whose gate has not yet said
    /// that it is parked: a gate that restarts meanwhile leads to the release before it.
    unparked: BTreeSet<ServiceName>,
    /// The epoch for which `Retire` is under way, and what its stops have cut off so far.
    retiring: Option<(Epoch, DrainEvidence)>,
    /// The latest look at the peers.
    peer_check: Option<Attempt<BTreeMap<InstanceId, String>>>,
    /// The command before the switch that was begun last.
    before_switch: Option<Attempt<Result<String, String>>>,
    starts: u32,
    /// The committed epoch that the front would not change to, and why; a restart asks it again.
    unopened: Option<(Epoch, String)>,
    mutant: Mutant,
}

/// What runs in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RunningSlot {
    incarnation: Incarnation,
    digest: String,
    state: SlotState,
}

/// How far the hold of the armed epoch has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Hold {
    /// The gate admits to the old release, and always has.
    #[default]
    Open,
    /// The gate was asked and has not answered.
    Asked,
    /// The gate is held and the coordinator may have been told.
    Acknowledged(HoldEvidence),
    /// The agent restarted while armed: it cannot know whether it had acknowledged.
    Uncertain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Listed {
    No,
    Yes,
}

impl Agent {
    /// An agent that has never run; same as recovering from no records.
    pub fn new(me: InstanceId) -> Self {
        Self::from_ledger(me, Ledger::default(), Mutant::None)
    }

    /// An agent as its records describe it, and what must be done first.
    #[must_use = "effects not carried out are lost"]
    pub fn recover(me: InstanceId, records: &[AgentRecord]) -> (Self, Vec<AgentEffect>) {
        Self::recover_with(me, records, Mutant::None)
    }

    /// [`Agent::recover`] with a rule broken.
    #[must_use = "effects not carried out are lost"]
    pub fn recover_with(
        me: InstanceId,
        records: &[AgentRecord],
        mutant: Mutant,
    ) -> (Self, Vec<AgentEffect>) {
        let mut ledger = Ledger::default();
        for record in records {
            ledger.apply(record);
        }
        let mut agent = Self::from_ledger(me, ledger, mutant);
        let mut effects = Vec::new();
        agent.recover_participation(&mut effects);
        (agent, effects)
    }

    fn from_ledger(me: InstanceId, ledger: Ledger, mutant: Mutant) -> Self {
        Self {
            me,
            ledger,
            preparing: None,
            hold: Hold::Open,
            decision: None,
            slots: BTreeMap::new(),
            listed: Listed::No,
            parked: BTreeSet::new(),
            unparked: BTreeSet::new(),
            retiring: None,
            peer_check: None,
            before_switch: None,
            starts: 0,
            unopened: None,
            mutant,
        }
    }

    /// Takes one event; never fails, because nobody is there to be told. What is stale or does
    /// not fit is ignored or answered with the current status.
    #[must_use = "effects not carried out are lost"]
    pub fn handle(&mut self, event: AgentEvent, _now: Timestamp) -> Vec<AgentEffect> {
        let mut effects = Vec::new();
        match event {
            AgentEvent::Directed(envelope) => self.directed(envelope, &mut effects),
            AgentEvent::Connected => self.report_status(&mut effects),
            AgentEvent::GateConnected => self.reassert_gate(&mut effects),
            AgentEvent::GateHeld { epoch, evidence } => {
                self.gate_held(epoch, evidence, &mut effects);
            }
            AgentEvent::GateRefused { epoch, reason } => {
                self.gate_refused(epoch, reason, &mut effects);
            }
            AgentEvent::GateOpened {
                epoch,
                colors,
                evidence,
            } => self.gate_opened(epoch, &colors, evidence, &mut effects),
            AgentEvent::GateFailed {
                epoch,
                colors,
                reason,
            } => self.gate_failed(epoch, &colors, reason, &mut effects),
            AgentEvent::GateParked { services } => self.gate_parked(&services, &mut effects),
            AgentEvent::SlotFound {
                slot,
                incarnation,
                digest,
            } => self.slot_found(&slot, incarnation, digest, &mut effects),
            AgentEvent::SlotsListed => self.slots_listed(&mut effects),
            AgentEvent::SlotReady { slot, incarnation } => {
                self.slot_ready(&slot, incarnation, &mut effects);
            }
            AgentEvent::SlotUnhealthy {
                slot,
                incarnation,
                reason,
            } => self.slot_unhealthy(&slot, incarnation, reason, &mut effects),
            AgentEvent::SlotExited {
                slot,
                incarnation,
                reason,
            } => self.slot_exited(&slot, incarnation, reason, &mut effects),
            AgentEvent::PeersChecked { epoch, unseen } => {
                self.peers_checked(epoch, unseen, &mut effects);
            }
            AgentEvent::BeforeSwitchEnded { epoch, result } => {
                self.before_switch_ended(epoch, result, &mut effects);
            }
            AgentEvent::SlotStopped { slot, drained } => {
                self.slot_stopped(&slot, drained, &mut effects);
            }
            AgentEvent::TimerFired(AgentTimer::QueryDecision { epoch, asked }) => {
                self.query_decision(epoch, asked, &mut effects);
            }
            AgentEvent::TimerFired(AgentTimer::Restart) => {
                self.restart_live(slots::RESTART_AFTER, &mut effects);
            }
            AgentEvent::PeerAsked { peer, epoch } => self.peer_asked(peer, epoch, &mut effects),
            AgentEvent::PeerAnswered { epoch, answer } => {
                self.peer_answered(epoch, answer, &mut effects);
            }
        }
        effects
    }

    /// What is durable.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// By slot: whether it runs, and how it is.
    pub fn slots(&self) -> impl Iterator<Item = (&Slot, Incarnation, SlotState)> {
        self.slots
            .iter()
            .map(|(slot, running)| (slot, running.incarnation, running.state))
    }

    /// How the instance stands, for reports and for people.
    pub fn status(&self) -> InstanceStatus {
        let live = self
            .ledger
            .live
            .iter()
            .map(|(service, live)| {
                let slot = Slot {
                    service: service.clone(),
                    color: live.color,
                };
                let view = LiveReleaseView {
                    version: live.release.version.clone(),
                    digest: live.release.digest.clone(),
                    color: live.color,
                    healthy: if self.is_ready(&slot, &live.release) {
                        Healthy::Yes
                    } else {
                        Healthy::No
                    },
                };
                (service.clone(), view)
            })
            .collect();
        let participation = match (&self.ledger.participation, &self.preparing) {
            (Participation::Prepared(c), _) => ParticipationView::Prepared(c.epoch),
            (Participation::Armed(c), _) => ParticipationView::Armed(c.epoch),
            (Participation::Idle, Some(c)) => ParticipationView::Preparing(c.epoch),
            (Participation::Idle, None) => ParticipationView::Idle,
        };
        InstanceStatus {
            live,
            participation,
            decided: self.ledger.latest_decided(),
            // The shell knows its front.
            alignment: Alignment::default(),
        }
    }

    fn directed(&mut self, envelope: DirectiveEnvelope, effects: &mut Vec<AgentEffect>) {
        let Token { term, epoch } = envelope.token;
        if term < self.ledger.term {
            self.report(epoch, Report::Fenced, effects);
            return;
        }
        if term > self.ledger.term {
            self.record(AgentRecord::TermSeen(term), effects);
        }
        match envelope.directive {
            Directive::Prepare(cut_over) => self.prepare(*cut_over, effects),
            Directive::CheckPeers(peers) => self.check_peers(epoch, peers, effects),
            Directive::BeforeSwitch => self.run_before_switch(epoch, effects),
            Directive::Arm => self.arm(epoch, effects),
            Directive::Hold => self.hold(epoch, effects),
            Directive::Switch => self.decided(epoch, Decision::Committed, effects),
            Directive::Abort => self.decided(epoch, Decision::Aborted, effects),
            Directive::Retire => self.retire(epoch, effects),
            Directive::QueryStatus => self.report_status(effects),
        }
    }

    /// Changes the ledger and makes the change durable before anything that follows.
    fn record(&mut self, record: AgentRecord, effects: &mut Vec<AgentEffect>) {
        self.ledger.apply(&record);
        effects.push(AgentEffect::Persist(record));
    }

    fn report(&self, epoch: Epoch, report: Report, effects: &mut Vec<AgentEffect>) {
        effects.push(AgentEffect::Report(ReportEnvelope {
            token: Token {
                term: self.ledger.term,
                epoch,
            },
            report,
        }));
    }

    fn report_status(&self, effects: &mut Vec<AgentEffect>) {
        let epoch = self.ledger.latest_decided();
        self.report(epoch, Report::Status(self.status()), effects);
        self.report_unhealthy(effects);
    }

    /// This agent's name.
    pub fn name(&self) -> &InstanceId {
        &self.me
    }

    /// The highest term seen.
    pub fn term(&self) -> Term {
        self.ledger.term
    }
}
