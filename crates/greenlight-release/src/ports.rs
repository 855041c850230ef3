//! The local ports of a service's two slots. They belong to the instance, not to the release: the
//! same release runs on any fleet, and one that an instance never had can be started there.

use greenlight_protocol::{Color, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The ports of the two slots of one service on one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPair {
    /// The blue slot's port.
    pub blue: u16,
    /// The green slot's port.
    pub green: u16,
}

impl PortPair {
    /// The port of one color.
    pub fn of(self, color: Color) -> u16 {
        match color {
            Color::Blue => self.blue,
            Color::Green => self.green,
        }
    }

    /// The same pair with another port for one color.
    #[must_use]
    pub fn with(self, color: Color, port: u16) -> Self {
        match color {
            Color::Blue => Self { blue: port, ..self },
            Color::Green => Self {
                green: port,
                ..self
            },
        }
    }
}

/// What the configuration file says of the ports of a service on an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestedPorts {
    /// It names them: these, or the start fails.
    Named(PortPair),
    /// It does not: these if they are free, others otherwise.
    Preferred(PortPair),
}

impl RequestedPorts {
    /// The ports, if they are free.
    pub fn pair(self) -> PortPair {
        match self {
            Self::Named(pair) | Self::Preferred(pair) => pair,
        }
    }

    /// Whether others may be taken in their place.
    pub fn is_named(self) -> bool {
        match self {
            Self::Named(_) => true,
            Self::Preferred(_) => false,
        }
    }
}

/// What the configuration file says of where an instance is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedAddresses {
    /// By service: the ports of its slots.
    pub ports: BTreeMap<ServiceName, RequestedPorts>,
    /// The public address of its front, `host:port`, where its peers look whether it can be
    /// reached; none where they do not look.
    pub front: Option<String>,
}
