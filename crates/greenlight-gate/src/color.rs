//! The two places that a service is forwarded to, and what a gate does with a request.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One of the two places a service is forwarded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    Blue,
    Green,
}

impl Color {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blue => "blue",
            Self::Green => "green",
        })
    }
}

/// What the gate does with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// Nothing was ever decided, or the service was removed: 503.
    #[default]
    Closed,
    /// Admit to this color.
    Open(Color),
    /// Let requests wait. The color is the one that was served until now.
    Held(Option<Color>),
    /// Refuse with 503. The color is the one that was served until now.
    Shed(Option<Color>),
}

impl Route {
    /// The color that is served, or was until now.
    pub fn served(self) -> Option<Color> {
        match self {
            Self::Closed => None,
            Self::Open(color) => Some(color),
            Self::Held(color) | Self::Shed(color) => color,
        }
    }
}
