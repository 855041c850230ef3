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
//! After `Armed` this agent cannot decide alone. It obeys a decision no matter who delivers it.
//! Everything else is fenced by (term, epoch).
//!
//! The agent has four parts. The [`Ledger`] is durable. `Participation` is where the instance
//! stands in a cut-over, and holds what has a meaning there only. `Slots` is what runs, and
//! `GateView` what is known of the gate. An epoch ends in one function, `Agent::finish`.
//! `docs/design/protocol.md` has the table of transitions; a test drives this machine through it.

mod attempt;
mod before_barrier;
mod cut_over;
mod effect;
mod gate_request;
mod gate_view;
mod in_doubt;
mod ledger;
mod participation;
mod slot_events;
mod slots;

pub use effect::{AgentEffect, AgentEvent, AgentTimer, GateAction};
pub use gate_request::GateRequest;
pub use ledger::{AgentRecord, Decision, Ledger, Promise};
pub use slots::SlotState;

use self::gate_view::GateView;
use self::participation::{Hold, Participation};
use self::slots::Slots;
use crate::evidence::Alignment;
use crate::id::{Epoch, Incarnation, InstanceId, Term, Token};
use crate::message::{
    Directive, DirectiveEnvelope, Healthy, InstanceStatus, LiveReleaseView, ParticipationView,
    Report, ReportEnvelope,
};
use crate::mutant::Mutant;
use crate::release::Slot;
use crate::time::Timestamp;

