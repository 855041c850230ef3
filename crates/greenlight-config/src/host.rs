//! Where an instance is: an IP address or a name, and perhaps a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs as _};

/// The address of an instance. A client resolves the name when it connects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name, in small letters.
    Name(String),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It begins like `http://`.
    #[error("an address has no scheme")]
    Scheme,
    /// The part after the colon is no port.
    #[error("`{0}` is not a port, 1 to 65535")]
    Port(String),
    /// It is `0.0.0.0` or `::`.
    #[error("this means every address, and an instance needs one of its own")]
    Unspecified,
    /// It has a character that a name cannot have.
    #[error("neither an IP address nor a host name")]
    NotAHost,
}

impl Host {
    /// Reads a host without a port.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.contains("://") {
            return Err(HostError::Scheme);
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return match ip.is_unspecified() {
                true => Err(HostError::Unspecified),
                false => Ok(Self::Ip(ip)),
            };
        }
        match is_host_name(text) {
            true => Ok(Self::Name(text.to_ascii_lowercase())),
            false => Err(HostError::NotAHost),
        }
    }

    /// Reads a host, and a port if there is one: `web-1`, `10.0.0.11:8080`, `[::1]:80`, `::1`.
    pub fn parse_with_port(text: &str) -> Result<(Self, Option<u16>), HostError> {
        if text.contains("://") {
            return Err(HostError::Scheme);
        }
        let (host, port) = match text.rsplit_once(':') {
            // Without brackets the last group of an IPv6 address would be taken for a port.
            Some(_) if text.parse::<Ipv6Addr>().is_ok() => return Ok((Self::parse(text)?, None)),
            Some((host, port)) if !text.ends_with(']') => (host, port),
            Some(_) | None => return Ok((Self::parse(text)?, None)),
        };
        match port.parse::<u16>() {
            Ok(number) if number > 0 => Ok((Self::parse(host)?, Some(number))),
            Ok(_) | Err(_) => Err(HostError::Port(port.to_owned())),
        }
    }

    /// Its address; the first one of a name.
    pub fn resolve(&self) -> Result<IpAddr, ResolveError> {
        match self {
            Self::Ip(address) => Ok(*address),
            Self::Name(name) => {
                let found = (name.as_str(), 0).to_socket_addrs();
                let mut found = found.map_err(|source| ResolveError::Unknown {
                    name: name.clone(),
                    source,
                })?;
                let first = found.next().map(|address| address.ip());
                first.ok_or_else(|| ResolveError::NoAddress(name.clone()))
            }
        }
    }

    /// Whether it is this machine by its own account: all loopback addresses share one machine.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(ip) => ip.is_loopback(),
            Self::Name(name) => name == "localhost",
        }
    }

    /// Whether both are one machine.
    pub fn shares_machine(&self, other: &Self) -> bool {
        self == other || self.is_loopback() && other.is_loopback()
    }
}

/// Why a host has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Its name is not known.
    #[error("`{name}` is not known: {source}")]
    Unknown {
        /// The name.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its name is known, and stands for nothing.
    #[error("`{0}` has no address")]
    NoAddress(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What an instance may be called, for people.
pub const INSTANCE_NAME_HELP: &str = "use lowercase letters, digits, hyphens and dots: `web-1`";

/// Whether a text may be what an instance is called: a host name in small letters.
pub fn is_instance_name(text: &str) -> bool {
    is_host_name(text) && text == text.to_lowercase()
}

/// Whether a text is a host name: labels of letters, digits and hyphens between dots.
pub(super) fn is_host_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether a text is a label of a host name: 1 to 63 letters, digits and inner hyphens.
pub(super) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_from_their_ports() {
        for (text, host, port) in [
            ("10.0.0.11", "10.0.0.11", None),
            ("10.0.0.11:8080", "10.0.0.11", Some(8080)),
            ("Web-1.example.com:80", "web-1.example.com", Some(80)),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("[fe80::1]:443", "fe80::1", Some(443)),
        ] {
            let (found, found_port) = Host::parse_with_port(text).expect(text);
            assert_eq!((found.to_string().as_str(), found_port), (host, port));
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, error) in [
            ("http://web-1", HostError::Scheme),
            ("web-1:http", HostError::Port("http".to_owned())),
            ("web-1:0", HostError::Port("0".to_owned())),
            ("web-1:70000", HostError::Port("70000".to_owned())),
            ("0.0.0.0:80", HostError::Unspecified),
            ("web_1", HostError::NotAHost),
            ("web-1/", HostError::NotAHost),
            ("", HostError::NotAHost),
            ("a..b", HostError::NotAHost),
        ] {
            assert_eq!(Host::parse_with_port(text), Err(error), "{text}");
        }
    }
}
