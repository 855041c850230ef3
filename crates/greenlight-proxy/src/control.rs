//! The admin socket's other side: the shell of the gates' control, and what can be asked of it.
//!
//! What the gates do, and in which order that is written down and answered, is decided by
//! `greenlight-gate`. What is said on the socket is [`crate::admin`]'s; what passes between two
//! processes during a handover, and after it, is [`crate::handover`]'s.

mod answer;
mod commands;
mod drain;
mod evidence;
mod follower;
mod handover;
mod metrics;
mod server;
mod shell;
mod status;
mod tables;
mod tickets;

pub(crate) use server::Admin;
pub(crate) use tables::of_state as table_of;
