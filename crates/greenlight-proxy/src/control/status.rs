//! The read-only pages: the status of the proxy, and whether it is healthy.

use super::answer::text;
use super::server::Admin;
use super::shell::Gates;
use crate::gate::Route;
use bytes::Bytes;
use greenlight_admin::{ServiceStatus, StatusAnswer};
use http_body_util::Full;
use hyper::{Response, StatusCode};
use rustix::process::{Resource, getrlimit};
use std::rc::Rc;

impl Admin {
    pub(super) async fn status(self: &Rc<Self>) -> StatusAnswer {
        let others = self.counts_in_time().await;
        let control = self.control.borrow();
        let gates = Gates(&self.table);
        let services = control.services().iter().map(|(name, service)| {
            let route = service.mode.route();
            let state = match route {
                Route::Closed => "closed",
                Route::Open(_) => "open",
                Route::Held(_) => "held",
                Route::Shed(_) => "shed",
            };
            let counts = control.counts_of_all(name, &gates, others.as_ref());
            let deadline = service.mode.deadline();
            let status = ServiceStatus {
                settings: service.settings.clone(),
                state: state.to_owned(),
                color: route.served(),
                epoch: service.epoch,
                opened: service.opened,
                parked: service.mode.is_parked(),
                max_hold_ms: deadline.map(|deadline| deadline.max_hold_ms),
                blue: counts.blue.in_flight,
                green: counts.green.in_flight,
                admitted_blue: counts.blue.admitted,
                admitted_green: counts.green.admitted,
            };
            (name.clone(), status)
        });
        StatusAnswer {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ns: self.started_at_ns,
            draining: self.followers.len(),
            max_descriptors: getrlimit(Resource::Nofile).current,
            listening: self.listening.iter().map(ToString::to_string).collect(),
            epoch: control.epoch(),
            services: services.collect(),
        }
    }

    /// For load balancers: whether users should come here. Asks for no host.
    ///
    /// A held service is healthy: its requests wait for milliseconds, and an instance that fell
    /// out of rotation at every cut-over would refuse users. A service that was defined and never
    /// opened does not count: the first deployment of a second service must not take the first
    /// one out of rotation. One service that is shed makes the instance unhealthy, which is what
    /// shedding is for.
    pub(super) fn health(&self) -> Response<Full<Bytes>> {
        let table = self.table.load();
        let routes = || table.services.iter().map(|service| service.gate.route());
        let sheds = routes().any(|route| matches!(route, Route::Shed(_)));
        let serves = routes().any(|r| matches!(r, Route::Open(_) | Route::Held(Some(_))));
        if sheds {
            text(StatusCode::SERVICE_UNAVAILABLE, "shedding\n")
        } else if serves {
            text(StatusCode::OK, "ok\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "nothing is routed\n")
        }
    }
}
