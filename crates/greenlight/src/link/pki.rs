//! Certificates: one authority a fleet, owned by the server; a role in every certificate.

use crate::secret::SealKey;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The name that agents expect of the server, wherever it listens.
pub(crate) const SERVER_NAME: &str = "server.greenlight.internal";
const OPERATOR_NAME: &str = "operator.greenlight.internal";
const AGENT_SUFFIX: &str = ".agent.greenlight.internal";
const SEAL_KEY: &str = "seal.key";
const AUTHORITY_YEARS: u64 = 10;
const LEAF_DAYS: u64 = 365;
const DAY: Duration = Duration::from_hours(24);

/// Who someone is, by certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The coordinator's process.
    Server,
    /// The agent of this instance.
    Agent(String),
    /// A person, or a job that acts for one.
    Operator,
}

/// Why certificates cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("the certificate file `{path}` cannot be used: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key is not what it should be.
    #[error("a certificate cannot be used: {0}")]
    Invalid(String),
}

/// The certificate authority of a fleet.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    seal_key: SealKey,
}

/// What a process needs to prove who it is, and to check others.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The authority's certificate, PEM.
    pub authority: String,
    /// The own certificate, PEM.
    pub certificate: String,
    /// The own key, PEM.
    pub key: String,
    /// What secrets are sealed with; operators have it, and nobody else.
    pub seal_key: Option<SealKey>,
}

impl Authority {
    /// Opens the authority kept in `dir`, or makes a new one there.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let params = authority_params();
        fs::create_dir_all(dir).map_err(|source| file(dir, source))?;
        let seal_key = open_seal_key(&dir.join(SEAL_KEY))?;
        if key_path.exists() {
            let key = KeyPair::from_pem(&read(&key_path)?).map_err(invalid)?;
            return Ok(Self {
                issuer: Issuer::new(params, key),
                certificate: read(&cert_path)?,
                seal_key,
            });
        }
        let key = KeyPair::generate().map_err(invalid)?;
        let certificate = params.self_signed(&key).map_err(invalid)?.pem();
        // The key last: as long as it is missing, a half-made authority is made anew.
        fs::write(&cert_path, &certificate).map_err(|source| file(&cert_path, source))?;
        write_secret(&key_path, &key.serialize_pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
            seal_key,
        })
    }

    /// Issues credentials for a role.
    pub fn issue(&self, role: &Role) -> Result<Credentials, PkiError> {
        let name = role.dns_name();
        let mut params = CertificateParams::new(vec![name.clone()]).map_err(invalid)?;
        params.distinguished_name = distinguished(&name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let now = SystemTime::now();
        params.not_before = (now - DAY).into();
        params.not_after = (now + DAY * u32::try_from(LEAF_DAYS).unwrap_or(365)).into();
        let key = KeyPair::generate().map_err(invalid)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(invalid)?;
        Ok(Credentials {
            authority: self.certificate.clone(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            seal_key: match role {
                Role::Operator => Some(self.seal_key.clone()),
                Role::Server | Role::Agent(_) => None,
            },
        })
    }
}

impl Role {
    /// The name that stands for the role in certificates.
    pub fn dns_name(&self) -> String {
        match self {
            Self::Server => SERVER_NAME.to_owned(),
            Self::Operator => OPERATOR_NAME.to_owned(),
            Self::Agent(name) => format!("{name}{AGENT_SUFFIX}"),
        }
    }

    /// The role that a verified certificate gives.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| {
            let GeneralName::DNSName(name) = name else {
                return None;
            };
            match *name {
                SERVER_NAME => Some(Self::Server),
                OPERATOR_NAME => Some(Self::Operator),
                name => Some(Self::Agent(name.strip_suffix(AGENT_SUFFIX)?.to_owned())),
            }
        })
    }
}

impl Credentials {
    /// Reads credentials from a folder.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        Ok(Self {
            authority: read(&dir.join("ca.pem"))?,
            certificate: read(&dir.join("cert.pem"))?,
            key: read(&dir.join("key.pem"))?,
            seal_key: read_seal_key(&dir.join(SEAL_KEY))?,
        })
    }

    /// Writes credentials to a folder that only this user can read the key in.
    pub fn store(&self, dir: &Path) -> Result<(), PkiError> {
        fs::create_dir_all(dir).map_err(|source| file(dir, source))?;
        for (name, text) in [("ca.pem", &self.authority), ("cert.pem", &self.certificate)] {
            let path = dir.join(name);
            fs::write(&path, text).map_err(|source| file(&path, source))?;
        }
        if let Some(key) = &self.seal_key {
            write_secret(&dir.join(SEAL_KEY), &key.to_text())?;
        }
        write_secret(&dir.join("key.pem"), &self.key)
    }

    /// TLS for a process that others connect to; they must have a certificate of the fleet.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(invalid)?;
        let (chain, key) = self.identity()?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(invalid)?;
        Ok(Arc::new(config))
    }

    /// TLS for a process that connects to others of the fleet.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, PkiError> {
        let (chain, key) = self.identity()?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)
            .map_err(invalid)?;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, PkiError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.as_bytes()) {
            roots.add(certificate.map_err(invalid)?).map_err(invalid)?;
        }
        Ok(roots)
    }

    fn identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(invalid)?;
        Ok((chain.map_err(invalid)?, key))
    }
}

fn provider() -> Arc<CryptoProvider> {
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

/// The fleet's key for seals, kept in a file, or a new one.
fn open_seal_key(path: &Path) -> Result<SealKey, PkiError> {
    if let Some(key) = read_seal_key(path)? {
        return Ok(key);
    }
    let key = SealKey::generate().ok_or_else(|| invalid("the system has no randomness"))?;
    write_secret(path, &key.to_text())?;
    Ok(key)
}

fn read_seal_key(path: &Path) -> Result<Option<SealKey>, PkiError> {
    if !path.exists() {
        return Ok(None);
    }
    let broken = || invalid(format!("`{}` is not a key for seals", path.display()));
    SealKey::from_text(&read(path)?)
        .map(Some)
        .ok_or_else(broken)
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| file(path, source))
}

fn write_secret(path: &Path, text: &str) -> Result<(), PkiError> {
    use std::io::Write as _;
    let written = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| file(path, source))
}

fn file(path: &Path, source: io::Error) -> PkiError {
    PkiError::File {
        path: path.to_owned(),
        source,
    }
}

fn invalid(error: impl std::fmt::Display) -> PkiError {
    PkiError::Invalid(error.to_string())
}
