//! What a process holds to prove who it is, and the folder in which it keeps that.

use super::{FINGERPRINT_KEY, PkiError, file, read, read_fingerprint_key, write_secret};
use crate::FingerprintKey;
use std::fs;
use std::path::Path;

/// What a process needs to prove who it is, and to check others.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The authority's certificate, PEM.
    pub authority: String,
    /// The own certificate, PEM.
    pub certificate: String,
    /// The own key, PEM.
    pub key: String,
    /// The key for fingerprints of secrets; only operators have it.
    pub fingerprint_key: Option<FingerprintKey>,
}

impl Credentials {
    /// Reads credentials from a folder.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        Ok(Self {
            authority: read(&dir.join("ca.pem"))?,
            certificate: read(&dir.join("cert.pem"))?,
            key: read(&dir.join("key.pem"))?,
            fingerprint_key: read_fingerprint_key(&dir.join(FINGERPRINT_KEY))?,
        })
    }

    /// Writes credentials to a folder that only this user can read the key in.
    pub fn store(&self, dir: &Path) -> Result<(), PkiError> {
        fs::create_dir_all(dir).map_err(|source| file(dir, source))?;
        for (name, text) in [("ca.pem", &self.authority), ("cert.pem", &self.certificate)] {
            let path = dir.join(name);
            fs::write(&path, text).map_err(|source| file(&path, source))?;
        }
        if let Some(key) = &self.fingerprint_key {
            write_secret(&dir.join(FINGERPRINT_KEY), &key.to_text())?;
        }
        write_secret(&dir.join("key.pem"), &self.key)
    }
}
