//! The key that secrets are fingerprinted with: every operator of a fleet has it, and nobody else.
//!
//! A fingerprint is an HMAC of name and value. Without the key, a guess cannot be tried.

use greenlight_release::secret::{SecretFingerprint, SecretValue};
use rustls::crypto::aws_lc_rs;
use rustls::crypto::tls13::OkmBlock;
use std::fmt;

/// The key that fingerprints are made with.
#[derive(Clone)]
pub struct FingerprintKey([u8; 32]);

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
        SecretFingerprint::new(hexadecimal(tag.as_ref()))
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
    use greenlight_release::secret::{RegistryLogin, Secrets};

    #[test]
    fn a_fingerprint_is_an_hmac_of_name_and_value() {
        // `printf 'NAME\0value' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b0b…`
        let key = FingerprintKey([0x0b; 32]);
        let fingerprint = key.fingerprint("NAME", &SecretValue::new("value"));
        let expected = "571c6ba305a26ea3cb97280737a93808ccd3a1f40f298a3786535a66d63edd93";
        assert_eq!(fingerprint, SecretFingerprint::new(expected));
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
