//! Why the agent's shell could not do something with a slot.

use crate::addresses::AddressError;
use crate::front::FrontError;
use crate::health::ProbeError;
use crate::runtime::RuntimeError;
use crate::secret_store::SecretStoreError;
use greenlight_release::spec::SpecError;

/// Why a slot could not be started, checked, or told to the front.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlotError {
    /// The release cannot be read.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// It has no ports.
    #[error(transparent)]
    Addresses(#[from] AddressError),
    /// Its secrets are not here.
    #[error(transparent)]
    Secrets(#[from] SecretStoreError),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The front was not told where it is.
    #[error(transparent)]
    Front(#[from] FrontError),
    /// Its check.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// It failed, and what it left could not be stopped either.
    #[error("{source}; {cleanup}")]
    LeftBehind {
        /// Why it failed.
        source: Box<SlotError>,
        /// Why it could not be stopped.
        cleanup: RuntimeError,
    },
}
