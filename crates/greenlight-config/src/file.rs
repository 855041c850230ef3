//! `greenlight.yml` as it is written: the types that are both its parser and its JSON schema.
//!
//! Nothing here is understood yet: times and addresses are still text, and every value knows its
//! place. `super::resolve` turns a [`File`] into the configuration that the program uses.
//!
//! Key names come from the tool that owns the idea: Kamal (`service`, `servers`, `proxy`,
//! `env: {clear, secret}`), Compose (`services`, `command`, `x-*`), Argo Rollouts (`strategy`).
//! The doc comments of the fields are what an editor shows to users: they describe the file.

mod container;
mod env;
mod nginx;
mod proxy;
mod secret;
mod server;
mod setup;
mod top;

pub use container::{CpusText, LoggingSection, MemoryText, RegistrySection};
pub use env::EnvSection;
pub use nginx::NginxSection;
pub use proxy::{HealthSection, PortsSection, ProxySection, StatusText};
pub use secret::SecretFrom;
pub use server::{ServerEntry, ServerPorts, ServerSection};
pub use setup::{SetupSection, SshSection};

pub(super) use top::{Beside, keys_of};

use super::located::Located;
use greenlight_release::duration::DurationText;
use miette::SourceSpan;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The settings of a fleet and of what is deployed to it.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(
    title = "greenlight.yml",
    // Flattening gives up what each of the two sections says of unknown keys.
    extend("additionalProperties" = false),
    extend("patternProperties" = {
        "^x-": { "description": "Ignored by greenlight. Use it for YAML anchors." }
    })
)]
pub struct File {
    /// The keys of the fleet.
    #[schemars(flatten)]
    pub fleet: FleetSection,
    /// The keys of a service, which stand beside those of the fleet if there is only one service.
    #[schemars(flatten)]
    pub only_service: ServiceSection,
}

/// The keys that are at the top of the file only.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetSection {
    /// The service's name: lowercase letters, digits and hyphens.
    #[schemars(extend("pattern" = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pub service: Option<Located<String>>,
    /// Several services that are deployed together and cut over as one, by name. Use instead of
    /// `service`; `command`, `image`, `env` and `proxy` then belong into each of them.
    pub services: Option<Located<BTreeMap<Located<String>, Located<ServiceSection>>>>,
    /// The instances of the fleet: each an address, `host` or `host:port`, or a map.
    #[schemars(required, length(min = 1))]
    pub servers: Option<Located<Vec<Located<ServerEntry>>>>,
    /// How a deployment proceeds over the fleet. This version has `blue_green` only.
    #[schemars(extend("default" = "blue_green"))]
    pub strategy: Option<Located<StrategyWord>>,
    /// How the fleet switches from the old release to the new one.
    pub cutover: Option<Located<CutoverSection>>,
    /// Whether the other instances must also see an instance as ready before the switch: they ask
    /// its agent to check the new release, and connect to its public port.
    #[schemars(extend("default" = true))]
    pub peer_checks: Option<Located<bool>>,
    /// How long the new release is observed after a cut-over. If it fails during that time, the
    /// fleet goes back.
    #[schemars(extend("default" = "60s"))]
    pub watch: Option<Located<DurationText>>,
    /// How long the old release keeps running after the watch, so that a rollback needs no start.
    #[schemars(extend("default" = "15m"))]
    pub keep_warm: Option<Located<DurationText>>,
    /// How long requests in flight may take to finish on a release that is being stopped.
    #[schemars(extend("default" = "30s"))]
    pub drain_timeout: Option<Located<DurationText>>,
    /// The time between SIGTERM and SIGKILL after that.
    #[schemars(extend("default" = "10s"))]
    pub stop_timeout: Option<Located<DurationText>>,
    /// How long the new release may take to become ready on every instance.
    #[schemars(extend("default" = "5m"))]
    pub deploy_timeout: Option<Located<DurationText>>,
    /// How many releases' images an instance keeps, including the live one.
    #[schemars(extend("default" = 5), range(min = 1))]
    pub retain_containers: Option<Located<u32>>,
    /// The registry and its credentials. Without it, each instance uses its own `docker login`.
    pub registry: Option<Located<RegistrySection>>,
    /// How `greenlight setup` reaches the machines, and where the coordinator runs.
    pub setup: Option<Located<SetupSection>>,
}

