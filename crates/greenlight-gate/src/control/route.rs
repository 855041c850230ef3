//! Fences and routes of services; and the commands that need nothing else: park, shed, define,
//! remove.

use super::hold::COUNTS_TIMEOUT_MS;
use super::running::Running;
use super::state::ServiceControl;
use super::{Awaited, Durability, GateEffect, Mode, Refusal, Role, Step, Ticket};
use crate::counts::CountsByCutOver;
use crate::mutant::broken;
use crate::wire::ServicesRequest;

impl<S: Clone + PartialEq> Step<'_, S> {
    /// Lets requests wait, or refuses them. The deadline of a running hold stays.
    pub(super) fn close(
        &mut self,
        ticket: Ticket,
        request: &ServicesRequest,
        close: fn(Mode) -> Mode,
    ) -> Result<(), Refusal> {
        self.fence(&request.services, request.epoch)?;
        for name in &request.services {
            self.service(name).epoch = request.epoch;
            let mode = close(self.service(name).mode);
            self.set_mode(name, mode);
        }
        self.supersede_openings(&request.services);
        self.control.running.insert(ticket, Running::Close);
        self.persist(Some(ticket), Durability::Process);
        Ok(())
    }

    /// A service is routed by its new settings when those are on the disk.
    pub(super) fn define(&mut self, ticket: Ticket, name: String, settings: S) {
        let before = self.control.services.get(&name).cloned();
        let service = match before.clone() {
            Some(known) => ServiceControl { settings, ..known },
            None => ServiceControl::new(settings),
        };
        self.control.services.insert(name.clone(), service);
        let command = Running::Reroute { name, before };
        self.control.running.insert(ticket, command);
        self.persist(Some(ticket), Durability::Disk);
    }

    pub(super) fn remove(&mut self, ticket: Ticket, name: String) -> Result<(), Refusal> {
        self.know(std::slice::from_ref(&name))?;
        if self.control.followers.is_empty() {
            let others = self.control.final_counts.clone();
            return self.remove_counted(ticket, name, &others);
        }
        self.control
            .running
            .insert(ticket, Running::Remove { name });
        let within_ms = COUNTS_TIMEOUT_MS;
        self.wait(ticket, Awaited::Counts { within_ms });
        Ok(())
    }

    /// Its gates are about to go, and what they have counted of its last cut-over with them: that
    /// is noted for good. Another command may have come since this one did.
    pub(super) fn remove_counted(
        &mut self,
        ticket: Ticket,
        name: String,
        others: &CountsByCutOver,
    ) -> Result<(), Refusal> {
        let services = std::slice::from_ref(&name);
        self.know(services)?;
        self.freeze_evidence(services, others);
        let before = self.control.services.remove(&name);
        let command = Running::Reroute { name, before };
        self.control.running.insert(ticket, command);
        self.persist(Some(ticket), Durability::Disk);
        Ok(())
    }

    /// A service that is defined under the name of one that was removed begins at nothing.
    pub(super) fn forget_counts_of_unknown(&mut self, name: &str) {
        if !self.control.services.contains_key(name) {
            self.control.final_counts.forget(name);
        }
    }

    /// What could not be written down is as it was.
    pub(super) fn take_back(&mut self, name: &str, before: Option<ServiceControl<S>>) {
        match before {
            Some(before) => self.control.services.insert(name.to_owned(), before),
            None => self.control.services.remove(name),
        };
    }

    /// Refuses a command as a whole if one of its services is not known, or if it is too old for
    /// one.
    pub(super) fn fence(&self, services: &[String], epoch: u64) -> Result<(), Refusal> {
        self.know(services)?;
        for name in services {
            let last = self.control.services[name].epoch;
            if epoch < last && !broken!(self.control, Unfenced) {
                let service = name.clone();
                return Err(Refusal::Older {
                    service,
                    epoch,
                    last,
                });
            }
        }
        Ok(())
    }

    /// The same for holds, which are late once their cut-over was opened.
    pub(super) fn fence_hold(&self, services: &[String], epoch: u64) -> Result<(), Refusal> {
        self.fence(services, epoch)?;
        for name in services {
            if epoch <= self.control.services[name].opened && !broken!(self.control, Unfenced) {
                let service = name.clone();
                return Err(Refusal::AlreadyOpened { service, epoch });
            }
        }
        Ok(())
    }

    fn know(&self, services: &[String]) -> Result<(), Refusal> {
        let mut unknown = services
            .iter()
            .filter(|name| !self.control.services.contains_key(*name));
        match unknown.next() {
            None => Ok(()),
            Some(service) => Err(Refusal::Unknown {
                service: service.clone(),
            }),
        }
    }

    /// One that was looked up before in the handling of the same event.
    pub(super) fn service(&mut self, name: &str) -> &mut ServiceControl<S> {
        let service = self.control.services.get_mut(name);
        service.expect("the command's services are known")
    }

    /// Those of the services that are still known: another command may have removed one.
    pub(super) fn still_known(&self, services: &[String]) -> Vec<String> {
        let known = |name: &&String| self.control.services.contains_key(*name);
        services.iter().filter(known).cloned().collect()
    }

    pub(super) fn set_mode(&mut self, name: &str, mode: Mode) {
        let service = self.service(name);
        let before = service.mode.route();
        service.mode = mode;
        let (service, route) = (name.to_owned(), mode.route());
        if route != before {
            self.effects.push(GateEffect::SetRoute { service, route });
        }
    }

    pub(super) fn persist(&mut self, ticket: Option<Ticket>, durability: Durability) {
        if matches!(self.control.role, Role::Follower { .. }) {
            // The file is the successor's. No command of its own waits here.
            return;
        }
        self.effects
            .push(GateEffect::Persist { ticket, durability });
    }
}
