//! A proxy that is replaced: a successor asks for everything, leads, and its predecessor follows
//! until it has no connections left. Each of them may end at any moment.

use super::event::Event;
use super::oracle::Checked;
use super::simulation::{Act, Simulation};
use crate::world::proxy::ProcessId;
use greenlight_gate::Route;
use std::collections::BTreeSet;

/// How often a successor that is refused asks again.
const MOST_REFUSALS: u32 = 20;

impl Simulation {
    pub(crate) fn replacement_begins(&mut self, at: usize, refused: u32) -> Checked {
        let gate = &mut self.machines[at].gate;
        // One predecessor at a time: a person replaces a proxy now and then.
        let is_busy = gate.proxy.is_handing_over() || gate.proxy.followers().next().is_some();
        if self.act != Act::Chaos || is_busy || !gate.is_up() || refused > MOST_REFUSALS {
            return Ok(());
        }
        gate.asked_to_hand_over = refused + 1;
        gate.replace(self.now);
        self.gate_settled(at)
    }

    pub(crate) fn hands_over(&mut self, at: usize, is_refused: bool) {
        let gate = &self.machines[at].gate;
        if is_refused {
            self.stats.count("successor refused while held");
            let refused = gate.asked_to_hand_over;
            let pause = self.rng.micros(10_000, 300_000);
            return self.after(pause, Event::ReplacementBegins { at, refused });
        }
        if gate.does(|route| matches!(route, Route::Held(_))) {
            self.stats.count("proxy replaced while held");
        }
        let pause = self.rng.micros(5_000, 400_000);
        match self.rng.hits(0.2) {
            true => self.after(pause, Event::SuccessorFails(at)),
            false => self.after(pause, Event::SuccessorLeads(at)),
        }
    }

    pub(crate) fn successor_leads(&mut self, at: usize) -> Checked {
        let gate = &mut self.machines[at].gate;
        let Some(predecessor) = gate.leader().filter(|_| gate.proxy.is_handing_over()) else {
            return Ok(());
        };
        gate.successor_leads(self.now);
        self.stats.count("proxy replaced");
        self.asks_who_leads(at);
        let pause = self.rng.micros(50_000, 5_000_000);
        let process = predecessor;
        self.after(pause, Event::FollowerLeaves { at, process });
        self.gate_changed(at)
    }

    pub(crate) fn successor_fails(&mut self, at: usize) -> Checked {
        let gate = &mut self.machines[at].gate;
        if gate.proxy.is_handing_over() {
            gate.successor_fails(self.now);
            self.stats.count("successor failed");
        }
        self.gate_settled(at)
    }

    pub(crate) fn replicates(&mut self, at: usize, to: BTreeSet<ProcessId>) {
        for process in to {
            let pause = match self.rng.hits(self.profile.stragglers) {
                true => self.rng.micros(1_000, 3_000_000),
                false => self.rng.around(200),
            };
            self.after(pause, Event::ReplicationArrives { at, process });
        }
    }

    pub(crate) fn replication_arrives(&mut self, at: usize, process: ProcessId) -> Checked {
        let gate = &mut self.machines[at].gate;
        gate.replication_arrives(process, self.now);
        if gate.does(|route| matches!(route, Route::Held(_))) {
            self.stats.count("follower told while held");
        }
        self.gate_settled(at)
    }

    pub(crate) fn replication_budget(
        &mut self,
        at: usize,
        process: ProcessId,
        ticket: u64,
    ) -> Checked {
        let gate = &mut self.machines[at].gate;
        gate.replication_is_overdue(process, ticket, self.now);
        self.gate_settled(at)
    }

    pub(crate) fn follower_leaves(&mut self, at: usize, process: ProcessId) -> Checked {
        if self.machines[at].gate.leader() == Some(process) {
            return Ok(());
        }
        if self.has_requests(at, process) {
            self.after(200_000, Event::FollowerLeaves { at, process });
            return Ok(());
        }
        self.machines[at].gate.follower_leaves(process, self.now);
        self.gate_settled(at)
    }

    /// A follower ends with all its connections.
    pub(crate) fn end_follower(
        &mut self,
        at: usize,
        process: ProcessId,
        with_machine: bool,
    ) -> Checked {
        self.stats.count("follower ended");
        self.machines[at].gate.end(process, with_machine, false);
        self.faults.proxy_ended(at);
        self.connections_are_lost(at, process)?;
        if self.machines[at].gate.is_up() {
            self.faults.proxy_is_back(at, self.now);
        }
        self.gate_settled(at)
    }
}
