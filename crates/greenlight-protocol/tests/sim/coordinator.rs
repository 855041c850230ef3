//! The coordinator's process: the real machine, its journal and its timers.

use super::disk::Ending;
use super::event::{Event, Place};
use super::oracle::{Checked, breach};
use super::process::{Process, Work};
use super::simulation::Simulation;
use crate::world::coordinator::{Begun, begin, is_stale};
use greenlight_protocol::coordinator::snapshot;
use greenlight_protocol::{
    Command, Coordinator, CoordinatorEffect, CoordinatorEvent, CoordinatorRecord, CoordinatorTimer,
    Outcome, Timestamp,
};
use std::time::Duration;

pub(crate) type CoordinatorProcess =
    Process<Coordinator, Input, CoordinatorEffect, CoordinatorRecord, CoordinatorTimer>;

/// What the process waits for.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Event(CoordinatorEvent),
    Command(Box<Command>),
}

impl Simulation {
    pub(crate) fn start_coordinator(&mut self) -> Checked {
        if self.coordinator.is_up() {
            return Ok(());
        }
        let now = Timestamp(self.coordinator.clock.reads(self.now));
        let journal = self.coordinator.disk.open();
        for record in &journal.found {
            self.oracle.coordinator_wrote(record)?;
        }
        if journal.torn {
            self.stats.count("coordinator found a torn record");
        }
        let fleet = self.names.keys().cloned().collect();
        let mutant = self.profile.mutant;
        // A shorter journal means the same, wherever it is cut.
        let records = journal.records;
        let records = match snapshot(&records, records.len() % 4) {
            Some((count, record)) => [&[record], &records[count..]].concat(),
            None => records,
        };
        let (coordinator, effects) = Coordinator::recover_with(fleet, &records, now, mutant);
        self.coordinator.machine = Some(coordinator);
        for record in &journal.found {
            self.count_outcome(record);
        }
        self.coordinator.plan(effects);
        self.wake(Place::Coordinator);
        for at in 0..self.machines.len() {
            self.dial(at, true);
        }
        Ok(())
    }

    /// The process ends, and comes back some time later.
    pub(crate) fn end_coordinator(&mut self, ending: Ending) {
        // The power may go when the process is gone already.
        self.coordinator.disk.end(ending, &mut self.rng);
        if !self.coordinator.is_up() {
            return;
        }
        self.coordinator.forget();
        for machine in &mut self.machines {
            machine.link_up = false;
        }
        let pause = self.restart_after();
        self.after(pause, Event::Starts(Place::Coordinator));
    }

    pub(crate) fn restart_after(&mut self) -> u64 {
        let longest = self.rng.pick(&[50_000, 500_000, 5_000_000, 15_000_000]);
        self.rng.micros(10_000, longest)
    }

    pub(crate) fn step_coordinator(&mut self) -> Checked {
        let now = Timestamp(self.coordinator.clock.reads(self.now));
        if let Some(work) = self.coordinator.work.pop_front() {
            return self.coordinator_works(work, now);
        }
        let Some(coordinator) = &mut self.coordinator.machine else {
            return Ok(());
        };
        let effects = if let Some(timer) = self.coordinator.due.pop_front() {
            coordinator.handle(CoordinatorEvent::TimerFired(timer), now)
        } else {
            match self.coordinator.inbox.pop_front() {
                Some(Input::Event(event)) => {
                    let before = is_stale(coordinator, &event).then(|| coordinator.clone());
                    let effects = coordinator.handle(event, now);
                    let changed =
                        |before: &Coordinator| before != coordinator || !effects.is_empty();
                    if before.as_ref().is_some_and(changed) {
                        return breach("G6: a vote for an earlier term changed something");
                    }
                    effects
                }
                Some(Input::Command(command)) => match coordinator.command(*command, now) {
                    Ok((accepted, effects)) => {
                        self.stats.count("command taken");
                        self.trace.note(self.now, &format_args_of(&accepted));
                        effects
                    }
                    Err(_) => Vec::new(),
                },
                None => Vec::new(),
            }
        };
        self.coordinator.plan(effects);
        self.wake(Place::Coordinator);
        Ok(())
    }

