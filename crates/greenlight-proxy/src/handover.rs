//! A running proxy hands its sockets and its routing over to a new process while traffic runs.
//!
//! ```text
//!  successor                              predecessor
//!    POST /v1/handover, upgrade    ──▶    refuses while a hold is on; obeys no more commands
//!                                  ◀──    101
//!    hello                         ──▶
//!                                  ◀──    offer: routing, evidence, and every socket
//!    loads the routing, starts its threads
//!    ready                         ──▶
//!                                  ◀──    accepted: from here on the successor leads
//!    accepts                              stops accepting, follows
//! ```
//!
//! Both have the same sockets all the while, and the kernel's queues belong to the sockets: no
//! connection is refused or reset. Until `accepted` the predecessor accepts, and a successor that
//! dies or stalls before it changes nothing. After it the predecessor's remaining connections go
//! on through its gates, which follow the successor's ([`crate::control`]); its idle keep-alive
//! connections are closed by the response to their next request, never by surprise.

mod follower_calls;
mod follower_socket;
mod followers;
mod offer;
mod request;
mod sockets;
mod wire;

pub(crate) use follower_calls::{CountsAnswer, FinalCountsRequest, report_final_counts};
pub(crate) use follower_socket::{follower_name, follower_socket};
pub(crate) use followers::Followers;
pub(crate) use offer::Successor;
pub(crate) use request::Handover;
pub(crate) use sockets::{Sockets, StatusSocket};

use crate::address::Address;
use greenlight_admin::ServiceSettings;
use greenlight_gate::HandoverState;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What the admin connection becomes.
pub(crate) const PROTOCOL: &str = "greenlight-handover";
/// The version of the handover's protocol.
const VERSION: u32 = 5;

#[derive(Serialize, Deserialize)]
struct Hello {
    version: u32,
}

#[derive(Serialize, Deserialize)]
enum Offer {
    Refused(String),
    Given {
        state: HandoverState<ServiceSettings>,
        sockets: Vec<Offered>,
    },
}

/// What each of the descriptors that follow is for.
#[derive(Serialize, Deserialize)]
enum Offered {
    Admin,
    Status {
        requested: SocketAddr,
    },
    Users {
        requested: Address,
        address: Address,
    },
}

#[derive(Serialize, Deserialize)]
struct Ready;

#[derive(Serialize, Deserialize)]
struct Accepted;
