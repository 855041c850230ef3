//! No port of a machine may be used twice: two that the file names are a fault, and services whose
//! ports it does not name prefer ports that nothing else in the file uses.
//!
//! Instances are on one machine if they have the same host, or all are on loopback, where only
//! public ports may repeat, on different addresses: applications listen on one loopback address
//! whatever the name of their instance.

use super::Resolver;
use crate::diagnostic::Diagnostic;
use crate::host::Host;
use greenlight_protocol::{Color, ServiceName};
use greenlight_release::ports::PortPair;
use miette::SourceSpan;
use std::collections::BTreeSet;
use std::fmt;

/// What a port is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The proxy's public port.
    Public,
    /// A slot of a service.
    Slot(ServiceName, Color),
    /// Where Nginx's workers say what they serve.
    Verify,
}

/// One port of one instance, and what it is for.
#[derive(Clone, Debug)]
pub(super) struct PortUse {
    /// Which of the servers it belongs to.
    pub(super) instance: usize,
    /// What that instance is called.
    pub(super) name: String,
    pub(super) host: Host,
    pub(super) purpose: Purpose,
    pub(super) port: u16,
    /// Where the number comes from.
    pub(super) said_at: SourceSpan,
    /// What to point at when another instance uses it.
    pub(super) at: SourceSpan,
}

impl Resolver<'_> {
    pub(super) fn ports_differ(&mut self, uses: &[PortUse]) {
        // One diagnostic for two instances is enough, and so is one for two places of the file.
        let mut pairs = BTreeSet::new();
        let mut places = BTreeSet::new();
        for (index, second) in uses.iter().enumerate() {
            for first in uses[..index].iter().filter(|first| first.collides(second)) {
                let same_instance = first.instance == second.instance;
                if !same_instance && !pairs.insert((first.instance, second.instance)) {
                    continue;
                }
                if first.host == second.host && first.is_public() && second.is_public() {
                    // The same server twice was reported before.
                    continue;
                }
                let (first_at, at) = match same_instance {
                    true => (first.said_at, second.said_at),
                    false => (first.at, second.at),
                };
                if places.insert((first_at.offset(), at.offset())) {
                    self.diagnostics.push(Diagnostic::PortTwice {
                        port: second.port,
                        machine: machine(&second.host),
                        first: first.described(same_instance),
                        first_at,
                        second: second.described(same_instance),
                        at,
                    });
                }
            }
        }
    }
}

/// Ports for services whose ports the file does not name, in the order of the file.
pub(super) struct PreferredPorts {
    /// By machine: the ports that are used there.
    used: Vec<(Host, u16)>,
}

impl PreferredPorts {
    /// The blue port of the first service.
    const FIRST: u16 = 8080;

    /// Ports that are none of these.
    pub(super) fn beside(uses: &[PortUse]) -> Self {
        let used = uses.iter().map(|used| (used.host.clone(), used.port));
        Self {
            used: used.collect(),
        }
    }

    /// The next pair on this machine.
    pub(super) fn next(&mut self, host: &Host) -> PortPair {
        let is_used = |port: u16| {
            let mut used = self.used.iter();
            used.any(|(other, taken)| *taken == port && other.shares_machine(host))
        };
        let mut pairs = (Self::FIRST..u16::MAX).step_by(2);
        let free = pairs.find(|blue| !is_used(*blue) && !is_used(blue + 1));
        // No file uses all of them.
        let blue = free.unwrap_or(Self::FIRST);
        self.used.push((host.clone(), blue));
        self.used.push((host.clone(), blue + 1));
        PortPair {
            blue,
            green: blue + 1,
        }
    }
}

impl PortUse {
    fn collides(&self, other: &Self) -> bool {
        if self.port != other.port {
            return false;
        }
        if self.host == other.host {
            return true;
        }
        let named = |host: &Host| matches!(host, Host::Name(_));
        let both_public = self.is_public() && other.is_public();
        self.host.is_loopback()
            && other.host.is_loopback()
            // `localhost` may be any loopback address; two addresses have a port each.
            && (!both_public || named(&self.host) || named(&other.host))
    }

    fn is_public(&self) -> bool {
        self.purpose == Purpose::Public
    }

    fn described(&self, alone: bool) -> String {
        let purpose = self.purpose.to_string();
        match alone {
            true => purpose,
            false => format!("{purpose} of `{}`", self.name),
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("the public port"),
            Self::Slot(service, color) => write!(f, "the {color} port of `{service}`"),
            Self::Verify => f.write_str("the `verify_port` of nginx"),
        }
    }
}

fn machine(host: &Host) -> String {
    match host.is_loopback() {
        true => "this machine".to_owned(),
        false => format!("`{host}`"),
    }
}
