//! Suites that every implementation of a driver must pass, and the fakes that pass them too.

#[macro_use]
pub(crate) mod runtime;
pub(crate) mod fake_runtime;
