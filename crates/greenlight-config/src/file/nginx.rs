//! The `proxy.nginx` section: the Nginx of each server, and the file that is written for it.

use crate::located::Located;
use schemars::JsonSchema;
use serde::Deserialize;

/// The Nginx of each server. `{instance}` in a path is replaced by the instance's name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Nginx")]
pub struct NginxSection {
    /// The file that greenlight writes, and that Nginx includes in its `http` block.
    #[schemars(extend("default" = "/etc/nginx/conf.d/greenlight.conf", "pattern" = "^/"))]
    pub include: Option<Located<String>>,
    /// Nginx's main configuration.
    #[schemars(extend("default" = "/etc/nginx/nginx.conf", "pattern" = "^/"))]
    pub conf: Option<Located<String>>,
    /// The file with the process number of Nginx's master.
    #[schemars(extend("default" = "/run/nginx.pid", "pattern" = "^/"))]
    pub pid: Option<Located<String>>,
    /// The Nginx program.
    #[schemars(extend("default" = "/usr/sbin/nginx", "pattern" = "^/"))]
    pub binary: Option<Located<String>>,
    /// The loopback port on which Nginx's workers report which configuration they serve. Several
    /// instances of one machine use the ports after it, one each.
    #[schemars(extend("default" = 9079), range(min = 1))]
    pub verify_port: Option<Located<u16>>,
    /// Whether Nginx keeps the `X-Forwarded-For` and `X-Forwarded-Proto` that it receives. Set it
    /// only if a load balancer is in front of Nginx.
    #[schemars(extend("default" = false))]
    pub forward_headers: Option<Located<bool>>,
    /// The group of Nginx's workers, which may connect to the gate: a name or a number. Default:
    /// the group of greenlight itself.
    pub group: Option<Located<String>>,
}
