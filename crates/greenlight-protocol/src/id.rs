//! The ids of everything.
//!
//! Each is a newtype, so that an epoch cannot be passed where a term is meant.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

name! {
    /// One machine of the fleet, with one agent and one proxy.
    InstanceId
}
name! {
    /// One deployable application.
    ServiceName
}
name! {
    /// One attempt to bring an application's releases to the fleet.
    DeploymentId
}
number! {
    /// Number of a cut-over; grows by one with each, never reused.
    Epoch
}
number! {
    /// Incarnation of the coordinator; grows with each start.
    Term
}

/// The fencing token that every directive carries: a lower one changes nothing (G6).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Token {
    /// The coordinator's incarnation.
    pub term: Term,
    pub epoch: Epoch,
}

/// One start of one slot's application.
///
/// G4 is about incarnations: a health check that one start has passed does not count for the next.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation {
    /// The cut-over for which the application was started.
    pub epoch: Epoch,
    /// Which start for that cut-over, from 0.
    pub attempt: u32,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.attempt)
    }
}
