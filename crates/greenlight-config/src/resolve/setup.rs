//! The section `setup`.

use super::Resolver;
use crate::file::{File, SetupSection, SshSection};
use crate::located::Located;
use crate::setup::SERVER_PORT;
use crate::{Host, InstanceConfig, SetupConfig, SshConfig};
use std::net::{IpAddr, Ipv4Addr};

impl Resolver<'_> {
    pub(super) fn setup(&mut self, file: &File, instances: &[InstanceConfig]) -> SetupConfig {
        let none = SetupSection::default();
        let section = file
            .fleet
            .setup
            .as_ref()
            .map_or(&none, |setup| &setup.value);
        // There is a first one, or an error was reported.
        let first = instances.first().map(|instance| instance.host.clone());
        let first = first.unwrap_or(Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let (server, port) = match &section.server {
            Some(server) => self.coordinator(server).unwrap_or((first, None)),
            None => (first, None),
        };
        let ssh = section.ssh.as_ref();
        SetupConfig {
            server,
            port: port.unwrap_or(SERVER_PORT),
            ssh: ssh.map_or_else(SshConfig::default, |ssh| self.ssh(&ssh.value)),
        }
    }

    fn coordinator(&mut self, server: &Located<String>) -> Option<(Host, Option<u16>)> {
        if !self.plain(server) {
            return None;
        }
        match Host::parse_with_port(&server.value) {
            Ok(found) => Some(found),
            Err(error) => {
                let shown = self.as_written(server.at, &server.value);
                let help = "write the address of the coordinator's machine: `10.0.0.10`";
                self.bad_value(
                    "server",
                    server.at,
                    shown,
                    error.to_string(),
                    help.to_owned(),
                );
                None
            }
        }
    }

    fn ssh(&mut self, section: &SshSection) -> SshConfig {
        let mut word = |key: &str, value: &Option<Located<String>>| {
            let value = value.as_ref()?;
            self.word(key, value).then(|| value.value.clone())
        };
        let (user, identity) = (
            word("user", &section.user),
            word("identity", &section.identity),
        );
        let port = section.port.as_ref().map(|port| self.port("port", port));
        let options = section.options.iter().flat_map(|options| &options.value);
        SshConfig {
            user,
            port,
            identity,
            options: options
                .filter(|option| self.word("options", option))
                .map(|option| option.value.clone())
                .collect(),
        }
    }

    /// What becomes one argument of `ssh`, and must not be taken for another one.
    fn word(&mut self, key: &str, value: &Located<String>) -> bool {
        if !self.plain(value) {
            return false;
        }
        let good = !value.value.is_empty() && !value.value.starts_with('-');
        if !good {
            let shown = self.as_written(value.at, &value.value);
            let help = "options are written without a hyphen: `ProxyJump=bastion`".to_owned();
            self.bad_value(key, value.at, shown, "not a value for `ssh`", help);
        }
        good
    }
}
