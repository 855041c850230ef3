//! What each machine of a fleet should have, as `greenlight.yml` says.

use super::INSTANCE_STATE;
use super::facts::Facts;
use super::units::{self, AgentUnit, Needs, Unit};
use greenlight_config::{Config, Host, InstanceConfig, ResolveError};
use greenlight_protocol::InstanceId;
use greenlight_release::front::FrontKind;
use greenlight_release::spec::Artifact;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// From this version on systemd keeps several sockets of one address apart when it is reloaded.
const SPREADS_SOCKETS: u32 = 252;

/// One machine of a fleet, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetMachine {
    /// Its host in the file.
    pub host: Host,
    pub address: IpAddr,
    /// What runs there.
    pub parts: Vec<Part>,
}

/// What a machine is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Server,
    Instance(InstanceId),
}

/// What a machine should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredState {
    /// Its units, in the order in which they are started.
    pub units: Vec<Unit>,
    /// The instance that it is, if it is one.
    pub instance: Option<InstanceId>,
    /// Whether its agent runs as root.
    pub agent_is_root: bool,
    /// Whether its agent speaks to Docker.
    pub docker: bool,
    /// Whether the coordinator is there.
    pub server: bool,
}

/// Why the machines of a fleet are unknown.
#[derive(Debug, thiserror::Error)]
pub enum MachinesError {
    /// One has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Two instances are on one.
    #[error("`{0}` and `{1}` are one machine, and setup installs one instance on each")]
    Shared(InstanceId, InstanceId),
}

/// The machines of a fleet, that of the coordinator first.
pub fn machines(config: &Config) -> Result<Vec<TargetMachine>, MachinesError> {
    let mut machines = vec![TargetMachine {
        host: config.setup.server.clone(),
        address: config.setup.server.resolve()?,
        parts: vec![Part::Server],
    }];
    for instance in &config.instances {
        let part = Part::Instance(instance.name.clone());
        let known = machines
            .iter_mut()
            .find(|machine| machine.host.shares_machine(&instance.host));
        let Some(known) = known else {
            machines.push(TargetMachine {
                host: instance.host.clone(),
                address: instance.host.resolve()?,
                parts: vec![part],
            });
            continue;
        };
        if let Some(Part::Instance(other)) = known.parts.iter().find(|part| **part != Part::Server)
        {
            let other = other.clone();
            return Err(MachinesError::Shared(other, instance.name.clone()));
        }
        known.parts.push(part);
    }
    Ok(machines)
}

impl DesiredState {
    /// What a machine should have; what it has already decides a few details. Or which value of
    /// the file may not stand in a unit.
    pub fn of(
        config: &Config,
        machines: &[TargetMachine],
        machine: &TargetMachine,
        facts: &Facts,
    ) -> Result<Self, units::NotForUnit> {
        for value in foreign(config) {
            units::refuse(&value)?;
        }
        let server = machine.parts.contains(&Part::Server);
        let instance = machine.parts.iter().find_map(|part| match part {
            Part::Server => None,
            Part::Instance(name) => Some(name.clone()),
        });
        let mut desired = Self {
            units: Vec::new(),
            docker: instance.is_some() && images(config) > 0,
            agent_is_root: config.front == FrontKind::NginxReload,
            server,
            instance: instance.clone(),
        };
        let v6 = machine.address.is_ipv6();
        if server {
            let names: Vec<_> = config.instances.iter().map(|i| i.name.0.clone()).collect();
            desired
                .units
                .push(units::server(config.setup.port, v6, &names));
        }
        let instance = instance.as_ref().and_then(|name| config.instance(name));
        if let Some(instance) = instance {
            let front = desired.front(config, instance, v6, facts);
            desired
                .units
                .push(agent(config, machines, instance, v6, front));
        }
        Ok(desired)
    }

