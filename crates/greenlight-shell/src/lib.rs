//! What every long-running process of Greenlight needs around its machine: a durable journal,
//! timers, the clock that is passed in, failpoints for tests, files that are replaced whole, logs
//! within bounds, and what systemd is told.
//!
//! Deliberately absent: any knowledge of the server, the agent or the link between them.

pub mod atomic_file;
pub mod clock;
pub mod descriptors;
pub mod failpoint;
pub mod journal;
pub mod log_file;
pub mod service_manager;
pub mod timers;
