//! Signatures under documents that outlive a connection, by the key with which a role proves who it
//! is on the link.
//!
//! A signature is checked with the certificates beside it and nothing else. So it stays checkable
//! when the certificate has run out and was renewed; and it shows which fleet signed only to
//! somebody who knows the authority's certificate or its fingerprint.

use super::pki::{PkiError, fingerprint, invalid, provider};
use super::role::Role;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The one way in which Greenlight's keys sign.
const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// Signs with the certificate that a process shows at present.
pub struct DocumentSigner {
    /// The authority's certificate, PEM.
    pub authority: String,
    /// The signer's certificate, PEM.
    pub certificate: String,
    pub(super) certified: Arc<CertifiedKey>,
}

/// Who signed a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy {
    /// The role that the certificate gives.
    pub role: Role,
    /// The certificate's fingerprint.
    pub certificate: String,
    /// The fingerprint of the authority that issued it.
    pub authority: String,
}

impl DocumentSigner {
    /// The signature of these bytes.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let signer = self.certified.key.choose_scheme(&[SCHEME]);
        let signer = signer.ok_or_else(|| invalid("its key does not sign documents"))?;
        signer.sign(message).map_err(invalid)
    }
}

impl SignedBy {
    /// Checks the signature of these bytes, and that the authority issued the certificate.
    pub fn check(
        authority: &str,
        certificate: &str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<Self, PkiError> {
        let issuer = CertificateDer::from_pem_slice(authority.as_bytes()).map_err(invalid)?;
        let (_, issuer) = X509Certificate::from_der(&issuer).map_err(invalid)?;
        let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(invalid)?;
        let role = Role::of(&leaf).ok_or_else(|| invalid("it gives no role"))?;
        let (_, leaf) = X509Certificate::from_der(&leaf).map_err(invalid)?;
        let issued = &leaf.signature_value.data;
        if !is_signed_by(&issuer, leaf.tbs_certificate.as_ref(), issued) {
            return Err(invalid("the authority did not issue it"));
        }
        if !is_signed_by(&leaf, message, signature) {
            return Err(invalid("its key did not make the signature"));
        }
        Ok(Self {
            role,
            certificate: fingerprint(certificate)?,
            authority: fingerprint(authority)?,
        })
    }
}

fn is_signed_by(signer: &X509Certificate<'_>, message: &[u8], signature: &[u8]) -> bool {
    let key = &signer.tbs_certificate.subject_pki.subject_public_key.data;
    let provider = provider();
    let known = provider.signature_verification_algorithms.mapping.iter();
    let mut algorithms = known
        .filter(|(scheme, _)| *scheme == SCHEME)
        .flat_map(|(_, algorithms)| algorithms.iter());
    algorithms.any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Identity};

    #[test]
    fn a_signature_shows_who_signed_and_no_other_bytes_or_certificates_fit_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = |name: &str| Authority::open(&dir.path().join(name)).expect("a folder");
        let identity = |authority: &Authority, role| {
            let credentials = authority.issue(&role).expect("credentials");
            Identity::new(&credentials).expect("they are whole")
        };
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let signer = identity(&ours, Role::Server).signer();
        let other = identity(&ours, Role::Server).signer();
        let signature = signer.sign(b"a document").expect("it has a key");
        let check = |authority: &str, certificate: &str, message: &[u8]| {
            SignedBy::check(authority, certificate, message, &signature)
        };

        let by = check(ours.certificate(), &signer.certificate, b"a document");
        let by = by.expect("it is the signature");
        assert_eq!(by.role, Role::Server);
        assert_eq!(by.authority, fingerprint(ours.certificate()).expect("PEM"));
        check(ours.certificate(), &signer.certificate, b"a forgery").expect_err("other bytes");
        check(ours.certificate(), &other.certificate, b"a document").expect_err("another key");
        check(theirs.certificate(), &signer.certificate, b"a document").expect_err("not its own");
    }
}
