//! The last part of a proxy's life: its successor leads, and it answers what it still has.

use super::answer::{Answer, Refusal, conflict};
use super::following::{CountsAnswer, FollowRequest, LeftRequest, socket_beside};
use super::server::{Admin, Role};
use super::{AdminClient, Color};
use crate::gate::Route;
use hyper::StatusCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A successor that dies leaves a hold to this process's own deadline, which must come after the
/// successor's: while that lives, it says what happens.
const AFTER_THE_SUCCESSORS: u64 = 500;
/// How long, and how often, the successor is told of the end.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

impl Admin {
    /// Routes as the successor says; answers when nothing more reaches a color that is not open.
    pub(super) async fn follow(self: &Rc<Self>, request: FollowRequest) -> Answer<CountsAnswer> {
        if *self.role.borrow() != Role::Following {
            return Err(conflict("this proxy has no successor"));
        }
        if request.turn > self.followed.get() {
            self.followed.set(request.turn);
            self.adopt(&request)?;
        }
        let services = self.shared.table.load().services.clone();
        for service in &services {
            for color in [Color::Blue, Color::Green] {
                if service.gate.route() != Route::Open(color) {
                    service.gate.none_admitting(color).await;
                }
            }
        }
        Ok(self.own_counts())
    }

    fn adopt(self: &Rc<Self>, request: &FollowRequest) -> Answer<()> {
        let state = &request.state;
        let table = state.table(&self.shared.table.load()).map_err(|error| {
            let help = "the successor and this proxy are of different versions";
            Refusal(StatusCode::BAD_REQUEST, error, help)
        })?;
        for service in &table.services {
            if request.reset.contains(&service.name) {
                service.gate.reset_tally();
            }
            let route = Route::from(state.services[&service.name].route);
            if service.gate.route() != route {
                service.gate.set(route);
            }
        }
        self.shared.table.store(Arc::new(table));
        let mut standings = state.standings();
        for standing in standings.values_mut() {
            let later = |(millis, then): (u64, _)| (millis + AFTER_THE_SUCCESSORS, then);
            standing.deadline = standing.deadline.map(later);
        }
        *self.standings.borrow_mut() = standings;
        self.resume_deadlines();
        Ok(())
    }

    pub(super) fn own_counts(&self) -> CountsAnswer {
        CountsAnswer {
            services: self.own_count_of_all(),
        }
    }

    /// Nothing is left here. Whoever leads must know what was counted; nobody else does.
    pub(crate) async fn farewell(&self) {
        if *self.role.borrow() != Role::Following {
            // The admin socket is still this process's own.
            let _ = std::fs::remove_file(&self.path);
            return;
        }
        let socket = socket_beside(&self.path);
        let leader = AdminClient::new(&self.path);
        let request = LeftRequest {
            socket: socket.clone(),
            services: self.own_count_of_all(),
        };
        let told = async {
            while leader.left(&request).await.is_err() {
                sleep(PAUSE).await;
            }
        };
        // Without a leader there is nobody to tell.
        let _ = timeout(PATIENCE, told).await;
        let _ = std::fs::remove_file(socket);
    }
}
