//! The `proxy` section: how users reach a service, its ports, and its health check.

use crate::file::NginxSection;
use crate::located::Located;
use greenlight_release::duration::DurationText;
use greenlight_release::front::FrontKind;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;

/// How users reach the service, and how Greenlight checks its health.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Proxy")]
pub struct ProxySection {
    /// What receives user traffic on the public port.
    #[schemars(extend("default" = "builtin"))]
    pub front: Option<Located<FrontKind>>,
    /// The Nginx of each server, for the fronts `nginx` and `nginx_reload`.
    pub nginx: Option<Located<NginxSection>>,
    /// The host whose requests go to the service, such as `shop.example.com`; default: every host.
    /// `*.example.com` matches all subdomains.
    pub host: Option<Located<String>>,
    /// Several hosts, instead of `host`.
    #[schemars(length(min = 1))]
    pub hosts: Option<Located<Vec<Located<String>>>>,
    /// Only paths under this one go to the service. The application sees the whole path.
    #[schemars(extend("default" = "/", "pattern" = "^/"))]
    pub path_prefix: Option<Located<String>>,
    /// The public port of every server that has no port of its own.
    #[schemars(extend("default" = 80), range(min = 1))]
    pub port: Option<Located<u16>>,
    /// The port that the application listens on inside its container. A `command` gets its port
    /// in `PORT` instead.
    #[schemars(range(min = 1))]
    pub app_port: Option<Located<u16>>,
    /// The two local ports that releases use in turns; each instance chooses free ones if none.
    pub ports: Option<Located<PortsSection>>,
    /// How Greenlight checks the application's health.
    pub healthcheck: Option<Located<HealthSection>>,
    /// How long a request may wait in total, at the gate and for an application that is down.
    #[schemars(extend("default" = "30s"))]
    pub request_timeout: Option<Located<DurationText>>,
}

/// The two local ports that releases use in turns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ports")]
pub struct PortsSection {
    /// The port of the blue slot.
    #[schemars(range(min = 1))]
    pub blue: Located<u16>,
    /// The port of the green slot.
    #[schemars(range(min = 1))]
    pub green: Located<u16>,
}

/// How Greenlight checks the application's health.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Healthcheck")]
pub struct HealthSection {
    /// The path that is requested.
    #[schemars(extend("default" = "/up", "pattern" = "^/"))]
    pub path: Option<Located<String>>,
    /// The `Host` header sent; the address if none.
    pub host: Option<Located<String>>,
    /// The time between two checks. A release that is starting is checked more often.
    #[schemars(extend("default" = "5s"))]
    pub interval: Option<Located<DurationText>>,
    /// How long a response may take.
    #[schemars(extend("default" = "5s"))]
    pub timeout: Option<Located<DurationText>>,
    /// How many good responses in a row make a release ready.
    #[schemars(extend("default" = 2), range(min = 1))]
    pub successes: Option<Located<u32>>,
    /// How many bad responses in a row make a release unhealthy.
    #[schemars(extend("default" = 3), range(min = 1))]
    pub failures: Option<Located<u32>>,
    /// The statuses that count as good, such as `[200, 204]` or `["200-399"]`.
    #[schemars(extend("default" = ["200-299"]), length(min = 1))]
    pub statuses: Option<Located<Vec<Located<StatusText>>>>,
}

/// A status or a range of them as the file has it, not yet parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusText(pub String);

impl<'de> Deserialize<'de> for StatusText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for StatusText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Status")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "minimum": 100,
            "maximum": 599,
            "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$",
        })
    }
}
