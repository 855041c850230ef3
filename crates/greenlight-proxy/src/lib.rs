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
//! Plain HTTP/1.1 is passed on by the fast path; everything else is read and written by hyper
//! (`serve.rs`). Where a request goes and when is decided once, in `forward.rs`, for both.
//!
//! One direction, no lock across an await, the control plane never consulted. *Admitted* means
//! that the first byte of the request was written to the application's connection; the
//! acknowledgement of a hold means that no further request will be admitted to the old color.
//! Why that is so is argued in [`gate`].
//!
//! Deliberately absent: fleets, deployments, health checks, TLS termination, HTTP/2; buffering of
//! bodies; half-closed clients, which look like clients that left; trust in what a client says of
//! itself, except on the unix socket, where another proxy of this machine connects.

mod activation;
pub mod admin;
mod atomic;
mod body;
mod client_io;
mod control;
mod counts;
mod error;
mod forward;
pub mod gate;
mod grace_period;
mod handover;
mod headers;
mod heartbeat;
mod http1;
mod idle;
mod lazy_timer;
mod limits;
mod listener;
mod local_reply;
mod proxy;
mod request;
mod response;
mod route_table;
mod serve;
mod socket;
mod state_file;
mod thread;
mod upgrade;
mod upload;
mod upstream;

pub use error::ProxyError;
pub use heartbeat::Heartbeat;
pub use limits::Limits;
pub use listener::ListenAddr;
pub use proxy::{IfRunning, ProxyOptions, RunningProxy, run};
pub use serve::GATE_RESPONSE;
