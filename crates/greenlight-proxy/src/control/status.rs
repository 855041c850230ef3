//! The read-only pages: the status of the proxy, and whether it is healthy.

use super::answer::text;
use super::commands::served;
use super::evidence::together;
use super::server::Admin;
use crate::admin::{ServiceStatus, StatusAnswer};
use crate::gate::Route;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use rustix::process::{Resource, getrlimit};

impl Admin {
    pub(super) async fn status(&self) -> StatusAnswer {
        let others = self.counts_in_time().await;
        let table = self.table.load();
        let services = table.services.iter().map(|service| {
            let route = service.gate.route();
            let state = match route {
                Route::Closed => "closed",
                Route::Open(_) => "open",
                Route::Held(_) => "held",
                Route::Shed(_) => "shed",
            };
            let counts = together(service, &others);
            let control = self.control(&service.name);
            let status = ServiceStatus {
                settings: service.settings.clone(),
                state: state.to_owned(),
                color: served(route),
                epoch: control.epoch,
                opened: control.opened,
                parked: control.parked,
                max_hold_ms: control.deadline.map(|(millis, _)| millis),
                blue: counts.blue.in_flight,
                green: counts.green.in_flight,
                admitted_blue: counts.blue.admitted,
                admitted_green: counts.green.admitted,
            };
            (service.name.clone(), status)
        });
        StatusAnswer {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ns: self.started_at_ns,
            draining: self.followers.len(),
            max_descriptors: getrlimit(Resource::Nofile).current,
            listening: self.listening.iter().map(ToString::to_string).collect(),
            epoch: self.epoch(),
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
