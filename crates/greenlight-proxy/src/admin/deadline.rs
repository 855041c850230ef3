//! The deadline of a hold, kept here and not by whoever asked for the hold.

use super::OnUncertain;
use super::answer::Refusal;
use super::orders::served;
use super::server::{Admin, Durability};
use crate::gate::Route;
use crate::route_table::Service;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

impl Admin {
    /// After a restart: a hold that was on is on again, with a fresh deadline. Predecessors that
    /// still have connections are told to follow this process from now on.
    pub(crate) fn resume(self: &Rc<Self>) {
        self.predecessors.discover(&self.path);
        self.resume_deadline();
        self.tell_in_background();
    }

    pub(super) fn resume_deadline(self: &Rc<Self>) {
        let Some((millis, on_uncertain)) = *self.deadline.borrow() else {
            return;
        };
        let held = self.shared.table.load();
        let services: Vec<_> = held
            .services
            .iter()
            .filter(|service| matches!(service.gate.route(), Route::Held(_)))
            .cloned()
            .collect();
        if !services.is_empty() {
            let epoch = self.epoch.get();
            self.arm_deadline(epoch, services, Duration::from_millis(millis), on_uncertain);
        }
    }

    /// Starts the deadline of a hold. Returns the turn that it belongs to.
    pub(super) fn arm_deadline(
        self: &Rc<Self>,
        epoch: u64,
        services: Vec<Arc<Service>>,
        max_hold: Duration,
        on_uncertain: OnUncertain,
    ) -> u64 {
        let turn = self.next_turn();
        let admin = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(max_hold).await;
            if *admin.turn.borrow() == turn {
                admin.expire(epoch, &services, on_uncertain);
            }
        });
        turn
    }

    /// Ends the turn, and with it its deadline.
    pub(super) fn next_turn(&self) -> u64 {
        let turn = *self.turn.borrow() + 1;
        self.turn.send_replace(turn);
        turn
    }

    fn expire(self: &Rc<Self>, epoch: u64, services: &[Arc<Service>], on_uncertain: OnUncertain) {
        tracing::warn!(
            epoch,
            ?on_uncertain,
            "a hold's deadline passed without a decision"
        );
        self.next_turn();
        match on_uncertain {
            OnUncertain::ServeOld => self.reopen(services),
            OnUncertain::Shed => {
                for service in services {
                    let old = served(service.gate.route());
                    service.gate.set(Route::Shed(old));
                }
            }
        }
        *self.deadline.borrow_mut() = None;
        if let Some(seen) = self.evidence.borrow_mut().get_mut(&epoch) {
            for service in services {
                seen.entry(service.name.clone()).or_default().expired = true;
            }
        }
        if let Err(Refusal(_, error, _)) = self.keep(Durability::Process) {
            tracing::error!(error, "the routing could not be kept");
        }
        self.tell_in_background();
    }

    pub(super) fn reopen(&self, services: &[Arc<Service>]) {
        self.next_turn();
        *self.deadline.borrow_mut() = None;
        for service in services {
            let route = match served(service.gate.route()) {
                Some(old) => Route::Open(old),
                None => Route::Closed,
            };
            service.gate.set(route);
        }
    }

    /// Where nobody waits for the predecessors.
    fn tell_in_background(self: &Rc<Self>) {
        let admin = self.clone();
        tokio::task::spawn_local(async move { admin.tell(Vec::new()).await });
    }
}
