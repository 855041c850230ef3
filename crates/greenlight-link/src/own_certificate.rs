//! The certificate that a running process shows, which may be replaced while it runs.
//!
//! Every TLS configuration made from an identity asks it at each handshake. So a renewed
//! certificate counts from the next connection on, and connections that are open stay open.

use super::pki::{Credentials, PkiError, file, invalid, provider};
use super::signature::DocumentSigner;
use arc_swap::ArcSwap;
use greenlight_shell::atomic_file::write_atomically;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What to do with who connects and shows no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// End the handshake.
    Required,
    /// Let them in, to join. Who shows a certificate must still have one of the fleet.
    Optional,
}

/// The certificate and key of this process, which are replaced while it runs.
#[derive(Debug)]
pub struct Identity {
    authority: String,
    /// The folder that it was read from.
    dir: Option<PathBuf>,
    current: ArcSwap<CurrentCertificate>,
}

/// What is shown at a handshake.
#[derive(Debug)]
struct CurrentCertificate {
    /// PEM.
    key: String,
    /// PEM.
    certificate: String,
    certified: Arc<CertifiedKey>,
    from: SystemTime,
    until: SystemTime,
}

impl Identity {
    /// Reads it from a folder, to which renewed certificates are written.
    pub fn load(dir: &Path) -> Result<Arc<Self>, PkiError> {
        let identity = Self::new(&Credentials::load(dir)?)?;
        Ok(Arc::new(Self {
            dir: Some(dir.to_owned()),
            ..identity
        }))
    }

    /// An identity that is kept nowhere.
    pub fn new(credentials: &Credentials) -> Result<Self, PkiError> {
        let Credentials {
            authority,
            certificate,
            key,
            ..
        } = credentials;
        Ok(Self {
            authority: authority.clone(),
            dir: None,
            current: ArcSwap::from_pointee(CurrentCertificate::new(authority, certificate, key)?),
        })
    }

    /// Its key, PEM.
    pub(super) fn key(&self) -> String {
        self.current.load().key.clone()
    }

    /// What signs documents with the certificate that is shown now.
    pub fn signer(&self) -> DocumentSigner {
        let current = self.current.load();
        DocumentSigner {
            authority: self.authority.clone(),
            certificate: current.certificate.clone(),
            certified: current.certified.clone(),
        }
    }

    /// When its certificate should be renewed: when two thirds of its life are over.
    pub fn renew_at(&self) -> SystemTime {
        let current = self.current.load();
        let life = current
            .until
            .duration_since(current.from)
            .unwrap_or_default();
        current.from + life * 2 / 3
    }

    /// When its certificate runs out.
    pub fn good_until(&self) -> SystemTime {
        self.current.load().until
    }

    /// Shows another certificate from now on, and keeps it in the folder. If the machine has
    /// joined again meanwhile, what it got then is shown instead.
    pub fn replace(&self, certificate: &str) -> Result<(), PkiError> {
        let key = self.key();
        // Refused here if it is not for this key.
        let current = CurrentCertificate::new(&self.authority, certificate, &key)?;
        if let Some(dir) = &self.dir {
            let kept = Credentials::load(dir)?;
            if kept.key != key {
                let current =
                    CurrentCertificate::new(&self.authority, &kept.certificate, &kept.key)?;
                self.current.store(Arc::new(current));
                return Ok(());
            }
            let path = dir.join("cert.pem");
            // Whole or not at all: without a certificate the process would not come back.
            write_atomically(&path, 0o600, certificate.as_bytes())
                .map_err(|source| file(&path, source))?;
        }
        self.current.store(Arc::new(current));
        Ok(())
    }

    /// TLS for a process that others connect to.
    pub fn server_config(
        self: &Arc<Self>,
        client_auth: ClientAuth,
    ) -> Result<Arc<ServerConfig>, PkiError> {
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let verifier = match client_auth {
            ClientAuth::Required => verifier,
            ClientAuth::Optional => verifier.allow_unauthenticated(),
        };
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .with_client_cert_verifier(verifier.build().map_err(invalid)?)
            .with_cert_resolver(self.clone());
        Ok(Arc::new(config))
    }

    /// TLS for a process that connects to others of the fleet.
    pub fn client_config(self: &Arc<Self>) -> Result<Arc<ClientConfig>, PkiError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .with_root_certificates(self.roots()?)
            .with_client_cert_resolver(self.clone());
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, PkiError> {
        let mut roots = RootCertStore::empty();
        for certificate in chain(&self.authority)? {
            roots.add(certificate).map_err(invalid)?;
        }
        Ok(roots)
    }
}

impl Credentials {
    /// TLS for a process that others connect to; they must have a certificate of the fleet.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        Arc::new(Identity::new(self)?).server_config(ClientAuth::Required)
    }

    /// TLS for a process that connects to others of the fleet.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, PkiError> {
        Arc::new(Identity::new(self)?).client_config()
    }
}

impl CurrentCertificate {
    fn new(authority: &str, certificate: &str, key: &str) -> Result<Self, PkiError> {
        let mut chain_of = chain(certificate)?;
        let leaf = chain_of.first().ok_or_else(|| invalid("it is empty"))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(invalid)?;
        let validity = parsed.validity();
        let (from, until) = (time(&validity.not_before), time(&validity.not_after));
        // A joining machine knows the authority only by its fingerprint, and finds its certificate
        // here.
        chain_of.extend(chain(authority)?);
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(invalid)?;
        let certified = CertifiedKey::from_der(chain_of, der, &provider()).map_err(invalid)?;
        Ok(Self {
            key: key.to_owned(),
            certificate: certificate.to_owned(),
            certified: Arc::new(certified),
            from,
            until,
        })
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(invalid)
}

fn time(time: &x509_parser::time::ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::super::pki::{Authority, Request};
    use super::super::role::Role;
    use super::*;

    #[test]
    fn a_certificate_for_the_old_key_does_not_replace_that_of_a_machine_that_joined_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(&dir.path().join("server")).expect("a folder");
        let role = Role::Agent("a".to_owned());
        let issue = || authority.issue(&role).expect("credentials");
        let folder = dir.path().join("identity");
        issue().store(&folder).expect("a folder");
        let identity = Identity::load(&folder).expect("it was stored");
        let again = issue();
        again.store(&folder).expect("a folder");

        let request = Request::make(&identity.key()).expect("a key");
        let request = Request::parse(&request).expect("a request");
        let renewed = authority.sign(&role, &request).expect("a certificate");
        identity.replace(&renewed).expect("it is whole");

        let kept = Credentials::load(&folder).expect("it is whole");
        assert_eq!(kept.certificate, again.certificate);
        assert_eq!(identity.key(), again.key);
    }
}
