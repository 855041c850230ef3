//! The model: the real machines, joined to a fleet by a network and broken on purpose.
mod dead;
mod demands;
mod fair;
pub(crate) mod faults;
mod fleet;
mod gate;
mod machine;
mod message;
mod past;
pub(crate) mod report;
mod rules;
mod search;
mod server;
mod shelf;
mod step;
mod symmetry;
mod table;
mod tell;
#[expect(
    dead_code,
    reason = "gates of the model know their service from the start"
)]
#[path = "../world/mod.rs"]
mod world;
