//! The coordinator as the model sees it: the real one, and what survives it.

use super::machine::name;
use super::post::directive;
use super::step::{Step, Taken};
use super::table::Node;
use greenlight_protocol::coordinator::{Ledger, Order};
use greenlight_protocol::{
    Command, Coordinator, CoordinatorEffect, CoordinatorEvent, CoordinatorRecord, CoordinatorTimer,
    InstanceId, InstanceStatus, Mutant, Report, Reported, Term, Timestamp, Token,
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
        super::post::without_reasons(&format!("{:?}", (&self.process, &self.disk, &self.timers)))
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
        timers.chain([Step::Crashes]).collect()
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
            Step::Reads(letter) => letter.to_coordinator(),
            Step::Connects
            | Step::AgentTimer(_)
            | Step::HoldCompletes
            | Step::HoldExpires
            | Step::OpenIsAnswered(_)
            | Step::CheckPasses(_)
            | Step::StopEnds(_)
            | Step::SlotDies(_)
            | Step::SlotsAreListed => unreachable!("these are an agent's"),
        };
        let Some(process) = &mut next.process else {
            return vec![Taken::of(next)];
        };
        let stale = is_stale(process, &event).then(|| process.clone());
        let elsewhen = told_to_this_term(process, &event).map(|event| {
            let mut process = process.clone();
            let effects = process.handle(event, Timestamp(0));
            (process, effects)
        });
        let effects = process.handle(event, Timestamp(0));
        if let Some((after, followed)) = elsewhen {
            let same = after == *process && followed == effects;
            assert!(same, "the term of a fact made a difference");
        }
        let changed = stale.is_some_and(|before| before != *process || !effects.is_empty());
        let mut taken = next.carry_out(&effects);
        if changed {
            for outcome in &mut taken {
                outcome.breach = Some("G6: a stale vote changed something");
            }
        }
        taken
    }
}

impl Server {
    /// The host of a fleet with a past, its process not yet started.
    pub(crate) fn with(size: usize, records: Vec<CoordinatorRecord>, mutant: Mutant) -> Self {
        let mut disk = Ledger::default();
        records.iter().for_each(|record| disk.apply(record));
        Self {
            mutant,
            fleet: (0..size).map(name).collect(),
            process: None,
            records,
            disk,
            timers: BTreeMap::new(),
        }
    }

    /// Gives the order, and says what may come of it.
    pub(crate) fn deploy(&self, order: &Order) -> Vec<Taken<Self>> {
        let mut next = self.clone();
        let process = next.process.as_mut().expect("it was started");
        let command = Command::Deploy(Box::new(order.clone()));
        let (_, effects) = process
            .command(command, Timestamp(0))
            .expect("an idle fleet takes an order");
        next.carry_out(&effects)
    }

    /// All effects, and then every beginning of them that a crash may leave.
    fn carry_out(&self, effects: &[CoordinatorEffect]) -> Vec<Taken<Self>> {
        let mut complete = self.carry_out_first(effects);
        complete.node.settle_presence();
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
            match effect {
                CoordinatorEffect::Persist(record) => {
                    taken.node.disk.apply(record);
                    taken.node.records.push(record.clone());
                }
                CoordinatorEffect::Send { to, envelope } => {
                    taken.sent.push(directive(to, envelope.clone()));
                }
                CoordinatorEffect::SetTimer { timer, after } => {
                    taken.node.timers.insert(*timer, *after);
                }
            }
        }
        taken
    }

    /// Lets every instance have said the same of itself: who is there, and how it stands, is kept
    /// for people, and once a deployment is accepted nothing is decided by it.
    fn settle_presence(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        for from in self.fleet.clone() {
            for report in [Report::Fenced, Report::Status(InstanceStatus::default())] {
                let reported = Reported {
                    token: Token::default(),
                    report,
                };
                let from = from.clone();
                let event = CoordinatorEvent::Reported { from, reported };
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

/// Whether G6 forbids the event to change anything: a vote that was given to an earlier term.
fn is_stale(process: &Coordinator, event: &CoordinatorEvent) -> bool {
    let CoordinatorEvent::Reported { reported, .. } = event else {
        return false;
    };
    let vote = matches!(
        reported.report,
        Report::Prepared
            | Report::PrepareFailed { .. }
            | Report::Armed { .. }
            | Report::Held(_)
            | Report::HoldRefused { .. }
    );
    vote && reported.token.term < process.term()
}

/// A fact as it would be told to this term: to whom a fact was told must not matter.
fn told_to_this_term(process: &Coordinator, event: &CoordinatorEvent) -> Option<CoordinatorEvent> {
    let CoordinatorEvent::Reported { from, reported } = event else {
        return None;
    };
    let fact = reported.token.term == Term(0);
    fact.then(|| CoordinatorEvent::Reported {
        from: from.clone(),
        reported: Reported {
            token: Token {
                term: process.term(),
                ..reported.token
            },
            report: reported.report.clone(),
        },
    })
}
