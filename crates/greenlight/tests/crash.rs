//! Real crashes of every process of a fleet under load.
//!
//! The tests are in one module, so that their names begin with `killed::`. They wait more than they
//! compute, and `make test` runs them apart from, and beside, the tests that compute.

#[path = "crash/command.rs"]
mod command;
#[path = "crash/failpoints.rs"]
mod failpoints;
#[path = "crash/fleet.rs"]
mod fleet;
#[path = "crash/killed.rs"]
mod killed;
#[path = "commands/last_lines.rs"]
mod last_lines;
#[path = "crash/machine.rs"]
mod machine;
#[path = "crash/scene.rs"]
mod scene;
#[path = "crash/traffic.rs"]
mod traffic;
