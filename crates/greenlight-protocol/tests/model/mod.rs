//! The model: the real machines, joined to a fleet by a network and broken on purpose.
mod dead;
mod fair;
pub(crate) mod faults;
mod fleet;
mod gate;
mod machine;
mod past;
mod post;
pub(crate) mod report;
mod rules;
mod sameness;
mod search;
mod server;
mod shelf;
mod step;
mod table;
mod tell;
