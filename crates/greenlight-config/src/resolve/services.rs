//! The services: one at the top of the file, or several under `services`.

use super::Resolver;
use crate::diagnostic::Diagnostic;
use crate::file::{
    EnvSection, File, HealthSection, PortsSection, ProxySection, ServiceSection, StatusText,
};
use crate::host::{is_host_name, is_label};
use crate::interpolation::Leftover;
use crate::located::Located;
use crate::parse::unknown_key;
use crate::service::{EnvConfig, ServiceConfig};
use greenlight_protocol::ServiceName;
use greenlight_release::health::HealthCheck;
use greenlight_release::ports::PortPair;
use miette::SourceSpan;
use std::time::Duration;

/// A service that was understood.
pub(super) struct Resolved {
    pub(super) name: Located<ServiceName>,
    pub(super) config: ServiceConfig,
    /// Those that the file names.
    pub(super) ports: Option<LocatedPorts>,
}

/// A pair of ports and where each comes from.
#[derive(Clone, Copy)]
pub(super) struct LocatedPorts {
    pub(super) pair: PortPair,
    pub(super) blue_at: SourceSpan,
    pub(super) green_at: SourceSpan,
}

impl Resolver<'_> {
    /// All services. Those with diagnostics are there too, so that others can be checked against
    /// them.
    pub(super) fn services(&mut self, file: &File) -> Vec<Resolved> {
        let retain = file.fleet.retain_containers.as_ref();
        let retain = self.count(
            "retain_containers",
            retain,
            5,
            "the live release must be kept",
        );
        let resolved: Vec<Resolved> = match (&file.fleet.service, &file.fleet.services) {
            (Some(one), Some(several)) => {
                self.diagnostics.push(Diagnostic::Conflict {
                    key: "service".to_owned(),
                    at: one.at,
                    other: "services".to_owned(),
                    other_at: several.at,
                    help: "keep `service` for one, `services` for several".to_owned(),
                });
                Vec::new()
            }
            (None, None) => {
                self.diagnostics.push(Diagnostic::MissingKey {
                    key: "service".to_owned(),
                    at: SourceSpan::new(0.into(), 0),
                    help: "name what is deployed: `service: shop`".to_owned(),
                });
                Vec::new()
            }
            (Some(name), None) => vec![self.service(name, &file.only_service, retain)],
            (None, Some(several)) => {
                self.nothing_shared(file);
                if several.value.is_empty() {
                    self.diagnostics.push(Diagnostic::MissingKey {
                        key: "services".to_owned(),
                        at: several.at,
                        help: "name at least one service, or use `service`".to_owned(),
                    });
                }
                several
                    .value
                    .iter()
                    .map(|(name, section)| {
                        self.only_at_the_top(&section.value);
                        self.service(name, &section.value, retain)
                    })
                    .collect()
            }
        };
        self.routes_differ(&resolved);
        resolved
    }

    /// With `services`, what one service has must not stand at the top.
    fn nothing_shared(&mut self, file: &File) {
        let no_proxy = ProxySection::default();
        let proxy = file
            .only_service
            .proxy
            .as_ref()
            .map_or(&no_proxy, |proxy| &proxy.value);
        let misplaced = [
            (
                "command",
                file.only_service.command.as_ref().map(|key| key.at),
            ),
            ("image", file.only_service.image.as_ref().map(|key| key.at)),
            ("env", file.only_service.env.as_ref().map(|key| key.at)),
            ("proxy.host", proxy.host.as_ref().map(|key| key.at)),
            ("proxy.hosts", proxy.hosts.as_ref().map(|key| key.at)),
            (
                "proxy.path_prefix",
                proxy.path_prefix.as_ref().map(|key| key.at),
            ),
            ("proxy.app_port", proxy.app_port.as_ref().map(|key| key.at)),
            ("proxy.ports", proxy.ports.as_ref().map(|key| key.at)),
            (
                "proxy.healthcheck",
                proxy.healthcheck.as_ref().map(|key| key.at),
            ),
            (
                "proxy.request_timeout",
                proxy.request_timeout.as_ref().map(|key| key.at),
            ),
        ];
        let of_containers = file.only_service.container_keys();
        for (key, at) in misplaced.into_iter().chain(of_containers) {
            if let Some(at) = at {
                self.diagnostics.push(Diagnostic::Misplaced {
                    key: key.to_owned(),
                    at,
                    help: "with `services`, each service has its own; move it into them".to_owned(),
                });
            }
        }
    }

    /// What concerns an instance as a whole must not stand in one of several services.
    fn only_at_the_top(&mut self, section: &ServiceSection) {
        let Some(proxy) = &section.proxy else {
            return;
        };
        let misplaced = [
            ("proxy.front", proxy.value.front.as_ref().map(|key| key.at)),
            ("proxy.nginx", proxy.value.nginx.as_ref().map(|key| key.at)),
            ("proxy.port", proxy.value.port.as_ref().map(|key| key.at)),
        ];
        for (key, at) in misplaced {
            if let Some(at) = at {
                self.diagnostics.push(Diagnostic::Misplaced {
                    key: key.to_owned(),
                    at,
                    help: "all services of an instance share it; move it to the `proxy` at the \
                           top of the file"
                        .to_owned(),
                });
            }
        }
    }

    fn service(
        &mut self,
        name: &Located<String>,
        section: &ServiceSection,
        retain: u32,
    ) -> Resolved {
        self.service_name(name);
        let artifact = self.artifact(name, section, retain);
        let no_proxy = ProxySection::default();
        let proxy = match &section.proxy {
            Some(proxy) => &proxy.value,
            None => &no_proxy,
        };
        let config = ServiceConfig {
            artifact,
            env: self.env(section.env.as_ref()),
            hosts: self.hosts(proxy),
            path_prefix: self.path("path_prefix", proxy.path_prefix.as_ref(), "/"),
            health: self.health(proxy.healthcheck.as_ref().map(|health| &health.value)),
            request_timeout: self.duration(
                "request_timeout",
                proxy.request_timeout.as_ref(),
                Duration::from_secs(30),
            ),
        };
        let ports = proxy.ports.as_ref().map(|ports| self.ports(&ports.value));
        Resolved {
            name: name.with(ServiceName(name.value.clone())),
            config,
            ports,
        }
    }

    fn service_name(&mut self, name: &Located<String>) {
        if self.plain(name) && (!is_label(&name.value) || name.value != name.value.to_lowercase()) {
            let shown = self.as_written(name.at, &name.value);
            self.bad_value(
                "service",
                name.at,
                shown,
                "not a service name",
                "use lowercase letters, digits and inner hyphens, at most 63".to_owned(),
            );
        }
    }

    fn env(&mut self, section: Option<&Located<EnvSection>>) -> EnvConfig {
        let Some(section) = section else {
            return EnvConfig::default();
        };
        let EnvSection {
            clear,
            secret,
            stray,
        } = &section.value;
        if let Some(stray) = stray {
            self.diagnostics.push(Diagnostic::Misplaced {
                key: stray.value.clone(),
                at: stray.at,
                help: "with `clear` or `secret`, variables belong into `clear`".to_owned(),
            });
        }
        for name in clear.keys().chain(secret.keys()) {
            self.variable_name(name);
        }
        for value in clear.values() {
            self.replaced(value, Leftover::Later);
        }
        for name in secret.keys() {
            if let Some((twin, _)) = clear.get_key_value(name) {
                self.diagnostics.push(Diagnostic::Conflict {
                    key: format!("secret: {}", name.value),
                    at: name.at,
                    other: format!("clear: {}", name.value),
                    other_at: twin.at,
                    help: "keep one of them".to_owned(),
                });
            }
        }
        EnvConfig {
            clear: clear
                .iter()
                .map(|(name, value)| (name.value.clone(), value.value.clone()))
                .collect(),
            secret: secret
                .iter()
                .filter_map(|(name, from)| {
                    let source = self.secret_source(&name.value, &from.value)?;
                    Some((name.value.clone(), source))
                })
                .collect(),
        }
    }

    fn variable_name(&mut self, name: &Located<String>) {
        let text = &name.value;
        let (reason, help) = if text.is_empty() || text.contains(['=', '\0', ' ', '$']) {
            (
                "not a variable's name",
                "use letters, digits and underscores",
            )
        } else if text.starts_with("GREENLIGHT_") {
            (
                "`GREENLIGHT_...` is kept for greenlight's own variables",
                "choose another name",
            )
        } else if matches!(text.as_str(), "PORT" | "VERSION") {
            (
                "set by greenlight for each release",
                "remove it; the application finds it in its environment",
            )
        } else {
            return;
        };
        let shown = self.as_written(name.at, text);
        self.bad_value("env", name.at, shown, reason, help.to_owned());
    }

    fn hosts(&mut self, proxy: &ProxySection) -> Vec<String> {
        let hosts: Vec<&Located<String>> = match (&proxy.host, &proxy.hosts) {
            (Some(one), Some(several)) => {
                self.diagnostics.push(Diagnostic::Conflict {
                    key: "host".to_owned(),
                    at: one.at,
                    other: "hosts".to_owned(),
                    other_at: several.at,
                    help: "keep `host` for one, `hosts` for several".to_owned(),
                });
                Vec::new()
            }
            (Some(one), None) => vec![one],
            (None, Some(several)) => {
                if several.value.is_empty() {
                    let reason = "no request would be routed here";
                    let help = "name at least one, or leave it out to route every host";
                    self.bad_value(
                        "hosts",
                        several.at,
                        "[]".to_owned(),
                        reason,
                        help.to_owned(),
                    );
                }
                several.value.iter().collect()
            }
            (None, None) => Vec::new(),
        };
        for host in &hosts {
            let name = host.value.strip_prefix("*.").unwrap_or(&host.value);
            if self.plain(host) && !is_host_name(name) {
                let shown = self.as_written(host.at, &host.value);
                let help = "write the name alone, without scheme, port or path: \
                            `shop.example.com` or `*.example.com`";
                self.bad_value("host", host.at, shown, "not a host name", help.to_owned());
            }
        }
        hosts
            .iter()
            .map(|host| host.value.to_ascii_lowercase())
            .collect()
    }

    fn path(&mut self, key: &str, path: Option<&Located<String>>, default: &str) -> String {
        let Some(path) = path else {
            return default.to_owned();
        };
        let strange = |c: char| c.is_whitespace() || c.is_control() || c == '#';
        if self.plain(path) && (!path.value.starts_with('/') || path.value.contains(strange)) {
            let shown = self.as_written(path.at, &path.value);
            let help = format!("begin it with a slash, without blanks: `{default}`");
            self.bad_value(key, path.at, shown, "not a path", help);
        }
        path.value.clone()
    }

    fn health(&mut self, section: Option<&HealthSection>) -> HealthCheck {
        let fallback = HealthCheck::default();
        let Some(section) = section else {
            return fallback;
        };
        if let Some(host) = &section.host {
            self.plain(host);
        }
        let count = |resolver: &mut Self, key, count, default| {
            resolver.count(key, count, default, "an empty path cannot be requested")
        };
        HealthCheck {
            path: self.path("path", section.path.as_ref(), &fallback.path),
            host: section.host.as_ref().map(|host| host.value.clone()),
            interval: self.duration("interval", section.interval.as_ref(), fallback.interval),
            timeout: self.duration("timeout", section.timeout.as_ref(), fallback.timeout),
            successes: count(
                self,
                "successes",
                section.successes.as_ref(),
                fallback.successes,
            ),
            failures: count(
                self,
                "failures",
                section.failures.as_ref(),
                fallback.failures,
            ),
            statuses: match &section.statuses {
                None => fallback.statuses,
                Some(statuses) => self.statuses(statuses),
            },
        }
    }

    /// A number that must not be 0; `nothing` is what 0 would mean.
    fn count(
        &mut self,
        key: &str,
        count: Option<&Located<u32>>,
        default: u32,
        nothing: &str,
    ) -> u32 {
        let Some(count) = count else {
            return default;
        };
        if count.value == 0 {
            let help = "write 1 or more".to_owned();
            self.bad_value(key, count.at, "0".to_owned(), nothing, help);
        }
        count.value
    }

    fn statuses(&mut self, statuses: &Located<Vec<Located<StatusText>>>) -> Vec<(u16, u16)> {
        let help = || "write statuses from 100 to 599: `[200, 204]` or `[\"200-399\"]`".to_owned();
        if statuses.value.is_empty() {
            let reason = "no status would count as good";
            self.bad_value("statuses", statuses.at, "[]".to_owned(), reason, help());
        }
        let mut ranges = Vec::new();
        for status in &statuses.value {
            if let Some(range) = status_range(&status.value.0) {
                ranges.push(range);
            } else {
                let shown = self.as_written(status.at, &status.value.0);
                self.bad_value("statuses", status.at, shown, "not a status", help());
            }
        }
        ranges
    }

    /// A pair of ports as written.
    pub(super) fn ports(&mut self, section: &PortsSection) -> LocatedPorts {
        LocatedPorts {
            pair: PortPair {
                blue: self.port("blue", &section.blue),
                green: self.port("green", &section.green),
            },
            blue_at: section.blue.at,
            green_at: section.green.at,
        }
    }

    /// Two services that share a host and a path could not be told apart.
    fn routes_differ(&mut self, services: &[Resolved]) {
        let path = |service: &Resolved| {
            let path = &service.config.path_prefix;
            path.trim_end_matches('/').to_owned()
        };
        for (index, second) in services.iter().enumerate() {
            for first in &services[..index] {
                let (one, other) = (&first.config.hosts, &second.config.hosts);
                let shared = match (one.is_empty(), other.is_empty()) {
                    (true, true) => true,
                    (false, false) => one.iter().any(|host| other.contains(host)),
                    (true, false) | (false, true) => false,
                };
                if shared && path(first) == path(second) {
                    self.diagnostics.push(Diagnostic::SameRoute {
                        first: first.name.value.to_string(),
                        second: second.name.value.to_string(),
                        first_at: first.name.at,
                        at: second.name.at,
                    });
                }
            }
        }
    }

    /// A key that is not the name of a service, where one was expected.
    pub(super) fn no_such_service(&mut self, key: &Located<String>, services: &[Resolved]) {
        let names: Vec<&str> = services
            .iter()
            .map(|service| service.name.value.0.as_str())
            .collect();
        self.diagnostics
            .push(unknown_key(&key.value, key.at, &names));
    }
}

fn status_range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let range = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    (100 <= range.0 && range.0 <= range.1 && range.1 <= 599).then_some(range)
}
