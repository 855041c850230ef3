//! Counterexamples in words.

use super::fleet::{Action, Fleet, Place, State};
use super::table::What;
use super::world::message::name;
use std::fmt::Write;

impl Fleet {
    /// An action in words.
    pub(crate) fn tell(&self, action: &Action) -> String {
        let place = match action.place {
            Place::Server => "coordinator".to_owned(),
            Place::Machine(index) => name(index).0,
        };
        let what = match &action.what {
            What::Reads(message) => self.messages.message(*message).describe(),
            What::Own(step) => format!("{step:?}"),
        };
        let end = match action.outcome {
            0 => String::new(),
            number => format!(", and crashes in it at place {number}"),
        };
        format!("{place}: {what}{end}")
    }

    /// The state, as far as a person needs it to follow a counterexample.
    pub(crate) fn show(&self, state: &State) -> String {
        let server = &self.servers.entry(state.server).node;
        let phase = server.process.as_ref().map(|p| format!("{:?}", p.phase()));
        let mut text = format!("    coordinator {}\n", phase.unwrap_or("down".into()));
        for machine in self.machines_of(state) {
            let machine = &machine.node;
            let participation = machine
                .agent
                .as_ref()
                .map(|a| format!("{:?}", a.status().participation));
            let apps: Vec<_> = machine.slots.iter().map(|(slot, _)| slot.color).collect();
            let _ = writeln!(
                text,
                "    {} {:?} runs {apps:?} decided {:?}",
                participation.unwrap_or("down".into()),
                machine.gate.mode(),
                machine.disk.decided
            );
        }
        text
    }
}
