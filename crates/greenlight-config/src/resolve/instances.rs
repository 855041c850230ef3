//! The instances: what each server is called, where it is, and which ports it uses.

use super::Resolver;
use super::ports::{PortUse, PreferredPorts, Purpose};
use super::services::{LocatedPorts, Resolved};
use crate::InstanceConfig;
use crate::diagnostic::Diagnostic;
use crate::file::{File, ServerEntry, ServerPorts, ServerSection};
use crate::host::{Host, HostError, INSTANCE_NAME_HELP, is_instance_name};
use crate::located::Located;
use crate::nginx::verify_port;
use crate::parse::unknown_key;
use greenlight_protocol::{Color, InstanceId, ServiceName};
use greenlight_release::ports::RequestedPorts;
use miette::SourceSpan;
use std::collections::BTreeMap;

/// The default public port of a proxy.
const DEFAULT_PORT: u16 = 80;

/// A server that was read: its address is understood, its name not yet made.
struct Server<'a> {
    at: SourceSpan,
    host: Host,
    port: Located<u16>,
    section: Option<&'a ServerSection>,
}

impl Resolver<'_> {
    /// `verify` is the first instance's port for verifying, if there is an Nginx.
    pub(super) fn instances(
        &mut self,
        file: &File,
        services: &[Resolved],
        verify: Option<&Located<u16>>,
    ) -> Vec<InstanceConfig> {
        let entries = match &file.fleet.servers {
            Some(servers) if !servers.value.is_empty() => servers.value.as_slice(),
            Some(_) | None => {
                self.diagnostics.push(Diagnostic::MissingKey {
                    key: "servers".to_owned(),
                    at: match &file.fleet.servers {
                        Some(servers) => servers.at,
                        None => SourceSpan::new(0.into(), 0),
                    },
                    help: "list at least one instance: `servers: [10.0.0.11, 10.0.0.12]`"
                        .to_owned(),
                });
                &[]
            }
        };
        let public = file
            .only_service
            .proxy
            .as_ref()
            .and_then(|proxy| proxy.value.port.as_ref());
        if let Some(port) = public {
            self.port("port", port);
        }
        let servers: Vec<Server<'_>> = entries
            .iter()
            .filter_map(|entry| self.server(entry, public))
            .collect();
        let names = self.names(&servers);
        let mut uses = Vec::new();
        let instances = servers
            .iter()
            .zip(names)
            .enumerate()
            .map(|(index, (server, name))| {
                let own = self.own_ports(server, services);
                uses.extend(uses_of(index, server, &name.value, services, &own));
                uses.extend(verify.map(|first| verifying(index, &servers, &name.value, first)));
                (server, name, own)
            })
            .collect::<Vec<_>>();
        self.ports_differ(&uses);
        let mut preferred = PreferredPorts::beside(&uses);
        let instances = instances.into_iter();
        instances
            .map(|(server, name, own)| instance(server, name, services, &own, &mut preferred))
            .collect()
    }

    fn server<'e>(
        &mut self,
        entry: &'e Located<ServerEntry>,
        public: Option<&Located<u16>>,
    ) -> Option<Server<'e>> {
        let port = |own: Option<u16>, at| match (own, public) {
            (Some(port), _) => Located { value: port, at },
            (None, Some(public)) => public.clone(),
            (None, None) => entry.with(DEFAULT_PORT),
        };
        match &entry.value {
            ServerEntry::Address(text) => {
                let (host, own) = self.address(&entry.with(text.clone()), Host::parse_with_port)?;
                Some(Server {
                    at: entry.at,
                    host,
                    port: port(own, entry.at),
                    section: None,
                })
            }
            ServerEntry::Map(section) => {
                let host = self.address(&section.host, Host::parse)?;
                let own = section.port.as_ref().map(|own| self.port("port", own));
                let own_at = section.port.as_ref().map_or(entry.at, |own| own.at);
                Some(Server {
                    at: section.host.at,
                    host,
                    port: port(own, own_at),
                    section: Some(section),
                })
            }
        }
    }

    fn address<T>(
        &mut self,
        text: &Located<String>,
        read: impl Fn(&str) -> Result<T, HostError>,
    ) -> Option<T> {
        if !self.plain(text) {
            return None;
        }
        match read(&text.value) {
            Ok(address) => Some(address),
            Err(error) => {
                let help = match Host::parse_with_port(&text.value) {
                    Ok((host, Some(port))) => {
                        format!(
                            "in a map, the port has its own key: `host: {host}`, `port: {port}`"
                        )
                    }
                    Ok(_) | Err(_) => {
                        "write `10.0.0.11`, `web-1.internal` or `10.0.0.11:8080`".to_owned()
                    }
                };
                let shown = self.as_written(text.at, &text.value);
                self.bad_value("host", text.at, shown, error.to_string(), help);
                None
            }
        }
    }

    /// What the instances are called. The same instance twice is refused here.
    fn names(&mut self, servers: &[Server<'_>]) -> Vec<Located<String>> {
        let mut names: Vec<Located<String>> = Vec::new();
        for (index, server) in servers.iter().enumerate() {
            let name = match server.section.and_then(|section| section.name.as_ref()) {
                Some(name) => {
                    self.instance_name(name);
                    name.clone()
                }
                None => Located {
                    value: made_name(server, servers),
                    at: server.at,
                },
            };
            let twin = servers[..index]
                .iter()
                .find(|other| other.host == server.host && other.port.value == server.port.value);
            let what = match twin {
                Some(other) => Some((format!("`{}:{}`", server.host, server.port.value), other.at)),
                None => names
                    .iter()
                    .find(|other| other.value == name.value)
                    .map(|other| (format!("the name `{}`", name.value), other.at)),
            };
            if let Some((what, first)) = what {
                self.diagnostics.push(Diagnostic::DuplicateServer {
                    what,
                    first,
                    at: name.at,
                });
            }
            names.push(name);
        }
        names
    }

    fn instance_name(&mut self, name: &Located<String>) {
        if self.plain(name) && !is_instance_name(&name.value) {
            let shown = self.as_written(name.at, &name.value);
            self.bad_value(
                "name",
                name.at,
                shown,
                "not an instance's name",
                INSTANCE_NAME_HELP.to_owned(),
            );
        }
    }

    /// The ports that the server's own entry gives.
    fn own_ports(
        &mut self,
        server: &Server<'_>,
        services: &[Resolved],
    ) -> BTreeMap<ServiceName, LocatedPorts> {
        let Some(own) = server.section.and_then(|section| section.ports.as_ref()) else {
            return BTreeMap::new();
        };
        match (&own.value, services) {
            (ServerPorts::Pair { ports, stray }, [service]) => {
                if let Some(stray) = stray {
                    self.no_such_color(stray);
                }
                BTreeMap::from([(service.name.value.clone(), self.ports(ports))])
            }
            (ServerPorts::Pair { ports, .. }, _) => {
                if let Some(service) = services.first() {
                    let name = &service.name.value;
                    self.bad_value(
                        "ports",
                        ports.blue.at,
                        "{ blue: ..., green: ... }".to_owned(),
                        "of which service?",
                        format!("name it: `ports: {{ {name}: {{ blue: ..., green: ... }} }}`"),
                    );
                }
                BTreeMap::new()
            }
            (ServerPorts::ByService(by_service), _) => {
                let mut found = BTreeMap::new();
                for (key, ports) in by_service {
                    let name = ServiceName(key.value.clone());
                    if services.iter().any(|service| service.name.value == name) {
                        found.insert(name, self.ports(&ports.value));
                    } else {
                        self.no_such_service(key, services);
                    }
                }
                found
            }
        }
    }

    fn no_such_color(&mut self, key: &Located<String>) {
        self.diagnostics
            .push(unknown_key(&key.value, key.at, &["blue", "green"]));
    }
}

