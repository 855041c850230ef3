//! The leader's requests to this process once it follows, and its final counts at its end.
//!
//! A proxy that has handed over serves the connections that it still has. Its successor leads.

use super::answer::{Answer, Refusal, read};
use super::server::Admin;
use super::shell::Gates;
use crate::handover::{
    CountsAnswer, FinalCountsRequest, follower_name, follower_socket, report_final_counts,
};
use crate::routing::check;
use greenlight_admin::{AdminClient, ServiceSettings};
use greenlight_gate::{Answer as Outcome, Command, ReplicateRequest, Role};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long, and how often, this process tries to report its final counts to the leader.
const FINAL_COUNTS_TIMEOUT: Duration = Duration::from_secs(1);
const FINAL_COUNTS_INTERVAL: Duration = Duration::from_millis(10);

impl Admin {
    /// Adopts the leader's routing; answers when nothing more reaches a color that is not open.
    pub(super) async fn follow(
        self: &Rc<Self>,
        request: Request<Incoming>,
    ) -> Answer<CountsAnswer> {
        let request: ReplicateRequest<ServiceSettings> = read(request).await?;
        for service in request.state.services.values() {
            check(&service.settings).map_err(|error| {
                let help = "the successor and this proxy are of different versions";
                Refusal(StatusCode::BAD_REQUEST, error.to_string(), help)
            })?;
        }
        match self.obey(Command::Follow(request)).await? {
            Outcome::Counts(services) => Ok(CountsAnswer { services }),
            other @ (Outcome::Held(_) | Outcome::Opened(_) | Outcome::Done) => {
                unreachable!("a replication is answered with {other:?}")
            }
        }
    }

    pub(super) fn own_counts(&self) -> CountsAnswer {
        let services = self.control.borrow().own_counts(&Gates(&self.table));
        CountsAnswer { services }
    }

    /// A follower of this process has ended.
    pub(super) async fn record_final_counts(
        self: &Rc<Self>,
        request: Request<Incoming>,
    ) -> Answer<()> {
        let FinalCountsRequest { follower, services } = read(request).await?;
        if self.is_leader() {
            self.followers.has_ended(&follower);
        }
        let counts = services;
        let done = self.obey(Command::FollowerEnded { follower, counts });
        done.await.map(|_| ())
    }

    /// Nothing is left here. Reports the counts to the leader, because no other process has them.
    pub(crate) async fn shutdown(&self) {
        if !matches!(*self.role.borrow(), Role::Follower { .. }) {
            // The admin socket is still this process's own.
            let _ = std::fs::remove_file(&self.path);
            return;
        }
        let socket = follower_socket(&self.path);
        let leader = AdminClient::new(&self.path);
        let request = FinalCountsRequest {
            follower: follower_name(&socket),
            services: self.own_counts().services,
        };
        let reported = async {
            while report_final_counts(&leader, &request).await.is_err() {
                sleep(FINAL_COUNTS_INTERVAL).await;
            }
        };
        // Without a leader there is no process to report to.
        let _ = timeout(FINAL_COUNTS_TIMEOUT, reported).await;
        let _ = std::fs::remove_file(socket);
    }
}
