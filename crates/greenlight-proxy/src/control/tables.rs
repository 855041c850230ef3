//! The table that requests are found by, as the control says.

use crate::gate::Gate;
use crate::routing::{RouteTable, Service, SettingsError};
use greenlight_admin::ServiceSettings;
use greenlight_gate::{GateControl, RoutingState};
use std::sync::Arc;

/// The services of a process that starts: each gate begins with what was kept, and goes on
/// counting.
pub(crate) fn of_state(state: &RoutingState<ServiceSettings>) -> Result<RouteTable, SettingsError> {
    let mut table = RouteTable::default();
    for (name, kept) in &state.services {
        let gate = Gate::new(kept.mode.route());
        if let Some(seen) = &kept.evidence {
            gate.resume(seen);
        }
        let service = Service::new(name.clone(), kept.settings.clone(), Arc::new(gate))?;
        table = table.with(service);
    }
    Ok(table)
}

/// The services of the control. One that is known keeps its gate.
pub(super) fn of_control(control: &GateControl<ServiceSettings>, known: &RouteTable) -> RouteTable {
    let mut table = known.only(|service| control.services().contains_key(&service.name));
    for (name, service) in control.services() {
        let before = table.named(name);
        if before.is_some_and(|before| before.settings == service.settings) {
            continue;
        }
        let gate = match before {
            Some(before) => before.gate.clone(),
            None => Arc::new(Gate::new(service.mode.route())),
        };
        let service = Service::new(name.clone(), service.settings.clone(), gate);
        table = table.with(service.expect("the settings were valid when they came"));
    }
    table
}
