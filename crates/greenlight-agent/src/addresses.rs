//! Where this instance is reached: the ports of its slots, and the public address of its front.
//!
//! They are the instance's and not a release's, so that every release can be started here, also one
//! from before the instance joined. Ports that the configuration file names are used as they are.
//! Others are chosen once and kept; a port that another program has taken meanwhile is replaced
//! when its slot is filled next.
//!
//! A release stays on the port on which it was started, also if it is started again: a port that a
//! later deployment asks for counts only for a slot that is filled anew. So a deployment that is
//! refused, or fails, changes nothing for what is live.
//!
//! Agents of one machine choose from the same ports, and a slot that is idle has no listener: each
//! agent reserves what it has chosen with an abstract socket, which ends with its process.

use greenlight_protocol::{Color, ServiceName, Slot};
use greenlight_release::ports::{PortPair, RequestedAddresses, RequestedPorts};
use greenlight_shell::atomic_file::write_atomically;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a service gets of which no configuration file has said anything here.
const PREFERRED: PortPair = PortPair {
    blue: 8080,
    green: 8081,
};
/// The ports that are chosen from: below those that the kernel gives to outgoing connections.
const CHOICE: std::ops::Range<u16> = 8080..32768;

/// Why the addresses of an instance cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The file cannot be used.
    #[error("the file `{path}` with the ports of this instance cannot be used: {source}")]
    File {
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Every port is taken.
    #[error(
        "no port from {} to {} is free for `{service}`; end programs that listen there, or name \
         `ports`",
        CHOICE.start, CHOICE.end - 1
    )]
    NoneFree { service: ServiceName },
}

/// The addresses of an instance, for everyone who asks.
#[derive(Clone, Debug)]
pub struct Addresses {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    kept: Kept,
    /// By port: what tells other agents of this machine that it is taken.
    reserved: BTreeMap<u16, UnixListener>,
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    front: Option<String>,
    /// By service: its ports, and whether they were named or chosen.
    ports: BTreeMap<ServiceName, RequestedPorts>,
    /// By slot: on which port its release was started.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    started: BTreeMap<ServiceName, BTreeMap<Color, StartedOn>>,
}

/// On which port a release was started in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StartedOn {
    /// The digest of the release.
    digest: String,
    port: u16,
}