    fn coordinator_works(&mut self, work: Work<CoordinatorEffect>, now: Timestamp) -> Checked {
        if self.rng.hits(self.profile.crash_at_effect) {
            self.stats.count("coordinator crashed at an effect");
            let ending = self.rng.pick(&[Ending::Process, Ending::Power]);
            self.end_coordinator(ending);
            return Ok(());
        }
        match work {
            Work::Effect(effect) => {
                self.coordinator_begins(begin(effect));
                return Ok(());
            }
            Work::Sync => {
                if self.rng.hits(self.profile.sync_error) {
                    self.stats.count("coordinator's sync failed");
                    self.coordinator.disk.fail_to_sync(&mut self.rng);
                    self.end_coordinator(Ending::Process);
                    return Ok(());
                }
                for durable in self.coordinator.disk.sync() {
                    self.oracle.coordinator_wrote(&durable)?;
                    self.count_outcome(&durable);
                }
                let took = Duration::from_micros(self.rng.around(1_500));
                if let Some(coordinator) = &mut self.coordinator.machine {
                    let effects = coordinator.handle(CoordinatorEvent::Synced(took), now);
                    if !effects.is_empty() {
                        return breach("a measured sync has effects");
                    }
                }
            }
            Work::List => {}
        }
        self.wake(Place::Coordinator);
        Ok(())
    }

    /// What takes time is begun here.
    fn coordinator_begins(&mut self, begun: Begun) {
        let mut cost = None;
        match begun {
            Begun::Write(record) => {
                self.trace.note(self.now, &record);
                if self.coordinator.disk.write(&record).is_err() {
                    self.stats.count("coordinator's disk was full");
                    self.end_coordinator(Ending::Process);
                    return;
                }
                self.coordinator.work.push_front(Work::Sync);
                cost = Some(self.sync_takes());
            }
            Begun::Send(message) => self.send(message),
            Begun::SetTimer { timer, after } => {
                let takes = self.coordinator.clock.takes(after);
                let due = self.now + takes;
                self.coordinator.timers.insert(timer, due);
                let life = self.coordinator.life;
                self.after(takes, Event::CoordinatorTimer { life, timer, due });
            }
        }
        match cost {
            Some(cost) => self.wake_after(Place::Coordinator, cost),
            None => self.wake(Place::Coordinator),
        }
    }

    /// How long a sync takes here: mostly a few milliseconds, while there are faults now and
    /// then longer than any budget.
    pub(crate) fn sync_takes(&mut self) -> u64 {
        let stalls = self.profile.loss > 0.0 && self.rng.hits(0.005);
        if stalls {
            self.stats.count("sync stalled");
            return self.rng.micros(100_000, 3_000_000);
        }
        self.rng.around(1_500)
    }

    fn count_outcome(&mut self, record: &CoordinatorRecord) {
        if let CoordinatorRecord::Finished { outcome, .. } = record {
            let name = match outcome {
                Outcome::Promoted => "promoted",
                Outcome::Aborted { .. } => "aborted",
                Outcome::RolledBack { .. } => "rolled back",
                Outcome::Stuck { .. } => "stuck",
            };
            *self.stats.outcomes.entry(name).or_default() += 1;
            let coordinator = self.coordinator.machine.as_ref();
            let deployment = coordinator.and_then(|c| c.ledger().deployment.as_ref());
            let all = deployment.is_some_and(|d| d.request.releases.len() == self.services.len());
            match outcome {
                Outcome::Stuck { .. } => self.may_be_split = true,
                Outcome::Promoted if all => self.may_be_split = false,
                Outcome::Promoted | Outcome::Aborted { .. } | Outcome::RolledBack { .. } => {}
            }
        }
    }
}

fn format_args_of(accepted: &impl std::fmt::Debug) -> String {
    format!("{accepted:?}")
}
