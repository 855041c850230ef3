//! Secret values: named in releases, fingerprinted in journals, kept only where applications run.
//!
//! ```text
//!   greenlight deploy ──values, mTLS──▶ server ──values, mTLS──▶ agent ──▶ secrets/DIGEST, 0600
//!          └── names and fingerprints ──▶ release ──▶ journals, API, history
//! ```
//!
//! A fingerprint is an HMAC of name and value under a key that only the fleet's operators have. It
//! tells that a secret has changed, and nothing else: without the key, a guess cannot be tried.
//! `docs/decisions/0004-secrets.md` says why it is done this way.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A value that no one may read in passing: it prints as `***`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretValue(String);

impl SecretValue {
    /// Takes a value in.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the application that it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The secrets that a release needs and must not contain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// By name: the secret variables of its environment.
    pub env: BTreeMap<String, SecretValue>,
    /// What its image is pulled with. Not fingerprinted: a job's token is another one each time,
    /// and changes nothing about what runs.
    pub registry: Option<RegistryLogin>,
}

impl Secrets {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.env.is_empty() && self.registry.is_none()
    }
}

/// Credentials for one registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogin {
    /// The registry, as image names begin with it.
    pub server: String,
    pub username: String,
    /// With what.
    pub password: SecretValue,
}

/// Shows whether a secret is the same as before, without revealing it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretFingerprint(String);

impl SecretFingerprint {
    /// A fingerprint that was made of a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