    /// Adds the units of the front; its arguments for the agent.
    fn front(
        &mut self,
        config: &Config,
        instance: &InstanceConfig,
        v6: bool,
        facts: &Facts,
    ) -> String {
        let gate = format!("--proxy-admin {INSTANCE_STATE}/proxy.sock");
        let (listen, status) = match config.front {
            FrontKind::Builtin => units::public(v6, instance.port),
            FrontKind::Nginx => units::behind_nginx(),
            FrontKind::NginxReload => {
                let nginx = config.nginx_of(instance).expect("the file was checked");
                return format!(
                    "--nginx-include {} --nginx-conf {} --nginx-pid {} --nginx-binary {}",
                    nginx.include,
                    nginx.conf.display(),
                    nginx.pid.display(),
                    nginx.binary.display()
                );
            }
        };
        let spread = facts.systemd() >= Some(SPREADS_SOCKETS);
        let times = if spread { facts.cores() } else { 1 };
        let group = config.nginx.group.as_deref();
        self.units
            .push(units::socket(&listen, status, times, group));
        self.units.push(units::proxy(&listen, status));
        gate
    }
}

fn agent(
    config: &Config,
    machines: &[TargetMachine],
    instance: &InstanceConfig,
    v6: bool,
    front: String,
) -> Unit {
    let addresses: BTreeMap<&InstanceId, IpAddr> = machines
        .iter()
        .flat_map(|machine| {
            let names = machine.parts.iter().filter_map(|part| match part {
                Part::Server => None,
                Part::Instance(name) => Some(name),
            });
            names.map(|name| (name, machine.address))
        })
        .collect();
    let peers: Vec<_> = addresses
        .iter()
        .filter(|(name, _)| ***name != instance.name)
        .map(|(name, address)| (name.0.clone(), SocketAddr::new(*address, super::PEER_PORT)))
        .collect();
    let images = images(config);
    let nginx = config.front == FrontKind::NginxReload;
    let nginx_dir = nginx.then(|| {
        let nginx = config.nginx_of(instance).expect("the file was checked");
        let include = nginx.include.to_string();
        let dir = Path::new(&include).parent().unwrap_or(Path::new("/"));
        dir.display().to_string()
    });
    units::agent(&AgentUnit {
        name: &instance.name.0,
        server: SocketAddr::new(machines[0].address, config.setup.port),
        v6,
        peers: &peers,
        front,
        needs: Needs {
            processes: images < config.services.len(),
            docker: images > 0,
            nginx,
        },
        nginx_dir,
    })
}

/// Every text of the file that gets into a unit.
fn foreign(config: &Config) -> Vec<String> {
    let names = config.instances.iter().map(|its| its.name.0.clone());
    let group = config.nginx.group.clone();
    let nginx = config.instances.iter();
    let nginx = nginx.filter_map(|instance| config.nginx_of(instance).ok());
    let paths = nginx.flat_map(|nginx| {
        let files = [&nginx.conf, &nginx.pid, &nginx.binary].map(|path| path.display().to_string());
        files.into_iter().chain([nginx.include.to_string()])
    });
    names.chain(group).chain(paths).collect()
}

/// How many services are images.
fn images(config: &Config) -> usize {
    let artifacts = config.services.values().map(|service| &service.artifact);
    artifacts
        .filter(|artifact| matches!(artifact, Artifact::Image(_)))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_would_end_a_value_gets_into_a_unit() {
        let text = "service: shop\ncommand: [shop]\nservers: [10.0.0.1]\n";
        let mut config = Config::parse("greenlight.yml", text, []).expect("a good file");
        let machines = machines(&config).expect("addresses");
        let facts = Facts::read("");
        for (group, good) in [
            ("www-data", true),
            ("a\nExecStartPre=/bin/sh", false),
            ("a b", false),
            ("%i", false),
            ("$HOME", false),
        ] {
            config.nginx.group = Some(group.to_owned());
            let desired = DesiredState::of(&config, &machines, &machines[0], &facts);
            assert_eq!(desired.is_ok(), good, "{group:?}");
        }
    }
}
