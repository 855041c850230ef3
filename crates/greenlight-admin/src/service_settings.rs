//! How a service is routed, as a proxy is told.

use serde::{Deserialize, Serialize};

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
