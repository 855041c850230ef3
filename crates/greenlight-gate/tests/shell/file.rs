//! The state file of a process with gates, in memory.

use greenlight_gate::{Durability, RoutingState};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GateFile {
    /// Survives the process.
    pub(crate) written: RoutingState<()>,
    /// Survives the machine.
    pub(crate) synced: RoutingState<()>,
}

impl GateFile {
    pub(crate) fn write(&mut self, state: RoutingState<()>, durability: Durability) {
        if durability == Durability::Disk {
            self.synced = state.clone();
        }
        self.written = state;
    }
}
