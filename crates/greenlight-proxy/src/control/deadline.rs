//! The deadline of a hold, which the proxy keeps, and not the caller that requested the hold.

use super::answer::Refusal;
use super::commands::served;
use super::server::{Admin, Durability};
use crate::admin::OnUncertain;
use crate::gate::{Color, Route};
use crate::routing::Service;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

impl Admin {
    /// After a restart: a hold that was on is on again, with a fresh deadline. Followers that
    /// still have connections follow this process from now on.
    pub(crate) fn resume(self: &Rc<Self>) {
        self.followers.discover(&self.path);
        self.resume_deadlines();
        if !self.followers.is_empty() {
            // What was inherited had no file to be in.
            self.persist_or_log();
        }
        self.replicate_in_background();
    }

    pub(super) fn resume_deadlines(self: &Rc<Self>) {
        for service in &self.table.load().services {
            if let Some(deadline) = self.control(&service.name).deadline {
                let services = vec![service.clone()];
                let generation = self.next_generation(&services);
                self.arm_deadline(services, generation, deadline);
            }
        }
    }

    /// Starts the deadline of a hold: when it passes, it ends the hold of those services that are
    /// still in this generation.
    pub(super) fn arm_deadline(
        self: &Rc<Self>,
        services: Vec<Arc<Service>>,
        generation: u64,
        (max_hold_ms, on_uncertain): (u64, OnUncertain),
    ) {
        let admin = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(max_hold_ms)).await;
            let mut services = services;
            services.retain(|service| admin.is_generation_of(service, generation));
            if !services.is_empty() {
                admin.expire(&services, on_uncertain);
            }
        });
    }

    fn expire(self: &Rc<Self>, services: &[Arc<Service>], on_uncertain: OnUncertain) {
        for service in self.end_hold(services) {
            let old = served(service.gate.route());
            tracing::warn!(
                service = service.name,
                epoch = self.control(&service.name).epoch,
                ?on_uncertain,
                "a hold's deadline passed without a decision"
            );
            self.note_expiry(&service);
            service.gate.set(match on_uncertain {
                OnUncertain::ServeOld => reopened(old),
                OnUncertain::Shed => Route::Shed(old),
            });
        }
        self.persist_or_log();
        self.replicate_in_background();
    }

    /// Gives a hold up.
    pub(super) fn reopen(&self, services: &[Arc<Service>]) {
        for service in self.end_hold(services) {
            let old = served(service.gate.route());
            service.gate.set(reopened(old));
        }
    }

    /// Ends the generation and the deadline of these services. Returns those whose requests the
    /// hold alone keeps back: what was parked or shed meanwhile stays so.
    fn end_hold(&self, services: &[Arc<Service>]) -> Vec<Arc<Service>> {
        self.next_generation(services);
        self.change_control(services, |control| control.deadline = None);
        let mut held = services.to_vec();
        held.retain(|service| {
            let is_held = matches!(service.gate.route(), Route::Held(_));
            is_held && !self.control(&service.name).parked
        });
        held
    }

    /// For callers that do not need the result.
    pub(super) fn persist_or_log(&self) {
        if let Err(Refusal(_, error, _)) = self.persist(Durability::Process) {
            tracing::error!(error, "the routing could not be written");
        }
    }

    /// For callers that do not wait for the followers.
    pub(super) fn replicate_in_background(self: &Rc<Self>) {
        let admin = self.clone();
        tokio::task::spawn_local(async move { admin.replicate(Vec::new()).await });
    }
}

fn reopened(old: Option<Color>) -> Route {
    old.map_or(Route::Closed, Route::Open)
}