/// One of several services that are deployed together.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSection {
    /// The program to run and its arguments. It must listen on the port in the environment
    /// variable `PORT`. `"${PORT}"` and `"${VERSION}"` are replaced when it starts.
    #[schemars(length(min = 1))]
    pub command: Option<Located<Vec<Located<String>>>>,
    /// The container image to run, in Docker on every instance. Without a tag, the release's
    /// version is its tag. Use instead of `command`.
    pub image: Option<Located<String>>,
    /// Replaces the image's own command.
    #[schemars(length(min = 1))]
    pub cmd: Option<Located<Vec<Located<String>>>>,
    /// The user that the container runs as: `user` or `user:group`.
    pub user: Option<Located<String>>,
    /// Mounts: `/path/on/the/instance:/path/inside` or `name:/path/inside`, with `:ro` for
    /// read-only. Blue and green run at the same time and share them.
    pub volumes: Option<Located<Vec<Located<String>>>>,
    /// Labels of the container.
    pub labels: Option<Located<BTreeMap<Located<String>, Located<String>>>>,
    /// Docker networks that the container joins; they must exist on every instance.
    pub networks: Option<Located<Vec<Located<String>>>>,
    /// The most memory the container may use, such as `512m`.
    pub memory: Option<Located<MemoryText>>,
    /// How many processors the container may use, such as `0.5`.
    pub cpus: Option<Located<CpusText>>,
    /// Where the container's output goes.
    pub logging: Option<Located<LoggingSection>>,
    /// What Docker does when the container ends: `no`, `on-failure`, `on-failure:3`,
    /// `unless-stopped` or `always`. The agent restarts a live application in any case; this
    /// setting is for the time when no agent runs.
    #[schemars(extend("default" = "no"))]
    pub restart: Option<Located<String>>,
    /// A command for migrations. One instance runs it once in a deployment, in a container of the
    /// new release, when that is ready everywhere and before the switch. If it fails, the
    /// deployment is aborted.
    #[schemars(length(min = 1))]
    pub before_switch: Option<Located<Vec<Located<String>>>>,
    /// How users reach the service, and how Greenlight checks its health.
    pub proxy: Option<Located<ProxySection>>,
    /// The environment of the application.
    pub env: Option<Located<EnvSection>>,
}

impl ServiceSection {
    /// The keys that only containers have, and the position of each.
    pub(super) fn container_keys(&self) -> [(&'static str, Option<SourceSpan>); 10] {
        fn at<T>(key: Option<&Located<T>>) -> Option<SourceSpan> {
            key.map(|key| key.at)
        }
        [
            ("cmd", at(self.cmd.as_ref())),
            ("user", at(self.user.as_ref())),
            ("volumes", at(self.volumes.as_ref())),
            ("labels", at(self.labels.as_ref())),
            ("networks", at(self.networks.as_ref())),
            ("memory", at(self.memory.as_ref())),
            ("cpus", at(self.cpus.as_ref())),
            ("logging", at(self.logging.as_ref())),
            ("restart", at(self.restart.as_ref())),
            ("before_switch", at(self.before_switch.as_ref())),
        ]
    }
}

/// How the fleet switches from the old release to the new one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutoverSection {
    /// A cut-over that would hold requests for longer is aborted; the old release continues to
    /// serve.
    #[schemars(extend("default" = "250ms"))]
    pub hold_budget: Option<Located<DurationText>>,
    /// The longest time for which an instance holds requests when it hears no decision.
    #[schemars(extend("default" = "2s"))]
    pub max_hold: Option<Located<DurationText>>,
    /// What that instance does then. `serve_old`: it serves the old release, so no request fails.
    /// `shed`: it answers 503 until it knows the decision, so old and new never mix.
    #[schemars(extend("default" = "serve_old"))]
    pub on_uncertain: Option<Located<OnUncertainWord>>,
    /// Whether the switch also waits until the old release has no request in flight. Then the two
    /// releases never handle requests at the same time.
    #[schemars(extend("default" = false))]
    pub exclusive: Option<Located<bool>>,
}

/// How a deployment proceeds over the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Strategy")]
pub enum StrategyWord {
    /// All instances at once, through one barrier.
    BlueGreen,
    /// Some instances at a time. Not in this version.
    Rolling,
    /// Some users at a time. Not in this version.
    Canary,
    /// Stop the old, start the new; has downtime. Not in this version.
    Recreate,
}

/// What a gate does when its hold deadline passes and the decision is still unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OnUncertain")]
pub enum OnUncertainWord {
    /// Serve the old release again: no request fails, and the receipt reports the window.
    ServeOld,
    /// Answer 503 until the decision is known: old and new never mix.
    Shed,
}
