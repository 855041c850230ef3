//! Greenlight: zero-downtime deployment for a whole fleet at once.
//!
//! This crate is the shells around `greenlight-protocol` (which decides) and `greenlight-proxy`
//! (which serves users): the agent, the server, their drivers, and the command line.

pub mod agent;
pub mod api;
pub mod atomic_file;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod descriptors;
pub mod digest;
pub mod doctor;
pub mod failpoint;
pub mod fleet;
pub mod front;
pub mod health;
pub mod import;
pub mod journal;
pub mod link;
pub mod load;
pub mod log_file;
pub mod nginx;
pub mod receipt;
pub mod runtime;
pub mod sample;
pub mod secret;
pub mod server;
pub mod service_manager;
pub mod setup;
pub mod spec;
