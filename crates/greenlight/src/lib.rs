//! Greenlight: zero-downtime deployment for a whole fleet at once.
//!
//! This crate is what a person starts: the command line, the roles as processes, and a fleet
//! on one machine.

pub mod cli;
pub mod demo;
pub mod doctor;
pub mod load;
pub mod local;
pub mod roles;
pub mod sample;
pub mod setup;
