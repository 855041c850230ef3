//! A new process takes the sockets over from an old one while traffic runs.
//!
//! ```text
//!  successor                              predecessor
//!    POST /v1/take-over, upgrade   ──▶    refuses while a hold is on; obeys no more orders
//!                                  ◀──    101
//!    hello                         ──▶
//!                                  ◀──    offer: routing, evidence, and every socket
//!    loads the routing, starts its threads
//!    ready                         ──▶
//!                                  ◀──    yours: from here on the successor leads
//!    accepts                              stops accepting, follows
//! ```
//!
//! Both have the same sockets all the while, and the kernel's queues belong to the sockets: no
//! connection is refused or reset. Until `yours` the predecessor accepts, and a successor that
//! dies or stalls before it changes nothing. After it the predecessor's remaining connections go
//! on through its gates, which follow the successor's ([`crate::admin`]); its idle keep-alive
//! connections are closed by the answer to their next request, never by surprise.

mod inheritance;
mod sockets;
mod successor;
mod wire;

pub(crate) use inheritance::Inheritance;
pub(crate) use sockets::{Sockets, StatusSocket};
pub(crate) use successor::Successor;

use crate::admin::EvidenceByEpoch;
use crate::counts::CountsByService;
use crate::listener::ListenAddr;
use crate::state_file::State;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What the admin connection becomes.
pub(crate) const PROTOCOL: &str = "greenlight-take-over";
/// The version of what is said then.
const VERSION: u32 = 2;

/// What a proxy knows that its successor must know.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Legacy {
    pub(crate) state: State,
    pub(crate) evidence: EvidenceByEpoch,
    /// The counts of predecessors that have ended.
    pub(crate) departed: CountsByService,
}

#[derive(Serialize, Deserialize)]
struct Hello {
    version: u32,
}

#[derive(Serialize, Deserialize)]
enum Offer {
    Refused(String),
    Given {
        legacy: Legacy,
        sockets: Vec<Offered>,
    },
}

/// What each of the descriptors that follow is for.
#[derive(Serialize, Deserialize)]
enum Offered {
    Admin,
    Status {
        asked: SocketAddr,
    },
    Users {
        asked: ListenAddr,
        taken: ListenAddr,
    },
}

#[derive(Serialize, Deserialize)]
struct Ready;

#[derive(Serialize, Deserialize)]
struct Yours;