/// A server's host, with its port if several servers have this host.
fn made_name(server: &Server<'_>, servers: &[Server<'_>]) -> String {
    let host = server.host.to_string().replace(':', "-");
    let same = servers.iter().filter(|other| other.host == server.host);
    match same.count() {
        1 => host,
        _ => format!("{host}-{}", server.port.value),
    }
}

fn instance(
    server: &Server<'_>,
    name: Located<String>,
    services: &[Resolved],
    own: &BTreeMap<ServiceName, LocatedPorts>,
    preferred: &mut PreferredPorts,
) -> InstanceConfig {
    let ports = services.iter().map(|service| {
        let name = &service.name.value;
        let named = own.get(name).or(service.ports.as_ref());
        let ports = match named {
            Some(ports) => RequestedPorts::Named(ports.pair),
            None => RequestedPorts::Preferred(preferred.next(&server.host)),
        };
        (name.clone(), ports)
    });
    InstanceConfig {
        name: InstanceId(name.value),
        host: server.host.clone(),
        port: server.port.value,
        ports: ports.collect(),
    }
}

/// Every port of an instance that is given: its public one, and those of slots that the file names.
fn uses_of(
    index: usize,
    server: &Server<'_>,
    name: &str,
    services: &[Resolved],
    own: &BTreeMap<ServiceName, LocatedPorts>,
) -> Vec<PortUse> {
    let used = |purpose, port, said_at, at| PortUse {
        instance: index,
        name: name.to_owned(),
        host: server.host.clone(),
        purpose,
        port,
        said_at,
        at,
    };
    let public = &server.port;
    let mut uses = vec![used(Purpose::Public, public.value, public.at, server.at)];
    for service in services {
        let name = &service.name.value;
        let own = own.get(name);
        let Some(ports) = own.or(service.ports.as_ref()) else {
            continue;
        };
        for (color, said_at) in [(Color::Blue, ports.blue_at), (Color::Green, ports.green_at)] {
            // A number that all instances share is not to blame; the server that repeats it is.
            let at = own.map_or(server.at, |_| said_at);
            let purpose = Purpose::Slot(name.clone(), color);
            uses.push(used(purpose, ports.pair.of(color), said_at, at));
        }
    }
    uses
}

/// The port on which the Nginx of an instance reports what it serves.
fn verifying(index: usize, servers: &[Server<'_>], name: &str, first: &Located<u16>) -> PortUse {
    let server = &servers[index];
    let before = servers[..index].iter();
    let before = before.filter(|other| other.host.shares_machine(&server.host));
    PortUse {
        instance: index,
        name: name.to_owned(),
        host: server.host.clone(),
        purpose: Purpose::Verify,
        port: verify_port(first.value, before.count()),
        said_at: first.at,
        at: server.at,
    }
}
