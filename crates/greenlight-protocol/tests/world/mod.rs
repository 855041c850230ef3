//! The world of the scenarios, the simulation and the model check: the parts of a fleet in memory,
//! and the one meaning of what happens to each.
//!
//! The machines are the real ones. What is here has no time, no randomness and no order: it is
//! plain values, and each call is one piece that a crash can follow. Three drivers decide what
//! happens next: `scenarios/` in the order in which it was caused, `sim/` at random and in time,
//! `model/` in every order.

pub(crate) mod agent;
pub(crate) mod answers;
pub(crate) mod coordinator;
#[path = "../../../greenlight-gate/tests/shell/file.rs"]
pub(crate) mod file;
pub(crate) mod message;
#[path = "../../../greenlight-gate/tests/shell/prompt.rs"]
pub(crate) mod prompt;
pub(crate) mod proxy;
#[path = "../../../greenlight-gate/tests/shell/mod.rs"]
pub(crate) mod shell;
pub(crate) mod slots;