impl Addresses {
    /// Those that are kept in the file `path`, which is made when it is needed.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, AddressError> {
        let path = path.into();
        let kept = read(&path).map_err(|source| AddressError::File {
            path: path.clone(),
            source,
        })?;
        let mut inner = Inner {
            path,
            kept,
            reserved: BTreeMap::new(),
        };
        for port in inner.kept.used().collect::<Vec<_>>() {
            inner.reserve(port);
        }
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
        })
    }

    /// Takes what a configuration file says, and returns the ports of its services. When this
    /// returns, they are on disk.
    pub fn request(
        &self,
        requested: RequestedAddresses,
    ) -> Result<BTreeMap<ServiceName, PortPair>, AddressError> {
        let mut inner = self.inner.lock();
        let mut next = inner.kept.clone();
        next.front = requested.front;
        let (named, preferred): (Vec<_>, Vec<_>) = requested
            .ports
            .into_iter()
            .partition(|(_, ports)| ports.is_named());
        let asked: Vec<_> = named
            .iter()
            .chain(&preferred)
            .map(|(s, _)| s.clone())
            .collect();
        // Those that are named first: what is chosen must be none of them.
        for (service, ports) in named.into_iter().chain(preferred) {
            let ports = match next.ports.get(&service) {
                _ if ports.is_named() => ports,
                Some(known) => RequestedPorts::Preferred(known.pair()),
                None => inner.choose(&next, &service, ports.pair())?,
            };
            next.ports.insert(service, ports);
        }
        inner.yield_to_named(&mut next)?;
        inner.keep(next)?;
        let ports = asked.into_iter().map(|service| {
            let pair = inner.kept.ports[&service].pair();
            (service, pair)
        });
        Ok(ports.collect())
    }

    /// The ports of a service: those on which its slots were started, and those that were requested
    /// where none was.
    pub(crate) fn ports(&self, service: &ServiceName) -> Result<PortPair, AddressError> {
        let mut inner = self.inner.lock();
        let requested = inner.requested(service)?;
        Ok(inner.kept.started(service, requested))
    }

    /// This release is about to be started in a slot. If it was started there before, it stays on
    /// its port; otherwise it gets the requested one. When this returns, that is on disk.
    pub(crate) fn starting(&self, slot: &Slot, digest: &str) -> Result<(), AddressError> {
        let mut inner = self.inner.lock();
        let port = inner.requested(&slot.service)?.of(slot.color);
        let mut next = inner.kept.clone();
        let started = next.started.entry(slot.service.clone()).or_default();
        if started
            .get(&slot.color)
            .is_none_or(|its| its.digest != digest)
        {
            let digest = digest.to_owned();
            started.insert(slot.color, StartedOn { digest, port });
        }
        inner.keep(next)
    }

    /// A slot's release was stopped for good: what is started there next gets the requested port.
    pub(crate) fn emptied(&self, slot: &Slot) -> Result<(), AddressError> {
        let mut inner = self.inner.lock();
        let mut next = inner.kept.clone();
        if let Some(started) = next.started.get_mut(&slot.service) {
            started.remove(&slot.color);
        }
        next.started.retain(|_, started| !started.is_empty());
        inner.keep(next)
    }

    /// Another port for a slot whose port something else has taken; none if the file names it.
    pub(crate) fn replace(&self, slot: &Slot) -> Result<Option<PortPair>, AddressError> {
        let mut inner = self.inner.lock();
        let Some(RequestedPorts::Preferred(pair)) = inner.kept.ports.get(&slot.service).copied()
        else {
            return Ok(None);
        };
        let mut next = inner.kept.clone();
        let port = inner.choose_one(&next, &slot.service, &[])?;
        let pair = pair.with(slot.color, port);
        let ports = RequestedPorts::Preferred(pair);
        next.ports.insert(slot.service.clone(), ports);
        let started = next.started.get_mut(&slot.service);
        if let Some(started) = started.and_then(|its| its.get_mut(&slot.color)) {
            started.port = port;
        }
        inner.keep(next)?;
        Ok(Some(pair))
    }

    /// By service: its ports, and whether they were named or chosen.
    pub fn all(&self) -> BTreeMap<ServiceName, RequestedPorts> {
        self.inner.lock().kept.ports.clone()
    }

    /// Where peers look whether the front of this instance can be reached, if they are to.
    pub(crate) fn front(&self) -> Option<String> {
        self.inner.lock().kept.front.clone()
    }
}

impl Inner {
    /// What was requested for a service, or chosen now if nothing was.
    fn requested(&mut self, service: &ServiceName) -> Result<PortPair, AddressError> {
        if let Some(known) = self.kept.ports.get(service) {
            return Ok(known.pair());
        }
        let mut next = self.kept.clone();
        let chosen = self.choose(&next, service, PREFERRED)?;
        next.ports.insert(service.clone(), chosen);
        self.keep(next)?;
        Ok(chosen.pair())
    }

    /// The preferred ports, or others in place of those that are taken. They are reserved from here
    /// on: another agent may choose at the same time.
    fn choose(
        &mut self,
        kept: &Kept,
        service: &ServiceName,
        preferred: PortPair,
    ) -> Result<RequestedPorts, AddressError> {
        let mut or_another = |port: u16, but: &[u16]| {
            let is_good = kept.is_free(port) && !but.contains(&port) && self.take(port);
            match is_good {
                true => Ok(port),
                false => self.choose_one(kept, service, but),
            }
        };
        let blue = or_another(preferred.blue, &[])?;
        let green = or_another(preferred.green, &[blue])?;
        Ok(RequestedPorts::Preferred(PortPair { blue, green }))
    }

    /// A port that was chosen for one service, and that the file now names for another, is
    /// replaced: what runs there is reached there until it is replaced itself.
    fn yield_to_named(&mut self, next: &mut Kept) -> Result<(), AddressError> {
        let (named, chosen): (Vec<_>, Vec<_>) = next
            .ports
            .clone()
            .into_iter()
            .partition(|(_, ports)| ports.is_named());
        let named: Vec<_> = named.iter().map(|(_, ports)| ports.pair()).collect();
        let is_named = |port| {
            named
                .iter()
                .any(|pair| [pair.blue, pair.green].contains(&port))
        };
        for (service, ports) in chosen {
            let mut pair = ports.pair();
            for color in [Color::Blue, Color::Green] {
                if is_named(pair.of(color)) {
                    pair = pair.with(color, self.choose_one(next, &service, &[])?);
                    let ports = RequestedPorts::Preferred(pair);
                    next.ports.insert(service.clone(), ports);
                }
            }
        }
        Ok(())
    }

