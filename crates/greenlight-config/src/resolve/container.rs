//! What runs: a command, or an image with the settings of its container.

use super::Resolver;
use crate::diagnostic::Diagnostic;
use crate::file::{RegistrySection, SecretFrom, ServiceSection};
use crate::interpolation::Leftover;
use crate::located::Located;
use crate::secret_source::SecretSource;
use crate::service::RegistryConfig;
use greenlight_release::spec::image::repository;
use greenlight_release::spec::{Artifact, Cpus, ImageSpec, LogOptions, Memory, Restart};
use miette::SourceSpan;
use std::collections::BTreeMap;

/// The default port inside a container, which is Kamal's.
const APP_PORT: u16 = 80;
/// Docker refuses to limit memory to less.
const LEAST_MEMORY: u64 = 6 * 1024 * 1024;

impl Resolver<'_> {
    /// What a service runs. If that is faulty, a harmless value replaces it.
    pub(super) fn artifact(
        &mut self,
        name: &Located<String>,
        section: &ServiceSection,
        retain: u32,
    ) -> Artifact {
        match (&section.command, &section.image) {
            (Some(command), Some(image)) => {
                self.diagnostics.push(Diagnostic::Conflict {
                    key: "command".to_owned(),
                    at: command.at,
                    other: "image".to_owned(),
                    other_at: image.at,
                    help: "keep `command` to run a program of the instance, or `image` to run a \
                           container; a container's own command is its `cmd`"
                        .to_owned(),
                });
                Artifact::command(Vec::new())
            }
            (None, None) => {
                self.diagnostics.push(Diagnostic::MissingKey {
                    key: "command".to_owned(),
                    at: name.at,
                    help: "say what to run: `command: [\"./shop\", \"--port\", \"${PORT}\"]`, or \
                           `image: ghcr.io/acme/shop`"
                        .to_owned(),
                });
                Artifact::command(Vec::new())
            }
            (Some(command), None) => {
                self.only_for_images(section);
                Artifact::command(self.words("command", command))
            }
            (None, Some(image)) => Artifact::Image(Box::new(self.image(image, section, retain))),
        }
    }

    fn image(
        &mut self,
        image: &Located<String>,
        section: &ServiceSection,
        retain: u32,
    ) -> ImageSpec {
        self.image_name(image);
        let app_port = section
            .proxy
            .as_ref()
            .and_then(|proxy| proxy.value.app_port.as_ref());
        let words = |resolver: &mut Self, key, words: &Option<Located<Vec<Located<String>>>>| {
            words.as_ref().map(|words| resolver.words(key, words))
        };
        ImageSpec {
            image: image.value.clone(),
            pinned: None,
            cmd: words(self, "cmd", &section.cmd),
            app_port: app_port.map_or(APP_PORT, |port| self.port("app_port", port)),
            user: section.user.as_ref().map(|user| {
                self.plain(user);
                user.value.clone()
            }),
            volumes: self.volumes(section),
            labels: self.labels(section),
            networks: self.networks(section),
            memory: section
                .memory
                .as_ref()
                .map(|memory| self.memory(memory.at, &memory.value.0)),
            cpus: section
                .cpus
                .as_ref()
                .map(|cpus| self.cpus(cpus.at, &cpus.value.0)),
            logging: section.logging.as_ref().map(|logging| {
                let options = logging.value.options.as_ref().map(|options| &options.value);
                for text in logging
                    .value
                    .driver
                    .iter()
                    .chain(options.into_iter().flat_map(BTreeMap::values))
                {
                    self.plain(text);
                }
                LogOptions {
                    driver: logging
                        .value
                        .driver
                        .as_ref()
                        .map(|driver| driver.value.clone()),
                    options: options.map(plain_map).unwrap_or_default(),
                }
            }),
            restart: section
                .restart
                .as_ref()
                .map_or(Restart::No, |restart| self.restart(restart)),
            before_switch: words(self, "before_switch", &section.before_switch),
            retain,
        }
    }

    /// With a `command` there is no container to be set up.
    fn only_for_images(&mut self, section: &ServiceSection) {
        let app_port = section
            .proxy
            .as_ref()
            .and_then(|proxy| proxy.value.app_port.as_ref());
        if let Some(port) = app_port {
            self.diagnostics.push(Diagnostic::Misplaced {
                key: "app_port".to_owned(),
                at: port.at,
                help: "it belongs to `image`; a `command` listens on the port in `PORT`, which \
                       differs from release to release"
                    .to_owned(),
            });
        }
        for (key, at) in section.container_keys() {
            if let Some(at) = at {
                self.diagnostics.push(Diagnostic::Misplaced {
                    key: key.to_owned(),
                    at,
                    help: "it is about containers and belongs to `image`; a `command` runs as the \
                           agent does"
                        .to_owned(),
                });
            }
        }
    }

    fn words(&mut self, key: &str, words: &Located<Vec<Located<String>>>) -> Vec<String> {
        if words
            .value
            .first()
            .is_none_or(|program| program.value.is_empty())
        {
            let help = match key {
                "command" => {
                    "write the program and its arguments: `[\"./shop\", \"--port\", \"${PORT}\"]`"
                }
                _ => "write the program and its arguments: `[\"bin/server\", \"--fast\"]`",
            };
            let reason = "names no program";
            self.bad_value(key, words.at, "[]".to_owned(), reason, help.to_owned());
        }
        words.value.iter().map(|word| word.value.clone()).collect()
    }

    fn image_name(&mut self, image: &Located<String>) {
        if !self.plain(image) {
            return;
        }
        let name = repository(&image.value);
        let strange =
            |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c));
        let digest_is_whole = image.value.split_once('@').is_none_or(|(_, digest)| {
            digest
                .strip_prefix("sha256:")
                .is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()))
        });
        let reason = if name.is_empty()
            || name.contains(strange)
            || image.value.contains(char::is_whitespace)
        {
            "not an image's name"
        } else if !digest_is_whole {
            "not a whole digest"
        } else {
            return;
        };
        let shown = self.as_written(image.at, &image.value);
        let help = "write it as `docker pull` takes it: `ghcr.io/acme/shop`, with `:tag` or \
                    `@sha256:...` if it is always the same; without, the release's version is its tag";
        self.bad_value("image", image.at, shown, reason, help.to_owned());
    }

    fn volumes(&mut self, section: &ServiceSection) -> Vec<String> {
        let volumes = section
            .volumes
            .as_ref()
            .map(|volumes| volumes.value.as_slice());
        let volumes = volumes.unwrap_or_default();
        for volume in volumes {
            if !self.plain(volume) {
                continue;
            }
            let mut parts = volume.value.split(':');
            let source = parts.next().unwrap_or_default();
            let target = parts.next();
            let reason = if target.is_none_or(|target| !target.starts_with('/')) {
                "does not say where it is mounted"
            } else if source.starts_with(['.', '~'])
                || (source.contains('/') && !source.starts_with('/'))
            {
                "begins with a relative path"
            } else if source.is_empty() {
                "names no volume"
            } else {
                continue;
            };
            let shown = self.as_written(volume.at, &volume.value);
            let help = "write `/path/on/the/instance:/path/inside` or `name:/path/inside`, with \
                        `:ro` if it is only read";
            self.bad_value("volumes", volume.at, shown, reason, help.to_owned());
        }
        volumes.iter().map(|volume| volume.value.clone()).collect()
    }

    fn labels(&mut self, section: &ServiceSection) -> BTreeMap<String, String> {
        let Some(labels) = &section.labels else {
            return BTreeMap::new();
        };
        for (name, value) in &labels.value {
            self.plain(value);
            if name.value.starts_with("greenlight.") {
                let reason = "greenlight recognises its containers by these labels";
                let help = "give the label another name".to_owned();
                self.bad_value("labels", name.at, name.value.clone(), reason, help);
            }
        }
        plain_map(&labels.value)
    }

    fn networks(&mut self, section: &ServiceSection) -> Vec<String> {
        let networks = section
            .networks
            .as_ref()
            .map(|networks| networks.value.as_slice());
        let networks = networks.unwrap_or_default();
        for network in networks {
            if !self.plain(network) {
                continue;
            }
            let name = network.value.as_str();
            if matches!(name, "host" | "none") || name.starts_with("container:") {
                let reason = "blue and green would share its ports, or have none";
                let help = "name a network of `docker network create`, or leave it out".to_owned();
                self.bad_value("networks", network.at, name.to_owned(), reason, help);
            }
        }
        networks
            .iter()
            .map(|network| network.value.clone())
            .collect()
    }

    fn memory(&mut self, at: SourceSpan, text: &str) -> Memory {
        match bytes(text) {
            Some(bytes) if bytes >= LEAST_MEMORY => Memory(bytes),
            amount => {
                let reason = match amount {
                    Some(_) => "docker takes no less than 6m",
                    None => "not an amount of memory",
                };
                let help = "write a number and a unit: `512m`, `2g`; a number alone is bytes";
                let shown = self.as_written(at, text);
                self.bad_value("memory", at, shown, reason, help.to_owned());
                Memory(LEAST_MEMORY)
            }
        }
    }

    fn cpus(&mut self, at: SourceSpan, text: &str) -> Cpus {
        let whole = |cpus: &f64| *cpus >= 0.01 && *cpus <= 10_000.0;
        if let Some(cpus) = text.trim().parse::<f64>().ok().filter(whole) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it must be between 0.01 and 10000"
            )]
            return Cpus((cpus * 1e9).round() as u64);
        }
        let shown = self.as_written(at, text);
        let help = "write how many processors it may use: `0.5`, `2`".to_owned();
        self.bad_value("cpus", at, shown, "not a number of processors", help);
        Cpus(1_000_000_000)
    }

    fn restart(&mut self, text: &Located<String>) -> Restart {
        match text.value.as_str() {
            "no" => return Restart::No,
            "on-failure" => return Restart::OnFailure(None),
            "unless-stopped" => return Restart::UnlessStopped,
            "always" => return Restart::Always,
            other => {
                if let Some(most) = other
                    .strip_prefix("on-failure:")
                    .and_then(|most| most.parse().ok())
                {
                    return Restart::OnFailure(Some(most));
                }
            }
        }
        let shown = self.as_written(text.at, &text.value);
        let help = "write `no`, `on-failure`, `on-failure:3`, `unless-stopped` or `always`; the \
                    agent starts a live application again in any case";
        self.bad_value(
            "restart",
            text.at,
            shown,
            "not a restart policy",
            help.to_owned(),
        );
        Restart::No
    }

    /// The registry of the file.
    pub(super) fn registry(
        &mut self,
        registry: Option<&Located<RegistrySection>>,
    ) -> Option<RegistryConfig> {
        let registry = &registry?.value;
        self.plain(&registry.username);
        if let Some(server) = &registry.server {
            self.plain(server);
        }
        let server = registry.server.as_ref().map(|server| server.value.clone());
        let password = &registry.password;
        let Some(source) = self.secret_source("", &password.value) else {
            self.diagnostics.push(Diagnostic::MissingKey {
                key: "password".to_owned(),
                at: password.at,
                help:
                    "say where it comes from: `password: [REGISTRY_PASSWORD]` for an environment \
                       variable, `{ file: ... }` or `{ command: [...] }`"
                        .to_owned(),
            });
            return None;
        };
        Some(RegistryConfig {
            server: server.unwrap_or_else(|| "docker.io".to_owned()),
            username: registry.username.value.clone(),
            password: source,
        })
    }

    /// Where a secret comes from; `None` if no source is given and it has no name of its own.
    pub(super) fn secret_source(&mut self, name: &str, from: &SecretFrom) -> Option<SecretSource> {
        match from {
            SecretFrom::Name if name.is_empty() => None,
            SecretFrom::Name => Some(SecretSource::Environment(name.to_owned())),
            SecretFrom::Environment(variable) => {
                self.plain(variable);
                Some(SecretSource::Environment(variable.value.clone()))
            }
            SecretFrom::File(path) => {
                self.plain(path);
                Some(SecretSource::File(path.value.clone().into()))
            }
            SecretFrom::Command(words) => {
                for word in &words.value {
                    self.replaced(word, Leftover::Nothing);
                }
                Some(SecretSource::Command(self.words("command", words)))
            }
        }
    }
}

fn plain_map(map: &BTreeMap<Located<String>, Located<String>>) -> BTreeMap<String, String> {
    map.iter()
        .map(|(name, value)| (name.value.clone(), value.value.clone()))
        .collect()
}

/// An amount of memory as Docker reads it: units are powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number without a sign, and 2^50 bytes are below what is exact"
    )]
    (bytes <= 1e15).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn memory_is_read_as_docker_reads_it() {
        for (text, expected) in [
            ("1048576", Some(1_048_576)),
            ("512m", Some(536_870_912)),
            ("512MB", Some(536_870_912)),
            ("1.5g", Some(1_610_612_736)),
            ("64 MiB", Some(67_108_864)),
            ("", None),
            ("lots", None),
            ("-1m", None),
            ("1t", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
