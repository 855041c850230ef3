//! Loopback ports that no other process of this machine is given.
//!
//! A fleet on one machine, a benchmark and a test write ports into a configuration long before
//! anybody listens on them: the idle slot of a service has no listener for minutes. A port that
//! was found by listening and letting go of it is anybody's again, so two programs that search at
//! the same time can be given the same one. Here ports are *reserved*:
//!
//! - A block of [`BLOCK`] neighbouring ports belongs to the process that has bound the abstract
//!   Unix socket with the block's name. The kernel lets one process bind a name, and frees it when
//!   that process ends, however it ends. Abstract names belong to a network namespace, as ports do.
//! - While one is free, a block does not touch the range from which the kernel takes the ports of
//!   outgoing connections and of listeners that name no port (`ip_local_port_range`).
//! - Before a port is given out, this crate listens on it once, because a program that does not
//!   reserve its ports may be using it.
//!
//! Deliberately absent: giving a port back. A process keeps its ports until it ends.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::{Mutex, PoisonError};

/// How many ports are reserved at once.
pub const BLOCK: u16 = 16;

/// Below this are the ports of well-known programs.
const LOWEST: u16 = 10_000;

/// The kernel's default, for a machine that does not tell its own.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// The blocks of this process. They are kept until it ends.
static RESERVED: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A port that is this process's until it ends.
///
/// # Errors
///
/// If every block is reserved by some process or used by programs that do not reserve ports.
pub fn reserve_port() -> io::Result<u16> {
    reserve_neighbours(1)
}

/// A loopback address whose port is this process's until it ends.
///
/// # Errors
///
/// As [`reserve_port`].
pub fn reserve_address() -> io::Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, reserve_port()?).into())
}

/// The first of `count` neighbouring ports, all of which are this process's until it ends.
///
/// # Errors
///
/// As [`reserve_port`], and if `count` is not between 1 and [`BLOCK`].
pub fn reserve_neighbours(count: u16) -> io::Result<u16> {
    if !(1..=BLOCK).contains(&count) {
        let range = format!("{count} neighbouring ports were requested, not 1 to {BLOCK}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, range));
    }
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = reserved.iter_mut().find_map(|block| block.draw(count)) {
        return Ok(first);
    }
    for number in candidates() {
        let Some(mut block) = Block::reserve(number)? else {
            continue;
        };
        if let Some(first) = block.draw(count) {
            reserved.push(block);
            return Ok(first);
        }
    }
    let none = "no block of ports is free: other processes have reserved or use them all";
    Err(io::Error::new(io::ErrorKind::AddrInUse, none))
}

/// The blocks in the order in which they are tried. The first one differs from process to process,
/// because a configuration may name a port on which no program listens yet. Blocks in the kernel's
/// range come last, for machines where it covers all of them.
fn candidates() -> Vec<u16> {
    let ephemeral = ephemeral();
    let all = LOWEST / BLOCK..=u16::MAX / BLOCK;
    let (mut outside, inside): (Vec<_>, Vec<_>) =
        all.partition(|number| Block::is_outside(*number, &ephemeral));
    if !outside.is_empty() {
        let process = usize::try_from(std::process::id()).unwrap_or_default();
        let first = process % outside.len();
        outside.rotate_left(first);
    }
    outside.extend(inside);
    outside
}

/// The range from which the kernel assigns ports.
///
/// Every port that this crate gives out is outside of it, while a block outside is free.
pub fn ephemeral() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = text.split_whitespace().map(str::parse);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => EPHEMERAL,
    }
}

/// [`BLOCK`] neighbouring ports that belong to this process.
struct Block {
    /// The first port that was not given out.
    next: u32,
    /// The port after the last one. No port has this number if the block is the highest.
    end: u32,
    /// To hold its name is to hold the block.
    _name: UnixDatagram,
}

impl Block {
    fn is_outside(number: u16, ephemeral: &RangeInclusive<u16>) -> bool {
        let first = number * BLOCK;
        first > *ephemeral.end() || first + (BLOCK - 1) < *ephemeral.start()
    }