/// The agent: a durable ledger, and what is known only while the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    me: InstanceId,
    ledger: Ledger,
    participation: Participation,
    slots: Slots,
    gate: GateView,
    /// What the event at hand has led to so far; empty between events.
    effects: Vec<AgentEffect>,
    mutant: Mutant,
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
        agent.resume_in_doubt();
        let effects = std::mem::take(&mut agent.effects);
        (agent, effects)
    }

    fn from_ledger(me: InstanceId, ledger: Ledger, mutant: Mutant) -> Self {
        Self {
            me,
            participation: Participation::resume(&ledger.promise),
            ledger,
            slots: Slots::default(),
            gate: GateView::default(),
            effects: Vec::new(),
            mutant,
        }
    }

    /// Takes one event. Infallible: there is no caller that could handle an error. What is stale or
    /// does not fit is ignored or answered with the current status.
    #[must_use = "effects not carried out are lost"]
    pub fn handle(&mut self, event: AgentEvent, _now: Timestamp) -> Vec<AgentEffect> {
        match event {
            AgentEvent::Directed(envelope) => self.directed(envelope),
            AgentEvent::Connected => self.report_status(),
            AgentEvent::GateConnected => self.reassert_gate(),
            AgentEvent::GateHeld { epoch, evidence } => {
                self.gate_held(epoch, evidence);
            }
            AgentEvent::GateRefused { epoch, reason } => {
                self.gate_refused(epoch, reason);
            }
            AgentEvent::GateOpened {
                epoch,
                colors,
                evidence,
            } => self.gate_opened(epoch, &colors, evidence),
            AgentEvent::GateFailed {
                epoch,
                colors,
                reason,
            } => self.gate_failed(epoch, &colors, reason),
            AgentEvent::GateParked { services } => self.gate_parked(&services),
            AgentEvent::SlotFound {
                slot,
                incarnation,
                digest,
            } => self.slot_found(&slot, incarnation, digest),
            AgentEvent::SlotsListed => self.slots_listed(),
            AgentEvent::SlotReady { slot, incarnation } => {
                self.slot_ready(&slot, incarnation);
            }
            AgentEvent::SlotUnhealthy {
                slot,
                incarnation,
                reason,
            } => self.slot_unhealthy(&slot, incarnation, reason),
            AgentEvent::SlotExited {
                slot,
                incarnation,
                reason,
            } => self.slot_exited(&slot, incarnation, reason),
            AgentEvent::PeersChecked { epoch, unseen } => {
                self.peers_checked(epoch, unseen);
            }
            AgentEvent::BeforeSwitchEnded { epoch, result } => {
                self.before_switch_ended(epoch, result);
            }
            AgentEvent::SlotStopped { slot, drained } => {
                self.slot_stopped(&slot, drained);
            }
            AgentEvent::TimerFired(AgentTimer::QueryDecision { epoch, asked }) => {
                self.query_decision(epoch, asked);
            }
            AgentEvent::TimerFired(AgentTimer::Restart) => {
                self.restart_live(slot_events::RESTART_AFTER);
            }
            AgentEvent::PeerAsked { peer, epoch } => self.peer_asked(peer, epoch),
            AgentEvent::PeerAnswered { epoch, answer } => {
                self.peer_answered(epoch, answer);
            }
        }
        std::mem::take(&mut self.effects)
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

    /// Whether the gate was asked to hold for the armed epoch, and has not opened since.
    pub fn is_holding(&self) -> bool {
        matches!(
            &self.participation,
            Participation::Armed { hold, .. } if *hold != Hold::Open
        )
    }

    /// Whether what is not live is being drained and stopped.
    pub fn is_retiring(&self) -> bool {
        matches!(self.participation, Participation::Retiring { .. })
    }

    /// The status of the instance, for reports and for people.
    pub fn status(&self) -> InstanceStatus {
        let live = self
            .ledger
            .live
            .iter()
            .map(|(service, live)| {
                let is_ready = self.slots.is_ready(&live.slot(service), &live.release);
                let view = LiveReleaseView {
                    version: live.release.version.clone(),
                    digest: live.release.digest.clone(),
                    color: live.color,
                    healthy: if is_ready { Healthy::Yes } else { Healthy::No },
                };
                (service.clone(), view)
            })
            .collect();
        let participation = match &self.participation {
            Participation::Preparing { cut_over } => ParticipationView::Preparing(cut_over.epoch),
            Participation::Prepared { cut_over, .. } => ParticipationView::Prepared(cut_over.epoch),
            Participation::Armed { cut_over, .. } => ParticipationView::Armed(cut_over.epoch),
            Participation::Idle | Participation::Retiring { .. } => ParticipationView::Idle,
        };
        InstanceStatus {
            live,
            participation,
            decided: self.ledger.latest_decided(),
            // The shell knows its front.
            alignment: Alignment::default(),
        }
    }

    fn directed(&mut self, envelope: DirectiveEnvelope) {
        let Token { term, epoch } = envelope.token;
        if term < self.ledger.term {
            self.report(epoch, Report::Fenced);
            return;
        }
        if term > self.ledger.term {
            self.record(AgentRecord::TermSeen(term));
        }
        match envelope.directive {
            Directive::Prepare(cut_over) => self.prepare(*cut_over),
            Directive::CheckPeers(peers) => self.check_peers(epoch, peers),
            Directive::BeforeSwitch => self.run_before_switch(epoch),
            Directive::Arm => self.arm(epoch),
            Directive::Hold => self.hold(epoch),
            Directive::Switch => self.decided(epoch, Decision::Committed),
            Directive::Abort => self.decided(epoch, Decision::Aborted),
            Directive::Retire => self.retire(epoch),
            Directive::QueryStatus => self.report_status(),
        }
    }

    /// Changes the ledger and makes the change durable before anything that follows.
    fn record(&mut self, record: AgentRecord) {
        self.ledger.apply(&record);
        self.effects.push(AgentEffect::Persist(record));
    }

    fn tell_gate(&mut self, action: GateAction) {
        self.effects.push(AgentEffect::Gate(action));
    }

    fn report(&mut self, epoch: Epoch, report: Report) {
        self.effects.push(AgentEffect::Report(ReportEnvelope {
            token: Token {
                term: self.ledger.term,
                epoch,
            },
            report,
        }));
    }

    fn report_status(&mut self) {
        let epoch = self.ledger.latest_decided();
        self.report(epoch, Report::Status(self.status()));
        self.report_unhealthy();
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
