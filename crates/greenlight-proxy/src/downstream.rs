//! The side of the users: listening sockets, their connections, and the requests on them.
//!
//! ```text
//!  listener ─▶ accept ─▶ handshake ─▶ http1 (fast path) ─▶ forward
//!                                 └─▶ hyper ─────────────▶ forward
//! ```
//!
//! `http1` passes plain HTTP/1.1 on by itself; `hyper` takes every connection whose request is
//! anything else. TLS, ALPN and HTTP/2 belong into `handshake`.

pub(crate) mod accept;
pub(crate) mod activation;
mod client_info;
mod grace_period;
mod handshake;
mod hop_by_hop;
mod http1;
mod hyper;
pub(crate) mod listener;
