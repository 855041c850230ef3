//! The fence: which commands are too old, and which wait is out of date.

use super::answer::{Answer, conflict};
use super::server::Admin;
use super::service_control::ServiceControl;
use crate::routing::Service;
use std::sync::Arc;

impl Admin {
    /// Refuses a command as a whole if it is too old for any of its services.
    pub(super) fn fence(&self, services: &[Arc<Service>], epoch: u64) -> Answer<()> {
        for service in services {
            let name = &service.name;
            let last = self.control(name).epoch;
            if epoch < last {
                let error = format!("cut-over {epoch} of `{name}` is older than {last}");
                return Err(conflict(error));
            }
        }
        Ok(())
    }

    /// The same for holds, which are late once their cut-over was opened.
    pub(super) fn fence_hold(&self, services: &[Arc<Service>], epoch: u64) -> Answer<()> {
        self.fence(services, epoch)?;
        for service in services {
            let name = &service.name;
            if epoch <= self.control(name).opened {
                let error = format!("cut-over {epoch} of `{name}` was opened already");
                return Err(conflict(error));
            }
        }
        Ok(())
    }

    pub(super) fn control(&self, name: &str) -> ServiceControl {
        let controls = self.controls.borrow();
        controls.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn change_control(
        &self,
        services: &[Arc<Service>],
        change: impl Fn(&mut ServiceControl),
    ) {
        let mut controls = self.controls.borrow_mut();
        for service in services {
            // One that was removed has no control any more.
            if let Some(control) = controls.get_mut(&service.name) {
                change(control);
            }
        }
    }

    /// Starts a generation of these services, which ends what their earlier ones still waited for.
    pub(super) fn next_generation(&self, services: &[Arc<Service>]) -> u64 {
        let generation = *self.generation.borrow() + 1;
        self.change_control(services, |control| control.generation = generation);
        self.generation.send_replace(generation);
        generation
    }

    pub(super) fn is_generation_of(&self, service: &Service, generation: u64) -> bool {
        self.control(&service.name).generation == generation
    }

    /// The highest epoch that any service has obeyed.
    pub(super) fn epoch(&self) -> u64 {
        let controls = self.controls.borrow();
        controls.values().map(|s| s.epoch).max().unwrap_or(0)
    }
}