    /// `None` if a process has it.
    fn reserve(number: u16) -> io::Result<Option<Self>> {
        let name = UnixAddress::from_abstract_name(Self::name(number))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(name) => Ok(Some(Self {
                next: u32::from(number * BLOCK),
                end: u32::from(number * BLOCK) + u32::from(BLOCK),
                _name: name,
            })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn name(number: u16) -> String {
        format!("greenlight-ports/{}", number * BLOCK)
    }

    /// The first free one of `count` neighbours of this block.
    fn draw(&mut self, count: u16) -> Option<u16> {
        let count = u32::from(count);
        while self.next + count <= self.end {
            let ports = self.next..self.next + count;
            if let Some(used) = ports.clone().rev().find(|port| is_used(*port)) {
                self.next = used + 1;
            } else {
                self.next = ports.end;
                return u16::try_from(ports.start).ok();
            }
        }
        None
    }
}

/// Whether anybody listens on a port, on any address.
fn is_used(port: u32) -> bool {
    let port = u16::try_from(port).unwrap_or_default();
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of a block that is free now, which the caller may reserve.
    fn free_block() -> (u16, Block) {
        let numbers = LOWEST / BLOCK + 1..;
        let mut free = numbers.filter_map(|number| {
            let block = Block::reserve(number).expect("abstract names can be bound");
            Some((number, block?))
        });
        free.next().expect("a block is free")
    }

    #[test]
    fn a_block_belongs_to_whoever_reserved_it_until_that_one_is_gone() {
        let (number, block) = free_block();
        let name = UnixAddress::from_abstract_name(Block::name(number)).expect("a short name");

        let meanwhile = Block::reserve(number).expect("abstract names can be bound");
        let taken = UnixDatagram::bind_addr(&name).map_err(|error| error.kind());
        drop(block);

        assert!(meanwhile.is_none());
        assert_eq!(taken.err(), Some(io::ErrorKind::AddrInUse));
        // Another process may be quicker, and then it is the one that has it now.
        let again = Block::reserve(number).expect("abstract names can be bound");
        let owner = fs::read_to_string("/proc/net/unix").expect("Linux has it");
        assert!(again.is_some() || owner.contains(&Block::name(number)));
    }

    #[test]
    fn a_port_on_which_somebody_listens_is_left_out_and_so_are_neighbours_around_it() {
        let (number, mut block) = free_block();
        let first = number * BLOCK;
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 2)).expect("it is free");

        let pair = block.draw(2);
        let triple = block.draw(3);
        drop(listening);

        assert_eq!(pair, Some(first));
        assert_eq!(triple, Some(first + 3));
    }

    #[test]
    fn a_block_is_used_up_and_another_is_reserved() {
        let (_, mut block) = free_block();
        let drawn: Vec<_> = std::iter::from_fn(|| block.draw(1)).collect();
        assert!(drawn.len() <= usize::from(BLOCK), "{drawn:?}");
        assert_eq!(block.draw(1), None);

        let more: Vec<_> = (0..3 * BLOCK).map(|_| reserve_port()).collect();
        let more: Result<std::collections::BTreeSet<_>, _> = more.into_iter().collect();
        let more = more.expect("there are more blocks");
        assert_eq!(more.len(), usize::from(3 * BLOCK));
        assert!(more.iter().all(|port| !drawn.contains(port)), "{more:?}");
    }

    #[test]
    fn no_block_touches_the_range_of_the_kernel() {
        let range = 32_768..=60_999;
        assert!(Block::is_outside(2047, &range)); // 32752 to 32767
        assert!(!Block::is_outside(2048, &range)); // 32768
        assert!(!Block::is_outside(3812, &range)); // 60992 to 61007
        assert!(Block::is_outside(3813, &range)); // 61008
        assert!(Block::is_outside(4095, &range)); // to 65535
    }

    #[test]
    fn as_many_neighbours_as_a_block_has_can_be_reserved_and_no_more() {
        let first = reserve_neighbours(BLOCK).expect("a whole block is free");
        assert_eq!(first % BLOCK, 0);
        for count in [0, BLOCK + 1] {
            let refused = reserve_neighbours(count).map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::InvalidInput));
        }
    }
}
