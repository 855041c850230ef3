//! The seal of a document: a digest of its one spelling, and the server's signature of the same.
//!
//! The digest finds damage and careless editing, because anybody can compute another one. The
//! signature finds a forger who has not the server's key. Neither says that the server told the
//! truth: who has the server's key can sign anything.

use super::canonical::spell;
use crate::{DocumentSigner, PkiError, SignedBy};
use greenlight_release::digest::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The parts of a seal that cannot be sealed themselves.
const NOT_SEALED: [&str; 2] = ["digest", "signature"];

/// What a change of the document breaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The SHA-256 of the document without this and the signature: keys sorted, no space.
    pub digest: String,
    /// The signature of the same text: ECDSA with P-256 and SHA-256, DER in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The certificate of the server that signed, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The certificate of the fleet's authority, which issued that one, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// What is wrong with a seal.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is none.
    #[error("it has no seal")]
    None,
    /// The document is not the one that was sealed.
    #[error("it was changed: its digest is {found}, and {stated} was sealed")]
    Changed {
        /// That of the document as it is.
        found: String,
        /// That in the seal.
        stated: String,
    },
    /// Nobody vouches for it.
    #[error("it is not signed")]
    Unsigned,
    /// The signature is not what it should be.
    #[error("its signature is not good: {0}")]
    Signature(#[from] PkiError),
    /// Somebody signed who is no server.
    #[error("it was signed by `{0}`, which is no server")]
    Signer(String),
    /// The server of another fleet signed.
    #[error("it was signed by a server of another fleet, whose authority is {found}")]
    Authority {
        /// The fingerprint of that fleet's authority.
        found: String,
    },
}

/// Seals a document.
pub(super) fn seal(document: &Value, signer: Option<&DocumentSigner>) -> Result<Seal, PkiError> {
    let mut seal = Seal {
        certificate: signer.map(|signer| signer.certificate.clone()),
        authority: signer.map(|signer| signer.authority.clone()),
        ..Seal::default()
    };
    let mut document = document.clone();
    document["seal"] = json!(seal);
    let text = sealed_text(document);
    seal.digest = sha256_hex(text.as_bytes());
    if let Some(signer) = signer {
        seal.signature = Some(hex(&signer.sign(text.as_bytes())?));
    }
    Ok(seal)
}

/// Checks the seal of a document, and returns who signed it.
pub(super) fn check(document: &Value) -> Result<SignedBy, SealError> {
    let stated = document.get("seal").cloned().ok_or(SealError::None)?;
    let stated: Seal = serde_json::from_value(stated).map_err(|_| SealError::None)?;
    let text = sealed_text(document.clone());
    let found = sha256_hex(text.as_bytes());
    if found != stated.digest {
        let stated = stated.digest;
        return Err(SealError::Changed { found, stated });
    }
    let (Some(signature), Some(certificate), Some(authority)) =
        (&stated.signature, &stated.certificate, &stated.authority)
    else {
        return Err(SealError::Unsigned);
    };
    // What is not hexadecimal is no signature either.
    let signature = from_hex(signature).unwrap_or_default();
    let by = SignedBy::check(authority, certificate, text.as_bytes(), &signature)?;
    match &by.role {
        crate::Role::Server => Ok(by),
        other @ (crate::Role::Agent(_) | crate::Role::Operator) => {
            Err(SealError::Signer(other.dns_name()))
        }
    }
}

/// What is sealed of a document: everything but the digest and the signature.
fn sealed_text(mut document: Value) -> String {
    if let Some(Value::Object(seal)) = document.get_mut("seal") {
        for part in NOT_SEALED {
            seal.remove(part);
        }
    }
    spell(&document)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    let bytes = digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]);
    bytes.map(|byte| u8::try_from(byte).ok()).collect()
}
