//! A release and its settings: the values that the file format, the link and the drivers share.
//!
//! Deliberately absent: I/O, and any value that depends on where a release runs.

pub mod digest;
pub mod duration;
pub mod front;
pub mod health;
pub mod nginx;
pub mod ports;
pub mod runtime;
pub mod secret;
pub mod spec;
