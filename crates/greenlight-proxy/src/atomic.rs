//! The atomics that the gate is made of. The race tests compile the gate against a module of the
//! same name whose atomics let a scheduler choose every interleaving.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
