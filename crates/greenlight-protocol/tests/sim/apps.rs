//! The applications of an instance: they start, or not; pass their check, or not; die, and are
//! drained and stopped.

use super::event::{Event, Place};
use super::oracle::{Checked, breach};
use super::simulation::{Act, Simulation};
use crate::world::slots::{App, exited};
use greenlight_protocol::{Incarnation, Release, Slot};
use std::collections::BTreeSet;
use std::time::Duration;

/// What is known of an application that takes time to start, and may fall sick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    pub(crate) listening: bool,
    pub(crate) healthy: bool,
}

/// A stop under way.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    slot: Slot,
    patience: u64,
    began: u64,
    /// When it may be cut off.
    due: u64,
    over: bool,
}

/// What is wrong with a release.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flaw {
    /// Instances on which it exits instead of starting.
    pub(crate) exits: BTreeSet<usize>,
    /// Instances on which it never passes its check.
    pub(crate) never_ready: BTreeSet<usize>,
    /// How long it lives, in microseconds.
    pub(crate) lives_for: Option<u64>,
}

impl Simulation {
    /// After a restart of the agent: what runs is told, and watched again.
    pub(crate) fn list(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let life = machine.agent.life;
        let watched: Vec<_> = machine
            .slots
            .iter()
            .map(|(slot, app)| (slot.clone(), app.incarnation))
            .collect();
        let told = machine.slots.found();
        // Before anything that has already come in.
        for event in told.into_iter().rev() {
            machine.agent.inbox.push_front(event);
        }
        for (slot, incarnation) in watched {
            let pause = self.rng.micros(5_000, 300_000);
            let check = Event::Check {
                at,
                life,
                slot,
                incarnation,
            };
            self.after(pause, check);
        }
    }

    pub(crate) fn begin(
        &mut self,
        at: usize,
        slot: Slot,
        incarnation: Incarnation,
        release: Release,
        ready_within: Duration,
    ) {
        let life = self.machines[at].agent.life;
        let deadline = self.machines[at].agent.clock.takes(ready_within);
        let pause = self.rng.micros(1_000, 50_000);
        self.machines[at].starting.insert(slot.clone(), incarnation);
        self.after(
            deadline,
            Event::ReadyDeadline {
                at,
                life,
                slot: slot.clone(),
                incarnation,
            },
        );
        let launch = Event::Launch {
            at,
            life,
            slot,
            incarnation,
            release,
        };
        self.after(pause, launch);
    }

    pub(crate) fn launch(
        &mut self,
        at: usize,
        life: u64,
        slot: &Slot,
        incarnation: Incarnation,
        release: Release,
    ) -> Checked {
        let machine = &mut self.machines[at];
        let wanted = machine.starting.get(slot) == Some(&incarnation);
        if machine.agent.life != life || !wanted {
            return Ok(());
        }
        machine.starting.remove(slot);
        // What an earlier start may have left in the slot.
        if self.machines[at].slots.get(slot).is_some() {
            self.ends(at, slot, End::Replaced)?;
        }
        let flaw = self.flaws.get(&release.digest).cloned().unwrap_or_default();
        let machine = &mut self.machines[at];
        if !machine.gate.is_up() || flaw.exits.contains(&at) {
            let event = exited(slot, incarnation, "it did not start");
            self.tell_agent(at, life, event);
            return Ok(());
        }
        machine.gate.define(&slot.service, self.now);
        let condition = Condition {
            listening: false,
            healthy: !flaw.never_ready.contains(&at),
        };
        let app = App::new(incarnation, release.digest, condition);
        machine.slots.start(slot.clone(), app);
        let pause = self.rng.micros(20_000, 800_000);
        let slot = slot.clone();
        self.after(
            pause,
            Event::Listens {
                at,
                slot: slot.clone(),
                incarnation,
            },
        );
        if let Some(lives_for) = flaw.lives_for {
            let lives_for = self.rng.micros(lives_for / 2, lives_for * 2);
            let dies = Event::Dies {
                at,
                slot,
                incarnation,
            };
            self.after(lives_for, dies);
        }
        self.gate_settled(at)
    }

