//! The users' requests: listeners, gate, routing, forwarding. Knows no fleet.
//!
//! ```text
//!  listener ─▶ find(host, path) ─▶ claim ─▶ (connection) ─▶ admit ─▶ forward ─▶ release
//!   a thread     one atomic        count,     from this      count,    http1 or   counts go
//!   per core     snapshot          look again  thread's pool  look again  hyper    down
//!                     ▲                ▲                         ▲
//!                     └────────────────┴──── gate ◀──────────────┘
//!                                             ▲
//!                  admin socket: hold, open, park, shed, drain
//! ```
//!
//! The layers, from the user to the application; each uses only those after it:
//!
//! | | |
//! |---|---|
//! | `downstream` | listening sockets, connections of users; the HTTP/1.1 fast path, hyper |
//! | `forward` | one request's way, with waits and retries, for both ways of sending |
//! | `routing` | which service a request is for |
//! | `gate` | whether it may go now |
//! | `upstream` | connections to applications |
//!
//! `thread` is what the tasks of one thread share. Beside the request path stand `control`, which
//! carries out what the admin socket says, `handover` to a successor, and `state_file`.
//!
//! One direction, no lock across an await, the control plane never consulted. *Admitted* means
//! that the first byte of the request was written to the application's connection; the
//! acknowledgement of a hold means that no further request will be admitted to the old color.
//! Why that is so is argued in [`greenlight_gate::Gate`].
//!
//! Deliberately absent: fleets, deployments, health checks, TLS termination, HTTP/2; buffering of
//! bodies; half-closed clients, which look like clients that left; trust in what a client says of
//! itself, except on the unix socket, where another proxy of this machine connects.

mod address;
mod buffer;
mod clock;
mod control;
mod date;
mod downstream;
mod error;
mod forward;
mod gate;
mod handover;
mod heartbeat;
mod http_rules;
mod idle;
mod lifecycle;
mod limits;
mod local_reply;
mod options;
mod proxy;
mod routing;
mod socket;
mod state_file;
mod thread;
mod upstream;

pub use address::{Address, AddressError};
pub use error::{ProxyError, StateError};
pub use heartbeat::Heartbeat;
pub use limits::Limits;
pub use options::{IfRunning, ProxyOptions};
pub use proxy::{RunningProxy, run};
pub use routing::SettingsError;
