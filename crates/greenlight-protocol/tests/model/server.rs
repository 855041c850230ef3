//! The coordinator as the model sees it: the real one, and what survives it.

use super::past;
use super::step::{Step, Taken, tokens_up_to};
use super::table::Node;
use super::world::coordinator::{Begun, begin};
use super::world::message::{Read, name};
use greenlight_protocol::coordinator::Ledger;
use greenlight_protocol::{
    Command, Coordinator, CoordinatorEffect, CoordinatorEvent, CoordinatorRecord, CoordinatorTimer,
    HoldEvidence, InstanceId, InstanceStatus, Mutant, ParticipationView, Phase, Report,
    ReportEnvelope, Term, Timestamp, Token,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The coordinator's host.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    mutant: Mutant,
    fleet: BTreeSet<InstanceId>,
    pub(crate) process: Option<Coordinator>,
    records: Vec<CoordinatorRecord>,
    /// What the records say; two servers whose records say the same are the same.
    pub(crate) disk: Ledger,
    pub(crate) timers: BTreeMap<CoordinatorTimer, Duration>,
}

impl Node for Server {
    /// What makes two servers the same.
    fn key(&self) -> String {
        super::message::without_reasons(&format!("{:?}", (&self.process, &self.disk, &self.timers)))
    }

    /// Everything that may happen here by itself, faults included.
    fn steps(&self) -> Vec<Step> {
        if self.process.is_none() {
            return vec![Step::Restarts];
        }
        let timers = self
            .timers
            .keys()
            .map(|timer| Step::CoordinatorTimer(*timer));
        timers
            .chain([Step::Crashes, Step::PersonAborts, Step::PersonDeploys])
            .collect()
    }

    /// G6: whether a stale vote would change anything, sent or not.
    fn flaw(&self) -> Option<&'static str> {
        let process = self.process.as_ref()?;
        let here = process.epoch().unwrap_or_default();
        let reason = String::new();
        let votes = [
            Report::Prepared,
            Report::PrepareFailed {
                reason: reason.clone(),
            },
            Report::Armed {
                sync: Duration::ZERO,
            },
            Report::Held(HoldEvidence::default()),
            Report::HoldRefused { reason },
        ];
        let tokens = tokens_up_to(process.term(), process.ledger().epoch);
        let stale = tokens.filter(|token| token.term < process.term() || token.epoch != here);
        let stale =
            stale.flat_map(|token| votes.clone().map(|report| ReportEnvelope { token, report }));
        let from = name(0);
        stale
            .map(|envelope| CoordinatorEvent::Reported {
                from: from.clone(),
                envelope,
            })
            .any(|event| {
                let mut after = process.clone();
                !after.handle(event, Timestamp(0)).is_empty() || after != *process
            })
            .then_some("G6: a stale vote counts")
    }

    /// Takes a step: the complete one first, then the ones that a crash cuts short.
    fn take(&self, step: &Step) -> Vec<Taken<Self>> {
        let mut next = self.clone();
        let event = match step {
            Step::Crashes => {
                next.crash();
                let crashed = Taken::of(next);
                return vec![Taken {
                    crashes: true,
                    ..crashed
                }];
            }
            Step::PersonAborts => {
                let requested_by = "the-model".to_owned();
                return next.command(Command::Abort { requested_by });
            }
            Step::PersonDeploys => {
                let request = past::request(self.fleet.len(), "d3", "v3");
                return next.command(Command::Deploy(Box::new(request)));
            }
            Step::Restarts => {
                let (process, effects) = Coordinator::recover_with(
                    self.fleet.clone(),
                    &self.records,
                    Timestamp(0),
                    self.mutant,
                );
                next.process = Some(process);
                return next.carry_out(&effects);
            }
            Step::CoordinatorTimer(timer) => {
                next.timers.remove(timer);
                CoordinatorEvent::TimerFired(*timer)
            }
            Step::SeesConnection(from) => CoordinatorEvent::Connected(name(*from)),
            Step::Reads(message) => match message.clone().read() {
                Read::Coordinator(event) => event,
                Read::Agent(..) => unreachable!("it is an agent's"),
            },
            Step::Connects
            | Step::AgentTimer(_)
            | Step::NothingIsOnItsWay(_)
            | Step::ProxyIsReplaced
            | Step::SuccessorLeads
            | Step::SuccessorFails
            | Step::ReplicationArrives
            | Step::FollowerExpires
            | Step::FollowerLeaves
            | Step::HoldExpires
            | Step::HoldIsRefused
            | Step::GateRestarts
            | Step::GateIsNoticed
            | Step::GateAnswers(_)
            | Step::CheckPasses(_)
            | Step::CheckFails(_)
            | Step::StopEnds(_)
            | Step::SlotDies(_)
            | Step::SlotsAreListed => unreachable!("these are an agent's"),
        };
        let Some(process) = &mut next.process else {
            return vec![Taken::of(next)];
        };
        let before = process.clone();
        let others = in_other_words(process, &event);
        let effects = process.handle(event, Timestamp(0));
        for other in others {
            next.check_same(before.clone(), other, &effects);
        }
        let taken = next.carry_out(&effects);
        if let Step::CoordinatorTimer(timer) = step {
            self.check_lost_links(*timer, &taken[0]);
        }
        taken
    }
}

impl Server {
    /// The host of a fleet with a past, its process not yet started.
    pub(crate) fn with(size: usize, records: Vec<CoordinatorRecord>, mutant: Mutant) -> Self {
        let mut disk = Ledger::default();
        for record in &records {
            disk.apply(record);
        }
        Self {
            mutant,
            fleet: (0..size).map(name).collect(),
            process: None,
            records,
            disk,
            timers: BTreeMap::new(),
        }
    }