    pub(crate) fn listens(&mut self, at: usize, slot: &Slot, incarnation: Incarnation) {
        let life = self.machines[at].agent.life;
        if let Some(app) = self.app(at, slot, incarnation) {
            app.condition.listening = true;
            self.check_soon(at, life, slot, incarnation);
        }
    }

    fn check_soon(&mut self, at: usize, life: u64, slot: &Slot, incarnation: Incarnation) {
        let pause = self.rng.micros(5_000, 300_000);
        let slot = slot.clone();
        let check = Event::Check {
            at,
            life,
            slot,
            incarnation,
        };
        self.after(pause, check);
    }

    pub(crate) fn check(&mut self, at: usize, life: u64, slot: &Slot, incarnation: Incarnation) {
        let agent = &self.machines[at].agent;
        let asked = agent.is_up() && agent.life == life;
        let Some(app) = self.app(at, slot, incarnation) else {
            return;
        };
        if asked
            && app.condition.listening
            && app.condition.healthy
            && let Some(event) = self.machines[at].slots.passes(slot)
        {
            self.tell_agent(at, life, event);
        }
    }

    pub(crate) fn ready_deadline(
        &mut self,
        at: usize,
        life: u64,
        slot: &Slot,
        incarnation: Incarnation,
    ) {
        let Some(app) = self.app(at, slot, incarnation) else {
            return;
        };
        if !app.passed
            && let Some(event) = self.machines[at].slots.fails(slot, "not ready in time")
        {
            self.tell_agent(at, life, event);
        }
    }

    /// It dies by itself. After the faults are over, nothing does.
    pub(crate) fn dies(&mut self, at: usize, slot: &Slot, incarnation: Incarnation) -> Checked {
        if self.act == Act::Chaos && self.app(at, slot, incarnation).is_some() {
            self.stats.count("app died");
            self.ends(at, slot, End::Died)?;
        }
        Ok(())
    }

    pub(crate) fn falls_sick(&mut self, at: usize, slot: &Slot) {
        let life = self.machines[at].agent.life;
        let Some(app) = self.machines[at].slots.get_mut(slot) else {
            return;
        };
        let (incarnation, passed) = (app.incarnation, app.passed);
        app.condition.healthy = false;
        if passed && let Some(event) = self.machines[at].slots.fails(slot, "sick") {
            // Before it recovers: one check goes on for life, and tells in order.
            let pause = self.rng.micros(1_000, 400_000);
            self.after(pause, Event::ToAgent { at, life, event });
        }
        let pause = self.rng.micros(500_000, 20_000_000);
        let slot = slot.clone();
        self.after(
            pause,
            Event::Recovers {
                at,
                slot,
                incarnation,
            },
        );
    }

    pub(crate) fn recovers(&mut self, at: usize, slot: &Slot, incarnation: Incarnation) {
        let life = self.machines[at].agent.life;
        let never = |flaw: &Flaw| flaw.never_ready.contains(&at);
        let Some(app) = self.machines[at].slots.get(slot) else {
            return;
        };
        if self.flaws.get(&app.digest).is_some_and(never) {
            return;
        }
        if let Some(app) = self.app(at, slot, incarnation) {
            app.condition.healthy = true;
            self.check_soon(at, life, slot, incarnation);
        }
    }

    /// An effect of the agent: drain, then stop.
    pub(crate) fn stop(
        &mut self,
        at: usize,
        slot: Slot,
        drain: Duration,
        patience: Duration,
    ) -> Checked {
        if self.serves(at, &slot) {
            let name = &self.machines[at].name;
            return breach(format!(
                "G3: `{slot}` on `{name}` serves and is to be stopped"
            ));
        }
        let machine = &mut self.machines[at];
        machine.slots.stop(&slot);
        let life = machine.agent.life;
        let deadline = machine.gate_clock.takes(drain);
        let patience = machine.agent.clock.takes(patience);
        machine.drains.retain(|drain| drain.slot != slot);
        machine.drains.push(Drain {
            slot: slot.clone(),
            patience,
            began: self.now,
            due: self.now + deadline,
            over: false,
        });
        self.after(deadline, Event::DrainOver { at, life, slot });
        self.look_at_drains(at);
        Ok(())
    }

