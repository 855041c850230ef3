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
//!
//! [`Agent::handle`] is the table of what each event leads to. A handler that may begin, decide or
//! end an epoch is a method of the agent, because everything may change then. Any other is a
//! function of the parts that it may change, and its signature says which.

mod attempt;
mod before_barrier;
mod cut_over;
mod effect;
mod gate_request;
mod gate_view;
mod hold;
mod in_doubt;
mod ledger;
mod live;
mod output;
mod participation;
mod retiring;
mod slot_events;
mod slots;
mod targets;

pub use effect::{AgentEffect, AgentEvent, AgentTimer, BeforeSwitchFailed, GateAction};
pub use gate_request::GateRequest;
pub use ledger::{AgentRecord, Decision, Ledger, Promise};
pub use slots::SlotState;

use self::gate_view::GateView;
use self::live::Live;
use self::output::{Fits, Output};
use self::participation::{Hold, Participation};
use self::slots::{Readiness, Slots};
use crate::cut_over::CutOver;
use crate::evidence::Alignment;
use crate::id::{Epoch, Incarnation, InstanceId, Term, Token};
use crate::message::{
    Directive, DirectiveEnvelope, Healthy, InstanceStatus, LiveReleaseView, ParticipationView,
    Report,
};
use crate::mutant::Mutant;
use crate::release::Slot;

/// The agent: a durable ledger, and what is known only while the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    me: InstanceId,
    ledger: Ledger,
    participation: Participation,
    slots: Slots,
    gate: GateView,
    /// What the event at hand has led to so far.
    output: Output,
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
        let effects = agent.output.take();
        (agent, effects)
    }

    fn from_ledger(me: InstanceId, ledger: Ledger, mutant: Mutant) -> Self {
        Self {
            me,
            participation: Participation::resume(&ledger.promise),
            ledger,
            slots: Slots::default(),
            gate: GateView::default(),
            output: Output::default(),
            mutant,
        }
    }

    /// Takes one event. Infallible: there is no caller that could handle an error. What is stale or
    /// does not fit is ignored or answered with the current status. It needs no time: what waits
    /// here waits for a timer, which is set for so long from now.
    #[must_use = "effects not carried out are lost"]
    pub fn handle(&mut self, event: AgentEvent) -> Vec<AgentEffect> {
        match event {
            AgentEvent::Directed(envelope) => self.directed(envelope),
            AgentEvent::Connected => self.report_status(),
            AgentEvent::GateConnected => self.reassert_gate(),
            AgentEvent::GateHeld { epoch, evidence } => {
                let (ledger, output) = (&self.ledger, &mut self.output);
                hold::held(epoch, evidence, &mut self.participation, ledger, output);
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
            AgentEvent::GateParked { services } => {
                self.live().has_parked(&services);
                self.advance();
            }
            AgentEvent::SlotFound {
                slot,
                incarnation,
                digest,
            } => {
                let (ledger, slots) = (&self.ledger, &mut self.slots);
                let output = &mut self.output;
                slot_events::slot_found(&slot, incarnation, digest, ledger, slots, output);
            }
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
                let (ledger, output) = (&self.ledger, &mut self.output);
                let participation = &mut self.participation;
                before_barrier::peers_checked(epoch, unseen, participation, ledger, output);
            }
            AgentEvent::BeforeSwitchEnded { epoch, result } => {
                let (ledger, output) = (&self.ledger, &mut self.output);
                let participation = &mut self.participation;
                before_barrier::before_switch_ended(epoch, result, participation, ledger, output);
            }
            AgentEvent::SlotStopped { slot, drained } => {
                self.slot_stopped(&slot, drained);
            }
            AgentEvent::TimerFired(AgentTimer::QueryDecision { epoch, asked }) => {
                let (ledger, output) = (&self.ledger, &mut self.output);
                in_doubt::ask(epoch, asked, &self.me, &self.participation, ledger, output);
            }
            AgentEvent::TimerFired(AgentTimer::Restart) => {
                self.live().restart(live::RESTART_AFTER);
            }
            AgentEvent::PeerAsked { peer, epoch } => self.peer_asked(peer, epoch),
            AgentEvent::PeerAnswered { epoch, answer } => {
                self.peer_answered(epoch, answer);
            }
        }
        self.output.take()
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
        let (ledger, slots) = (&mut self.ledger, &mut self.slots);
        let (participation, output) = (&mut self.participation, &mut self.output);
        let fits = match envelope.directive {
            Directive::Prepare(cut_over) => self.prepare(*cut_over),
            Directive::CheckPeers(peers) => {
                before_barrier::check_peers(epoch, peers, participation, ledger, output)
            }
            Directive::BeforeSwitch => {
                before_barrier::run_before_switch(epoch, participation, ledger, output)
            }
            Directive::Arm => self.arm(epoch),
            Directive::Hold => hold::hold(epoch, participation, ledger, slots, output),
            Directive::Switch => self.decided(epoch, Decision::Committed),
            Directive::Abort => self.decided(epoch, Decision::Aborted),
            Directive::Retire => retiring::retire(epoch, participation, ledger, slots, output),
            Directive::QueryStatus => Fits::No,
        };
        if fits == Fits::No {
            self.report_status();
        }
    }

    /// What is live, with the parts that are changed for it.
    fn live(&mut self) -> Live<'_> {
        Live {
            ledger: &self.ledger,
            participation: &self.participation,
            slots: &mut self.slots,
            gate: &mut self.gate,
            output: &mut self.output,
        }
    }

    fn targets_ready(&self, cut_over: &CutOver) -> Readiness {
        targets::readiness(cut_over, &self.ledger, &self.slots)
    }

    fn record(&mut self, record: AgentRecord) {
        self.output.record(&mut self.ledger, record);
    }

    fn report(&mut self, epoch: Epoch, report: Report) {
        self.output.report(&self.ledger, epoch, report);
    }

    fn report_status(&mut self) {
        let epoch = self.ledger.latest_decided();
        self.report(epoch, Report::Status(self.status()));
        live::report_unhealthy(&self.ledger, &self.slots, &mut self.output);
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