    fn choose_one(
        &mut self,
        kept: &Kept,
        service: &ServiceName,
        but: &[u16],
    ) -> Result<u16, AddressError> {
        let mut ports = CHOICE.filter(|port| kept.is_free(*port) && !but.contains(port));
        ports
            .find(|port| self.take(*port))
            .ok_or_else(|| AddressError::NoneFree {
                service: service.clone(),
            })
    }

    /// Reserves a port if no other agent means to use it, and no program listens there. A port that
    /// another agent has reserved is not even tried: its application may be about to listen.
    fn take(&mut self, port: u16) -> bool {
        let was_ours = self.reserved.contains_key(&port);
        if !self.reserve(port) {
            return false;
        }
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if !is_free && !was_ours {
            self.reserved.remove(&port);
        }
        is_free
    }

    fn keep(&mut self, next: Kept) -> Result<(), AddressError> {
        if next == self.kept {
            return Ok(());
        }
        let written = serde_json::to_vec(&next)
            .map_err(io::Error::from)
            .and_then(|bytes| write_atomically(&self.path, 0o600, &bytes));
        written.map_err(|source| AddressError::File {
            path: self.path.clone(),
            source,
        })?;
        self.kept = next;
        let used: Vec<_> = self.kept.used().collect();
        self.reserved.retain(|port, _| used.contains(port));
        // Those that are named; what another agent has reserved is seen when the slot is filled.
        for port in used {
            self.reserve(port);
        }
        Ok(())
    }

    /// Tells other agents that a port is taken, unless one of them was first.
    fn reserve(&mut self, port: u16) -> bool {
        if self.reserved.contains_key(&port) {
            return true;
        }
        let socket = reservation(port);
        let is_ours = socket.is_some();
        self.reserved.extend(socket.map(|socket| (port, socket)));
        is_ours
    }
}

impl Kept {
    fn used(&self) -> impl Iterator<Item = u16> {
        let pairs = self.ports.values().map(|ports| ports.pair());
        let requested = pairs.flat_map(|pair| [pair.of(Color::Blue), pair.of(Color::Green)]);
        let started = self.started.values().flat_map(BTreeMap::values);
        requested.chain(started.map(|its| its.port))
    }

    /// The same ports, with those on which the slots of the service were started.
    fn started(&self, service: &ServiceName, requested: PortPair) -> PortPair {
        let started = self.started.get(service).into_iter().flatten();
        started.fold(requested, |pair, (color, its)| pair.with(*color, its.port))
    }

    fn is_free(&self, port: u16) -> bool {
        self.used().all(|used| used != port)
    }
}

/// The file's content; nothing if there is no file.
fn read(path: &Path) -> io::Result<Kept> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(error) => Err(error),
    }
}

