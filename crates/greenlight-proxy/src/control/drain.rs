//! Waiting until nothing is in flight to a color, here and in every follower. Changes nothing.

use super::answer::{Answer, read, refused};
use super::server::Admin;
use super::shell::COUNTS_INTERVAL;
use crate::gate::Wait as _;
use greenlight_admin::{DrainAnswer, DrainRequest};
use greenlight_gate::{InFlight, Refusal};
use hyper::Request;
use hyper::body::Incoming;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

impl Admin {
    pub(super) async fn drain(self: &Rc<Self>, request: Request<Incoming>) -> Answer<DrainAnswer> {
        let request: DrainRequest = read(request).await?;
        if !self.is_leader() {
            return Err(refused(&Refusal::HandingOver));
        }
        let (name, color) = (request.service, request.color);
        let table = self.table.load_full();
        let Some(service) = table.named(&name) else {
            return Err(refused(&Refusal::Unknown { service: name }));
        };
        let elsewhere = Cell::new(None);
        let drained = async {
            loop {
                let there = self.in_flight_elsewhere(&name, color).await;
                elsewhere.set(Some(there));
                service.gate.drained(color).await;
                if there.total() == 0 {
                    return;
                }
                sleep(COUNTS_INTERVAL).await;
            }
        };
        // Past the deadline the answer says what is left.
        let _ = timeout(Duration::from_millis(request.deadline_ms), drained).await;
        let here = service.gate.in_flight(color);
        let there = if let Some(there) = elsewhere.get() {
            there
        } else {
            // A short deadline was over before the followers had answered.
            let counts = self.counts_in_time().await.unwrap_or_default();
            counts.in_flight(&name, color)
        };
        let left = InFlight {
            requests: here.requests + there.requests,
            streams: here.streams + there.streams,
            upgrades: here.upgrades + there.upgrades,
        };
        Ok(DrainAnswer { left })
    }
}
