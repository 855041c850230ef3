//! The last part of a proxy's life: its successor leads, and it serves the connections that it
//! still has.

use super::answer::{Answer, Refusal, conflict};
use super::server::{Admin, Role};
use crate::admin::{AdminClient, Color};
use crate::gate::Route;
use crate::handover::{CountsAnswer, FinalCountsRequest, ReplicateRequest, follower_socket};
use hyper::StatusCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A successor that dies leaves a hold to this process's own deadline, which must come after the
/// successor's: while the successor lives, it decides.
const LEADER_GRACE_MS: u64 = 500;
/// How long, and how often, this process tries to report its final counts to the leader.
const FINAL_COUNTS_TIMEOUT: Duration = Duration::from_secs(1);
const FINAL_COUNTS_INTERVAL: Duration = Duration::from_millis(10);

impl Admin {
    /// Adopts the successor's routing; answers when nothing more reaches a color that is not open.
    pub(super) async fn apply(self: &Rc<Self>, request: ReplicateRequest) -> Answer<CountsAnswer> {
        if *self.role.borrow() != Role::Follower {
            return Err(conflict("this proxy has no successor"));
        }
        if request.sequence > self.applied.get() {
            self.applied.set(request.sequence);
            self.adopt(&request)?;
        }
        let services = self.table.load().services.clone();
        for service in &services {
            for color in [Color::Blue, Color::Green] {
                if service.gate.route() != Route::Open(color) {
                    service.gate.none_admitting(color).await;
                }
            }
        }
        Ok(self.own_counts())
    }

    fn adopt(self: &Rc<Self>, request: &ReplicateRequest) -> Answer<()> {
        let state = &request.state;
        let table = state.table(&self.table.load()).map_err(|error| {
            let help = "the successor and this proxy are of different versions";
            Refusal(StatusCode::BAD_REQUEST, error, help)
        })?;
        for service in &table.services {
            if request.reset.contains(&service.name) {
                service.gate.reset_counters();
            }
            let route = Route::from(state.services[&service.name].route);
            if service.gate.route() != route {
                service.gate.set(route);
            }
        }
        self.table.store(Arc::new(table));
        let mut controls = state.controls();
        for control in controls.values_mut() {
            let later = |(millis, then): (u64, _)| (millis + LEADER_GRACE_MS, then);
            control.deadline = control.deadline.map(later);
        }
        *self.controls.borrow_mut() = controls;
        self.resume_deadlines();
        Ok(())
    }

    pub(super) fn own_counts(&self) -> CountsAnswer {
        CountsAnswer {
            services: self.own_count_of_all(),
        }
    }

    /// Nothing is left here. Reports the counts to the leader, because no other process has them.
    pub(crate) async fn shutdown(&self) {
        if *self.role.borrow() != Role::Follower {
            // The admin socket is still this process's own.
            let _ = std::fs::remove_file(&self.path);
            return;
        }
        let socket = follower_socket(&self.path);
        let leader = AdminClient::new(&self.path);
        let request = FinalCountsRequest {
            socket: socket.clone(),
            services: self.own_count_of_all(),
        };
        let reported = async {
            while leader.report_final_counts(&request).await.is_err() {
                sleep(FINAL_COUNTS_INTERVAL).await;
            }
        };
        // Without a leader there is no process to report to.
        let _ = timeout(FINAL_COUNTS_TIMEOUT, reported).await;
        let _ = std::fs::remove_file(socket);
    }
}
