//! The atomics that the gate is made of. The race tests compile the gate against a module of the
//! same name whose atomics let a scheduler choose every interleaving.

pub(crate) use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