    /// Checks that an event has done what another one would have done before it.
    fn check_same(
        &self,
        before: Coordinator,
        other: CoordinatorEvent,
        effects: &[CoordinatorEffect],
    ) {
        let mut elsewhere = self.clone();
        let process = elsewhere.process.insert(before);
        let followed = process.handle(other, Timestamp(0));
        elsewhere.settle_connected();
        let mut here = self.clone();
        here.settle_connected();
        let same = followed == effects && elsewhere.key() == here.key();
        assert!(same, "other words for the same made a difference");
    }

    /// A link that breaks does what a deadline does that passes, so it is no step of its own.
    fn check_lost_links(&self, timer: CoordinatorTimer, overdue: &Taken<Self>) {
        let in_barrier = matches!(
            (timer, self.phase()),
            (CoordinatorTimer::ArmDeadline(_), Some(Phase::Arming { .. }))
                | (CoordinatorTimer::HoldBudget(_), Some(Phase::Holding { .. }))
        );
        if !in_barrier {
            return;
        }
        for instance in &self.fleet {
            let mut next = self.clone();
            let lost = CoordinatorEvent::Disconnected(instance.clone());
            let process = next.process.as_mut().expect("it is in a phase");
            let effects = process.handle(lost, Timestamp(0));
            let lost = next.carry_out(&effects).remove(0);
            let same = lost.node.key() == overdue.node.key() && lost.sent == overdue.sent;
            assert!(same, "a lost link is not as a missed deadline");
        }
    }

    fn phase(&self) -> Option<&Phase> {
        self.process.as_ref().map(Coordinator::phase)
    }

    /// What may come of a person's command; nothing if it is refused.
    pub(crate) fn command(mut self, command: Command) -> Vec<Taken<Self>> {
        let process = self.process.as_mut().expect("it was started");
        match process.command(command, Timestamp(0)) {
            Ok((_, effects)) => self.carry_out(&effects),
            Err(_) => vec![Taken::of(self)],
        }
    }

    /// All effects, and then every beginning of them that a crash may leave.
    fn carry_out(&self, effects: &[CoordinatorEffect]) -> Vec<Taken<Self>> {
        let mut complete = self.carry_out_first(effects);
        complete.node.settle_connected();
        complete.node.forget_idle_timers();
        let beginnings = (1..=effects.len()).map(|count| {
            let mut cut_short = self.carry_out_first(&effects[..count]);
            cut_short.node.crash();
            cut_short
        });
        Taken::with_crashes(complete, beginnings)
    }

    fn carry_out_first(&self, effects: &[CoordinatorEffect]) -> Taken<Self> {
        let mut taken = Taken::of(self.clone());
        for effect in effects {
            match begin(effect.clone()) {
                Begun::Write(record) => {
                    taken.node.disk.apply(&record);
                    taken.node.records.push(*record);
                }
                Begun::Send(message) => taken.sent.push(message),
                Begun::SetTimer { timer, after } => {
                    taken.node.timers.insert(timer, after);
                }
            }
        }
        taken
    }

    /// Lets every instance have said the same of itself: who is there, and how it stands, is kept
    /// for people, and once a deployment is accepted nothing is decided by it.
    fn settle_connected(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        for from in self.fleet.clone() {
            if !matches!(
                process.phase(),
                Phase::Arming { .. } | Phase::Holding { .. }
            ) {
                let lost = CoordinatorEvent::Disconnected(from.clone());
                let effects = process.handle(lost, Timestamp(0));
                assert!(effects.is_empty(), "a lost link did something");
            }
            for report in [Report::Fenced, Report::Status(InstanceStatus::default())] {
                let envelope = ReportEnvelope {
                    token: Token::default(),
                    report,
                };
                let from = from.clone();
                let event = CoordinatorEvent::Reported { from, envelope };
                let effects = process.handle(event, Timestamp(0));
                assert!(
                    effects.is_empty(),
                    "a report with nothing in it did something"
                );
            }
        }
    }

    /// Drops the timers that would change nothing, save one: nothing is retired while a
    /// deployment is under way, but something is after it.
    fn forget_idle_timers(&mut self) {
        let Some(process) = &self.process else {
            return;
        };
        self.timers.retain(|timer, _| {
            let mut after = process.clone();
            let effects = after.handle(CoordinatorEvent::TimerFired(*timer), Timestamp(0));
            let waits = matches!(timer, CoordinatorTimer::WarmOver(_));
            waits || !effects.is_empty() || after != *process
        });
    }

    fn crash(&mut self) {
        self.process = None;
        self.timers.clear();
    }
}

/// The same report in other words that must make no difference: a fact as it would be told to
/// this term, and a status from earlier in the same cut-over.
fn in_other_words(process: &Coordinator, event: &CoordinatorEvent) -> Vec<CoordinatorEvent> {
    let CoordinatorEvent::Reported { from, envelope } = event else {
        return Vec::new();
    };
    let mut told = Vec::new();
    if envelope.token.term == Term(0) {
        let term = process.term();
        let token = Token {
            term,
            ..envelope.token
        };
        told.push((token, envelope.report.clone()));
    }
    if let Report::Status(status) = &envelope.report
        && let ParticipationView::Armed(epoch) = status.participation
    {
        for participation in [
            ParticipationView::Preparing(epoch),
            ParticipationView::Prepared(epoch),
        ] {
            let status = InstanceStatus {
                participation,
                ..status.clone()
            };
            told.push((envelope.token, Report::Status(status)));
        }
    }
    let told = told
        .into_iter()
        .map(|(token, report)| CoordinatorEvent::Reported {
            from: from.clone(),
            envelope: ReportEnvelope { token, report },
        });
    told.collect()
}
