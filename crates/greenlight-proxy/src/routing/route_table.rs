//! Which service a request is for: by host and path, from one atomic snapshot.

use super::service::Service;
use crate::gate::Route;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// The table that all threads route by. Replaced as a whole.
pub(crate) type SharedTable = ArcSwap<RouteTable>;

/// All services, as one snapshot.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    pub(crate) services: Vec<Arc<Service>>,
}

impl RouteTable {
    /// The service for a request. `host` may carry a port. One whose gate is closed, because it is
    /// yet to come or was removed, takes nothing from those that would have the request without it.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Arc<Service>> {
        let host = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) | None => host,
        };
        // A name that ends in a dot is the same name, fully qualified.
        let host = host.strip_suffix('.').unwrap_or(host);
        self.services
            .iter()
            .filter_map(|service| Some((service.fits(host, path)?, service)))
            .max_by_key(|(rank, service)| (service.gate.route() != Route::Closed, *rank))
            .map(|(_, service)| service)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The same table with one service added or replaced.
    pub(crate) fn with(&self, service: Service) -> Self {
        let mut services: Vec<_> = self
            .services
            .iter()
            .filter(|known| known.name != service.name)
            .cloned()
            .collect();
        services.push(Arc::new(service));
        Self { services }
    }

    /// The same table with some of its services.
    pub(crate) fn only(&self, keeps: impl Fn(&Service) -> bool) -> Self {
        let services = self.services.iter();
        Self {
            services: services.filter(|known| keeps(known)).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Color, Gate};
    use greenlight_admin::ServiceSettings;

    #[test]
    fn a_request_goes_to_the_service_whose_host_and_longest_prefix_fit() {
        let table = table(&[
            ("any", &[], "/"),
            ("shop", &["shop.example.com"], "/"),
            ("api", &["shop.example.com"], "/api"),
            ("tenants", &["*.example.com"], "/"),
        ]);
        let found = |host, path| table.find(host, path).map(|s| s.name.as_str());
        assert_eq!(found("shop.example.com", "/"), Some("shop"));
        assert_eq!(found("SHOP.example.com:8443", "/cart"), Some("shop"));
        assert_eq!(found("shop.example.com", "/api/items"), Some("api"));
        assert_eq!(found("shop.example.com", "/apiary"), Some("shop"));
        assert_eq!(found("a.example.com", "/"), Some("tenants"));
        assert_eq!(found("example.com", "/"), Some("any"));
        assert_eq!(found("", "/"), Some("any"));
    }

    #[test]
    fn a_service_that_is_not_open_yet_takes_nothing_from_another() {
        let table = table(&[("shop", &[], "/"), ("api", &[], "/api")]);
        let found = |path| table.find("", path).map(|s| s.name.as_str());
        assert_eq!(found("/api"), Some("api"), "nothing is open");
        let open = |name| table.named(name).expect("it is there").gate.as_ref();
        open("shop").set(Route::Open(Color::Blue));
        assert_eq!(found("/api"), Some("shop"));
        open("api").set(Route::Open(Color::Blue));
        assert_eq!(found("/api"), Some("api"));
        open("api").set(Route::Held(Some(Color::Blue)));
        assert_eq!(found("/api"), Some("api"), "it is held, not gone");
        open("api").set(Route::Closed);
        assert_eq!(found("/api"), Some("shop"));
    }

    #[test]
    fn a_request_that_fits_no_service_finds_none() {
        let table = table(&[("shop", &["shop.example.com"], "/")]);
        assert!(table.find("other.example.com", "/").is_none());
    }

    fn table(services: &[(&str, &[&str], &str)]) -> RouteTable {
        services
            .iter()
            .fold(RouteTable::default(), |table, (name, hosts, prefix)| {
                let settings = ServiceSettings {
                    hosts: hosts.iter().map(ToString::to_string).collect(),
                    path_prefix: (*prefix).to_owned(),
                    blue: "127.0.0.1:1".to_owned(),
                    green: "127.0.0.1:2".to_owned(),
                    request_timeout_ms: 1,
                };
                let gate = Arc::new(Gate::default());
                let service = Service::new((*name).to_owned(), settings, gate);
                table.with(service.expect("the settings are valid"))
            })
    }
}
