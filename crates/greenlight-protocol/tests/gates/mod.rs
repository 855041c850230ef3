//! The gates of scenarios, model check and simulation: shells of the one control.
//!
//! `shell` carries out one effect at a time, for drivers in which a process may end between any
//! two; `prompt` carries out everything at once; `answers` is what an agent learns from either.

pub(crate) mod answers;
#[path = "../../../greenlight-gate/tests/shell/prompt.rs"]
pub(crate) mod prompt;
#[path = "../../../greenlight-gate/tests/shell/mod.rs"]
pub(crate) mod shell;
