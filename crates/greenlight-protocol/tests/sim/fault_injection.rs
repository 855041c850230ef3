//! Faults that come by themselves: ends of processes and machines, cuts, pauses, full disks.

use super::apps::End;
use super::disk::Ending;
use super::event::{Event, Place};
use super::oracle::Checked;
use super::profile::Kind;
use super::simulation::{Act, Simulation};
use greenlight_gate::Route;

impl Simulation {
    pub(crate) fn fault(&mut self) -> Checked {
        if self.act != Act::Chaos || self.profile.kinds.is_empty() {
            return Ok(());
        }
        let pause = self.rng.micros(1_000, 2 * self.profile.between_faults);
        self.after(pause, Event::Fault);
        let kind = self.rng.pick(&self.profile.kinds.clone());
        self.strikes(kind)?;
        // Faults like company: another one while the first is being dealt with.
        if self.rng.hits(0.3) {
            let kind = self.rng.pick(&self.profile.kinds.clone());
            let pause = self.rng.micros(100, 300_000);
            self.after(pause, Event::Strikes(kind));
        }
        Ok(())
    }

    pub(crate) fn strikes(&mut self, kind: Kind) -> Checked {
        if self.act != Act::Chaos {
            return Ok(());
        }
        let at = self.rng.index(self.machines.len());
        match kind {
            Kind::CoordinatorEnds => {
                self.stats.count("coordinator ended");
                let ending = self.rng.pick(&[Ending::Process, Ending::Power]);
                self.end_coordinator(ending);
            }
            Kind::AgentEnds => {
                self.stats.count("agent ended");
                self.end_agent(at, Ending::Process);
            }
            Kind::GateEnds => {
                self.stats.count("gate ended");
                let follower = self.machines[at].gate.proxy.followers().next();
                match follower {
                    Some(follower) if self.rng.coin() => self.end_follower(at, follower, false)?,
                    Some(_) | None => self.end_gate(at, false)?,
                }
            }
            Kind::InstanceLosesPower => {
                self.stats.count("instance lost power");
                self.end_agent(at, Ending::Power);
                for follower in self.machines[at].gate.proxy.followers().collect::<Vec<_>>() {
                    self.end_follower(at, follower, true)?;
                }
                self.end_gate(at, true)?;
                let slots: Vec<_> = {
                    let slots = self.machines[at].slots.iter();
                    slots.map(|(slot, _)| slot.clone()).collect()
                };
                for slot in slots {
                    self.ends(at, &slot, End::Died)?;
                }
            }
            Kind::ProxyReplaced => {
                let refused = 0;
                self.after(0, Event::ReplacementBegins { at, refused });
            }
            Kind::Partition => self.partition(at),
            Kind::Pause => self.pause(),
            Kind::ClockJump => {
                self.stats.count("clock jumped");
                self.coordinator.clock.jump(&mut self.rng, 2_000_000);
                let clock = &mut self.machines[at].agent.clock;
                clock.jump(&mut self.rng, 2_000_000);
            }
            Kind::DiskFull => {
                self.stats.count("disk full");
                let place = self.some_process();
                match place {
                    Place::Coordinator => self.coordinator.disk.full = true,
                    Place::Instance(at) => self.machines[at].agent.disk.full = true,
                }
                let pause = self.rng.micros(100_000, 8_000_000);
                self.after(pause, Event::DiskHasRoom(place));
            }
            Kind::AppDies => {
                if let Some((at, slot)) = self.some_app() {
                    self.stats.count("app died");
                    self.ends(at, &slot, End::Died)?;
                }
            }
            Kind::AppSick => {
                if let Some((at, slot)) = self.some_app() {
                    self.stats.count("app fell sick");
                    self.falls_sick(at, &slot);
                }
            }
        }
        Ok(())
    }

    /// The proxy's process ends, alone or with its machine.
    pub(crate) fn end_gate(&mut self, at: usize, with_machine: bool) -> Checked {
        let Some(leader) = self.machines[at].gate.leader() else {
            return Ok(());
        };
        let is_written = self.rng.coin();
        let gate = &mut self.machines[at].gate;
        let was_flipping = gate.end(leader, with_machine, is_written);
        if was_flipping {
            self.stats.count("gate ended between flip and record");
        }
        self.openings_are_lost(at);
        for (service, route) in self.machines[at].gate.routes_in_file() {
            if matches!(route, Route::Shed(_)) {
                self.faults.begins_to_shed(at, service);
            }
        }
        if with_machine {
            self.oracle.gate_lost_power(&self.machines[at].name);
        }
        self.faults.proxy_ended(at);
        self.connections_are_lost(at, leader)?;
        self.gate_settled(at)?;
        let longest = self.rng.pick(&[20_000, 200_000, 3_000_000]);
        let pause = self.rng.micros(5_000, longest);
        self.after(pause, Event::GateStarts(at));
        Ok(())
    }

    /// Where nothing was served, an opening is not noted: the gate comes back as it was, and so does
    /// a follower that has opened already.
    pub(crate) fn openings_are_lost(&mut self, at: usize) {
        let name = &self.machines[at].name;
        for (service, route) in self.machines[at].gate.routes_in_file() {
            if route == Route::Closed {
                self.oracle.opening_is_lost(name, &service);
                self.faults.opening_is_lost(at, service);
            }
        }
    }

    /// One direction or both, to the coordinator or between two instances.
    fn partition(&mut self, at: usize) {
        self.stats.count("partition");
        let here = Place::Instance(at);
        let other = if self.rng.hits(0.7) {
            Place::Coordinator
        } else {
            Place::Instance(self.rng.index(self.machines.len()))
        };
        let (first, second) = ((here, other), (other, here));
        let cut = self
            .rng
            .pick(&[vec![first], vec![second], vec![first, second]]);
        let lasts = self.rng.pick(&[50_000, 500_000, 4_000_000, 20_000_000]);
        let lasts = self.rng.micros(lasts / 4, lasts);
        for (from, to) in cut {
            self.blocked.insert((from, to));
            self.after(lasts, Event::PartitionHeals(from, to));
        }
        // The link's two ends may notice, or not.
        if other == Place::Coordinator && self.rng.coin() {
            self.link_breaks(at);
            self.dial(at, false);
        }
    }

    pub(crate) fn partition_heals(&mut self, from: Place, to: Place) {
        self.blocked.remove(&(from, to));
    }

    /// A process stands still, as after SIGSTOP; what comes in waits.
    fn pause(&mut self) {
        self.stats.count("process paused");
        let longest = self.rng.pick(&[50_000, 500_000, 5_000_000]);
        let until = self.now + self.rng.micros(1_000, longest);
        match self.some_process() {
            Place::Coordinator => self.coordinator.paused_until = until,
            Place::Instance(at) => self.machines[at].agent.paused_until = until,
        }
    }

    fn some_process(&mut self) -> Place {
        let count = self.machines.len();
        match self.rng.index(count + 1) {
            at if at == count => Place::Coordinator,
            at => Place::Instance(at),
        }
    }
}