    /// Ends the drains of what has nothing in flight any more.
    pub(crate) fn look_at_drains(&mut self, at: usize) {
        let machine = &self.machines[at];
        let life = machine.agent.life;
        let empty: Vec<_> = machine
            .drains
            .iter()
            .filter(|drain| !drain.over)
            .map(|drain| drain.slot.clone())
            .filter(|slot| machine.gate.in_flight(&slot.service, slot.color) == 0)
            .collect();
        for slot in empty {
            self.drain_over(at, life, &slot, true);
        }
    }

    pub(crate) fn drain_over(&mut self, at: usize, life: u64, slot: &Slot, drained: bool) {
        let machine = &mut self.machines[at];
        if machine.agent.life != life {
            return;
        }
        // The deadline may be an earlier stop's of the same slot.
        let is_over = |drain: &&mut Drain| drained || drain.due <= self.now;
        let mut drains = machine.drains.iter_mut().filter(is_over);
        let Some(drain) = drains.find(|drain| drain.slot == *slot && !drain.over) else {
            return;
        };
        drain.over = true;
        let pause = self.rng.micros(1_000, drain.patience.clamp(1_000, 50_000));
        let slot = slot.clone();
        let kills = Event::Kills {
            at,
            life,
            slot,
            drained,
        };
        self.after(pause, kills);
    }

    pub(crate) fn kills(&mut self, at: usize, life: u64, slot: &Slot, drained: bool) -> Checked {
        let machine = &mut self.machines[at];
        if machine.agent.life != life {
            return Ok(());
        }
        let place = machine.drains.iter().position(|drain| drain.slot == *slot);
        let Some(place) = place else {
            return Ok(());
        };
        let Drain { began, due, .. } = machine.drains.remove(place);
        machine.starting.remove(slot);
        if !drained && self.now < due {
            let name = &machine.name;
            return breach(format!(
                "G7: `{slot}` on `{name}` was cut off before its drain's deadline"
            ));
        }
        let end = match drained {
            true => End::Drained,
            false => End::CutOff { began },
        };
        self.ends(at, slot, end)?;
        let event = self.machines[at].slots.stopped(slot);
        self.tell_agent(at, life, event);
        Ok(())
    }

    /// Whatever runs in the slot is gone.
    pub(crate) fn ends(&mut self, at: usize, slot: &Slot, end: End) -> Checked {
        let Some((app, event)) = self.machines[at].slots.dies(slot, "it died") else {
            return Ok(());
        };
        if end == End::Died {
            self.faults
                .application_ended(at, &slot.service, &app.digest);
            let life = self.machines[at].agent.life;
            let pause = self.rng.micros(100, 20_000);
            self.after(pause, Event::ToAgent { at, life, event });
        }
        self.requests_lose(at, slot, app.incarnation, end)
    }

    fn app(
        &mut self,
        at: usize,
        slot: &Slot,
        incarnation: Incarnation,
    ) -> Option<&mut App<Condition>> {
        let app = self.machines[at].slots.get_mut(slot);
        app.filter(|app| app.incarnation == incarnation)
    }

    /// The application that a fault hits, if any runs.
    pub(crate) fn some_app(&mut self) -> Option<(usize, Slot)> {
        let running: Vec<_> = (0..self.machines.len())
            .flat_map(|at| {
                let slots = self.machines[at].slots.iter();
                slots.map(move |(slot, _)| (at, slot.clone()))
            })
            .collect();
        (!running.is_empty()).then(|| self.rng.pick(&running))
    }

    pub(crate) fn disk_has_room(&mut self, at: Place) {
        match at {
            Place::Coordinator => self.coordinator.disk.full = false,
            Place::Instance(index) => self.machines[index].agent.disk.full = false,
        }
    }
}

/// How an application ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Died,
    /// Stopped when nothing was in flight.
    Drained,
    /// Stopped at the deadline of the drain that began then.
    CutOff { began: u64 },
    /// Found in a slot in which another was to start.
    Replaced,
}
