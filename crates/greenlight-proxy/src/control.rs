//! The admin socket's other side: carries out commands, keeps deadlines, answers questions.
//!
//! What is said on the socket is [`crate::admin`]'s; what passes between two processes during a
//! handover, and after it, is [`crate::handover`]'s.

mod answer;
mod commands;
mod deadline;
mod evidence;
mod fence;
mod follower;
mod handover;
mod metrics;
mod server;
mod service_control;
mod status;

pub(crate) use server::Admin;
pub(crate) use service_control::{ServiceControl, ServiceControls};
