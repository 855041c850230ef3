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

mod source;
mod store;

pub use source::{SecretError, SecretSource};
pub use store::{SecretStore, SecretStoreError};

use rustls::crypto::aws_lc_rs;
use rustls::crypto::tls13::OkmBlock;
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

/// The key that fingerprints are made with.
#[derive(Clone)]
pub struct FingerprintKey([u8; 32]);

/// Shows whether a secret is the same as before, without revealing it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretFingerprint(String);

impl FingerprintKey {
    /// A key from the text that [`FingerprintKey::to_text`] gave.
    pub fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut key = [0; 32];
        if text.len() != key.len() * 2 {
            return None;
        }
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(Self(key))
    }

    /// A new key. `None` if the system has no randomness to give.
    pub fn generate() -> Option<Self> {
        let mut key = [0; 32];
        let random = aws_lc_rs::default_provider().secure_random;
        random.fill(&mut key).ok()?;
        Some(Self(key))
    }

    /// The key as text, to be kept in a file.
    pub fn to_text(&self) -> String {
        hexadecimal(&self.0)
    }

    /// Fingerprints a value under its name.
    pub fn fingerprint(&self, name: &str, value: &SecretValue) -> SecretFingerprint {
        let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let hmac = suite
            .tls13()
            .expect("the suite is a TLS 1.3 suite")
            .hkdf_provider;
        // A name has no zero byte, so no other pair gives the same message.
        let mut message = name.as_bytes().to_vec();
        message.push(0);
        message.extend_from_slice(value.expose().as_bytes());
        let tag = hmac.hmac_sign(&OkmBlock::new(&self.0), &message);
        SecretFingerprint(hexadecimal(tag.as_ref()))
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use fmt::Write as _;
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_an_hmac_of_name_and_value() {
        // `printf 'NAME\0value' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b0b…`
        let key = FingerprintKey([0x0b; 32]);
        let fingerprint = key.fingerprint("NAME", &SecretValue::new("value"));
        let expected = "571c6ba305a26ea3cb97280737a93808ccd3a1f40f298a3786535a66d63edd93";
        assert_eq!(fingerprint.0, expected);
    }

    #[test]
    fn a_fingerprint_tells_names_values_and_keys_apart() {
        let (one, other) = (FingerprintKey([1; 32]), FingerprintKey([2; 32]));
        let (a, b) = (SecretValue::new("a"), SecretValue::new("b"));
        assert_eq!(one.fingerprint("X", &a), one.fingerprint("X", &a));
        assert_ne!(one.fingerprint("X", &a), one.fingerprint("X", &b));
        assert_ne!(one.fingerprint("X", &a), one.fingerprint("Y", &a));
        assert_ne!(one.fingerprint("X", &a), other.fingerprint("X", &a));
    }

    #[test]
    fn no_value_shows_when_it_is_printed_in_passing() {
        let secrets = Secrets {
            env: [("TOKEN".to_owned(), SecretValue::new("hunter2"))].into(),
            registry: Some(RegistryLogin {
                server: "ghcr.io".to_owned(),
                username: "ci".to_owned(),
                password: SecretValue::new("hunter2"),
            }),
        };
        let printed = format!("{secrets:?} {secrets:#?} {:?}", FingerprintKey([7; 32]));
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("TOKEN"), "{printed}");
        assert!(!printed.contains('7'), "{printed}");
    }

    #[test]
    fn a_key_survives_its_file() {
        let key = FingerprintKey::generate().expect("randomness");
        let read = FingerprintKey::from_text(&format!("{}\n", key.to_text())).expect("a key");
        assert_eq!(read.0, key.0);
        assert!(FingerprintKey::from_text("short").is_none());
    }
}