/// The socket that reserves a port among the agents of a machine; none if another process has it.
pub fn reservation(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("greenlight/slot-port/{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_ports_are_used_as_they_are_and_others_are_chosen_around_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let addresses = Addresses::open(dir.path().join("addresses.json")).expect("it opens");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let taken = taken.local_addr().expect("it is bound").port();
        let named = PortPair {
            blue: 8080,
            green: taken,
        };
        let ports = addresses
            .request(requested(&[
                ("first", RequestedPorts::Preferred(named)),
                ("second", RequestedPorts::Named(named)),
            ]))
            .expect("they are given");
        assert_eq!(ports[&ServiceName::from("second")], named);
        let first = ports[&ServiceName::from("first")];
        let all = [first.blue, first.green, named.blue, named.green];
        let different: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(different.len(), 4, "{all:?}");
    }

    #[test]
    fn what_was_chosen_is_kept_over_a_restart_and_no_other_agent_chooses_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("addresses.json");
        let service = ServiceName::from("shop");
        let chosen = {
            let addresses = Addresses::open(&path).expect("it opens");
            let chosen = addresses.ports(&service).expect("some are free");
            let neighbour = Addresses::open(dir.path().join("other.json")).expect("it opens");
            let other = neighbour.ports(&service).expect("some are free");
            let of = |pair: PortPair| [pair.blue, pair.green];
            assert!(of(chosen).iter().all(|port| !of(other).contains(port)));
            chosen
        };
        let again = Addresses::open(&path).expect("it opens");
        assert_eq!(again.ports(&service).expect("it is kept"), chosen);
        // A file that no longer names them, or never did, does not move what runs.
        let preferred = RequestedPorts::Preferred(PortPair { blue: 1, green: 2 });
        let kept = again.request(requested(&[("shop", preferred)]));
        assert_eq!(kept.expect("it is kept")[&service], chosen);
    }

    #[test]
    fn a_port_that_was_taken_meanwhile_is_replaced_unless_the_file_names_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let addresses = Addresses::open(dir.path().join("addresses.json")).expect("it opens");
        let service = ServiceName::from("shop");
        let before = addresses.ports(&service).expect("some are free");
        let slot = Slot {
            service: service.clone(),
            color: Color::Green,
        };
        let after = addresses.replace(&slot).expect("one is free");
        let after = after.expect("it was chosen");
        assert_eq!(after.blue, before.blue);
        assert_ne!(after.green, before.green);
        let named = RequestedPorts::Named(before);
        addresses
            .request(requested(&[("shop", named)]))
            .expect("it is taken");
        assert_eq!(addresses.replace(&slot).expect("it is named"), None);
    }

    #[test]
    fn a_chosen_port_yields_to_a_service_for_which_the_file_names_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let addresses = Addresses::open(dir.path().join("addresses.json")).expect("it opens");
        let chosen = addresses.ports(&ServiceName::from("shop"));
        let chosen = chosen.expect("some are free");
        let named = RequestedPorts::Named(chosen);
        let ports = addresses.request(requested(&[("mail", named)]));
        let mail = ServiceName::from("mail");
        assert_eq!(ports.expect("they are named")[&mail], chosen);
        let shop = addresses.ports(&ServiceName::from("shop"));
        let shop = shop.expect("others are free");
        let all = [shop.blue, shop.green, chosen.blue, chosen.green];
        let different: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(different.len(), 4, "{all:?}");
    }

    #[test]
    fn a_release_stays_on_its_port_until_its_slot_is_emptied_or_gets_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("addresses.json");
        let addresses = Addresses::open(&path).expect("it opens");
        let service = ServiceName::from("shop");
        let before = addresses.ports(&service).expect("some are free");
        let slot = Slot {
            service: service.clone(),
            color: Color::Blue,
        };
        addresses.starting(&slot, "v1").expect("it is kept");
        let named = PortPair { blue: 3, green: 4 };
        let named = requested(&[("shop", RequestedPorts::Named(named))]);
        addresses.request(named).expect("they are named");

        // The agent is started again, and the live release with it.
        drop(addresses);
        let addresses = Addresses::open(&path).expect("it opens");
        addresses.starting(&slot, "v1").expect("it is kept");
        let ports = addresses.ports(&service).expect("they are known");
        assert_eq!((ports.blue, ports.green), (before.blue, 4));

        addresses.emptied(&slot).expect("it is kept");
        addresses.starting(&slot, "v1").expect("it is kept");
        let ports = addresses.ports(&service).expect("they are known");
        assert_eq!((ports.blue, ports.green), (3, 4));

        let named = PortPair { blue: 5, green: 6 };
        let named = requested(&[("shop", RequestedPorts::Named(named))]);
        addresses.request(named).expect("they are named");
        addresses.starting(&slot, "v2").expect("it is kept");
        let ports = addresses.ports(&service).expect("they are known");
        assert_eq!((ports.blue, ports.green), (5, 6));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("addresses.json");
        std::fs::write(&path, "{").expect("it is written");
        let error = Addresses::open(&path).expect_err("it is no JSON");
        assert!(error.to_string().contains("addresses.json"), "{error}");
    }

    fn requested(ports: &[(&str, RequestedPorts)]) -> RequestedAddresses {
        let ports = ports.iter();
        RequestedAddresses {
            ports: ports.map(|(s, p)| (ServiceName::from(*s), *p)).collect(),
            front: None,
        }
    }
}
