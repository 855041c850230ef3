//! Certificates: one authority a fleet, owned by the server; a role in every certificate.
//!
//! A machine creates its key itself and sends a certificate request. Of a request only the
//! key counts: the role comes from the token, or from the certificate that is renewed.

mod credentials;

pub use credentials::Credentials;

use super::role::Role;
use crate::FingerprintKey;
use greenlight_release::digest::sha256_hex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const FINGERPRINT_KEY: &str = "fingerprint.key";
const AUTHORITY_YEARS: u64 = 10;
const DAY: Duration = Duration::from_hours(24);
/// How long a certificate is valid by default. It is renewed long before.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(90 * 24);

/// Why certificates cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("the certificate file `{path}` cannot be used: {source}")]
    File {
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A certificate or key is not what it should be.
    #[error("a certificate cannot be used: {0}")]
    Invalid(String),
}

/// The same for operators: their folders are copied to places where no process renews them.
const OPERATOR_LIFETIME: Duration = Duration::from_hours(365 * 24);

/// The certificate authority of a fleet.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    fingerprint_key: FingerprintKey,
    lifetime: Duration,
}

impl Authority {
    /// Opens the authority kept in `dir`, or makes a new one there.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let params = authority_params();
        fs::create_dir_all(dir).map_err(|source| file(dir, source))?;
        let fingerprint_key = open_fingerprint_key(&dir.join(FINGERPRINT_KEY))?;
        if key_path.exists() {
            let key = KeyPair::from_pem(&read(&key_path)?).map_err(invalid)?;
            return Ok(Self {
                issuer: Issuer::new(params, key),
                certificate: read(&cert_path)?,
                fingerprint_key,
                lifetime: CERTIFICATE_LIFETIME,
            });
        }
        let key = KeyPair::generate().map_err(invalid)?;
        let certificate = params.self_signed(&key).map_err(invalid)?.pem();
        // The key comes last: as long as it is missing, an incomplete authority is made anew.
        fs::write(&cert_path, &certificate).map_err(|source| file(&cert_path, source))?;
        write_secret(&key_path, &key.serialize_pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
            fingerprint_key,
            lifetime: CERTIFICATE_LIFETIME,
        })
    }

    /// Opens the authority kept in `dir`, which must be there.
    pub fn read(dir: &Path) -> Result<Self, PkiError> {
        read(&dir.join("ca.key"))?;
        Self::open(dir)
    }

    /// The same, issuing certificates that are good for so long.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Its own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What operators fingerprint secrets with.
    pub fn fingerprint_key(&self) -> &FingerprintKey {
        &self.fingerprint_key
    }

    /// Issues credentials for a role, key included.
    pub fn issue(&self, role: &Role) -> Result<Credentials, PkiError> {
        let key = KeyPair::generate().map_err(invalid)?;
        Ok(Credentials {
            authority: self.certificate.clone(),
            certificate: self.certify(role, &key)?,
            key: key.serialize_pem(),
            fingerprint_key: match role {
                Role::Operator => Some(self.fingerprint_key.clone()),
                Role::Server | Role::Agent(_) => None,
            },
        })
    }

    /// Signs a certificate request for the role.
    pub fn sign(&self, role: &Role, request: &Request) -> Result<String, PkiError> {
        self.certify(role, &request.0.public_key)
    }

    fn certify(&self, role: &Role, key: &impl PublicKeyData) -> Result<String, PkiError> {
        let name = role.dns_name();
        let mut params = CertificateParams::new(vec![name.clone()]).map_err(invalid)?;
        params.distinguished_name = distinguished(&name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let now = SystemTime::now();
        let lifetime = match role {
            Role::Operator => self.lifetime.max(OPERATOR_LIFETIME),
            Role::Server | Role::Agent(_) => self.lifetime,
        };
        // Clocks differ; but most of a short life must still lie ahead.
        params.not_before = (now - DAY.min(lifetime / 10)).into();
        params.not_after = (now + lifetime).into();
        let certificate = params.signed_by(key, &self.issuer).map_err(invalid)?;
        Ok(certificate.pem())
    }
}

/// A request for a certificate, whose sender has shown that it holds the key.
pub struct Request(CertificateSigningRequestParams);

impl Request {
    /// Makes a request for a key in PEM. The server ignores its other content.
    pub fn make(key: &str) -> Result<String, PkiError> {
        let key = KeyPair::from_pem(key).map_err(invalid)?;
        let request = CertificateParams::default().serialize_request(&key);
        request.and_then(|request| request.pem()).map_err(invalid)
    }

    /// Reads one.
    pub fn parse(pem: &str) -> Result<Self, PkiError> {
        CertificateSigningRequestParams::from_pem(pem)
            .map(Self)
            .map_err(invalid)
    }
}

/// A new key, PEM.
pub(crate) fn new_key() -> Result<String, PkiError> {
    let key = KeyPair::generate().map_err(invalid)?;
    Ok(key.serialize_pem())
}

/// The role that the first certificate in a PEM text gives.
pub fn role_of(pem: &str) -> Result<Role, PkiError> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(invalid)?;
    Role::of(&certificate).ok_or_else(|| invalid("it gives no role"))
}

/// The SHA-256 of the first certificate in a PEM text, by which its owner is known.
pub fn fingerprint(pem: &str) -> Result<String, PkiError> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(invalid)?;
    Ok(sha256_hex(&certificate))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished("greenlight fleet authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * u32::try_from(AUTHORITY_YEARS * 365).unwrap_or(3650)).into();
    params
}

/// Authority and leaves need names of their own, or some clients take a leaf for self-signed.
fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The fleet's key for fingerprints, kept in a file, or a new one.
fn open_fingerprint_key(path: &Path) -> Result<FingerprintKey, PkiError> {
    if let Some(key) = read_fingerprint_key(path)? {
        return Ok(key);
    }
    let key = FingerprintKey::generate().ok_or_else(|| invalid("the system has no randomness"))?;
    write_secret(path, &key.to_text())?;
    Ok(key)
}

fn read_fingerprint_key(path: &Path) -> Result<Option<FingerprintKey>, PkiError> {
    if !path.exists() {
        return Ok(None);
    }
    let broken = || {
        invalid(format!(
            "`{}` is not a key for fingerprints",
            path.display()
        ))
    };
    FingerprintKey::from_text(&read(path)?)
        .map(Some)
        .ok_or_else(broken)
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| file(path, source))
}

fn write_secret(path: &Path, text: &str) -> Result<(), PkiError> {
    let written = write_open(path, text).and_then(|file| file.sync_all());
    written.map_err(|source| file(path, source))
}

fn write_open(path: &Path, text: &str) -> io::Result<fs::File> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

pub(crate) fn file(path: &Path, source: io::Error) -> PkiError {
    PkiError::File {
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn invalid(error: impl std::fmt::Display) -> PkiError {
    PkiError::Invalid(error.to_string())
}
