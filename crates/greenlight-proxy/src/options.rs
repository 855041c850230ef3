//! How a proxy is to run.

use crate::address::Address;
use crate::limits::Limits;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How a proxy is to run.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Where users come in.
    pub listen: Vec<Address>,
    /// The group whose members may connect to the unix sockets among them, by its number; that
    /// of this process if none. A client there is trusted about whom it forwards for.
    pub socket_group: Option<u32>,
    /// The admin socket.
    pub admin: PathBuf,
    /// The file that keeps the routing.
    pub state: PathBuf,
    /// A separate address for status, metrics and health, for a load balancer.
    pub status: Option<SocketAddr>,
    /// Threads that serve users; at least 1.
    pub threads: usize,
    /// What a client may ask for.
    pub limits: Limits,
    /// What to do about a proxy that runs on the same admin socket.
    pub if_running: IfRunning,
}

/// What to do about a proxy that runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfRunning {
    /// Do not start.
    Fail,
    /// Take its sockets and its routing over, and let it answer what it has. If none runs, just
    /// start.
    TakeOver,
}
