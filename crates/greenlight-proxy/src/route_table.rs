//! Which service a request is for: by host and path, from one atomic snapshot.

use crate::gate::{Color, Gate, Route};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Where an application listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Upstream {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| format!("`{text}` is neither `address:port` nor `unix:/path`"))
    }
}

/// How a service is routed, as the admin socket takes it and the state file keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSettings {
    /// Hosts that are routed here; `*.example.com` takes its subdomains; all if empty.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Prefix of the paths that are routed here, by whole segments.
    #[serde(default = "slash")]
    pub path_prefix: String,
    /// Where the blue release listens: `address:port` or `unix:/path`.
    pub blue: String,
    /// Where the green release listens.
    pub green: String,
    /// How long a request may wait in all, at the gate and for a dead application, in
    /// milliseconds.
    #[serde(default = "half_a_minute")]
    pub request_timeout_ms: u64,
}

fn slash() -> String {
    "/".to_owned()
}

fn half_a_minute() -> u64 {
    30_000
}

/// One service: its settings as parsed, and its gate, which outlives changes of the settings.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) settings: ServiceSettings,
    pub(crate) gate: Arc<Gate>,
    blue: Upstream,
    green: Upstream,
    /// Requests that wait for an application that is away, on all threads.
    waiting: AtomicUsize,
}

/// The permit of a request that waits for a service's application. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct WaitingPermit(Arc<Service>);

impl Drop for WaitingPermit {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl Service {
    pub(crate) fn new(
        name: String,
        settings: ServiceSettings,
        gate: Arc<Gate>,
    ) -> Result<Self, String> {
        if !settings.path_prefix.starts_with('/') {
            let prefix = &settings.path_prefix;
            return Err(format!(
                "`path_prefix` is `{prefix}`; it must begin with `/`"
            ));
        }
        Ok(Self {
            name,
            blue: settings.blue.parse()?,
            green: settings.green.parse()?,
            settings,
            gate,
            waiting: AtomicUsize::new(0),
        })
    }

    pub(crate) fn upstream(&self, color: Color) -> &Upstream {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.request_timeout_ms)
    }

    /// A permit to wait for the application; `None` if `most` are taken.
    pub(crate) fn waiting_permit(self: &Arc<Self>, most: usize) -> Option<WaitingPermit> {
        let permit = WaitingPermit(self.clone());
        (self.waiting.fetch_add(1, SeqCst) < most).then_some(permit)
    }

    /// How well a request fits: hosts beat no hosts, exact beats wildcard, longer prefixes beat
    /// shorter ones. `None` if it does not fit.
    fn fits(&self, host: &str, path: &str) -> Option<(u8, usize)> {
        let host_rank = self.host_rank(host)?;
        let prefix = self.settings.path_prefix.trim_end_matches('/');
        let rest = path.strip_prefix(prefix)?;
        let whole_segment = prefix.is_empty() || rest.is_empty() || rest.starts_with(['/', '?']);
        whole_segment.then_some((host_rank, prefix.len()))
    }

    fn host_rank(&self, host: &str) -> Option<u8> {
        if self.settings.hosts.is_empty() {
            return Some(0);
        }
        let mut best = None;
        for pattern in &self.settings.hosts {
            let rank = match pattern.strip_prefix("*.") {
                Some(domain) => host
                    .len()
                    .checked_sub(domain.len() + 1)
                    .filter(|dot| {
                        host.as_bytes()[*dot] == b'.'
                            && host[dot + 1..].eq_ignore_ascii_case(domain)
                    })
                    .map(|_| 1),
                None => host.eq_ignore_ascii_case(pattern).then_some(2),
            };
            best = best.max(rank);
        }
        best
    }
}

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

    /// The same table without one service.
    pub(crate) fn without(&self, name: &str) -> Self {
        Self {
            services: self
                .services
                .iter()
                .filter(|known| known.name != name)
                .cloned()
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
