//! Which front an instance has, in the words of `greenlight.yml`.

use greenlight_protocol::Alignment;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What receives user traffic on the public port.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[schemars(rename = "Front")]
pub enum FrontKind {
    /// Greenlight's own proxy owns the public port.
    #[default]
    Builtin,
    /// Nginx owns it and passes everything to the built-in proxy, which switches behind it.
    Nginx,
    /// Nginx owns it and is reloaded at each cut-over: aligned, not gated.
    NginxReload,
}

impl FrontKind {
    /// What a cut-over of this front is worth.
    pub fn alignment(self) -> Alignment {
        match self {
            Self::Builtin | Self::Nginx => Alignment::Gated,
            Self::NginxReload => Alignment::Aligned,
        }
    }
}

impl fmt::Display for FrontKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Builtin => "builtin",
            Self::Nginx => "nginx",
            Self::NginxReload => "nginx_reload",
        })
    }
}
