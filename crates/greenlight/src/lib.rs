//! Greenlight: zero-downtime deployment for a whole fleet at once.
//!
//! This crate is the shells around `greenlight-protocol` (which decides) and `greenlight-proxy`
//! (which serves users): the agent, the server, their drivers, and the command line.

pub mod agent;
pub mod cli;
pub mod demo;
pub mod doctor;
pub mod fleet;
pub mod front;
pub mod health;
pub mod load;
pub mod nginx;
pub mod runtime;
pub mod sample;
pub mod secret_store;
pub mod server;
pub mod setup;
