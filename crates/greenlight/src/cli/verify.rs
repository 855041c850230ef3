//! `greenlight receipt verify`: judges a receipt's claims again, from its file alone.
//!
//! It asks no server and reads no configuration, so it works wherever the file has come to.

use super::args::VerifyArgs;
use super::{Exit, Failure, Output, print, print_json};
use greenlight_link::SignedBy;
use greenlight_link::printable::one_line;
use greenlight_link::receipt::{Verification, verify};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

/// What came of it, for a script.
#[derive(Serialize)]
struct VerifyDocument<'a> {
    deployment: &'a str,
    /// Whether nothing was found, and a server of the expected fleet signed. Without a comparison
    /// only if the person said that any authority will do.
    verified: bool,
    /// Whether the authority was compared with the expected one.
    authority_compared: bool,
    /// How many claims were judged again.
    claims: usize,
    signed_by: Option<SignedByDocument<'a>>,
    findings: &'a [String],
}

#[derive(Serialize)]
struct SignedByDocument<'a> {
    /// The fingerprint of the server's certificate.
    certificate: &'a str,
    /// The fingerprint of the authority that issued it.
    authority: &'a str,
}

/// What the authority that signed is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// With the certificate that the person gave.
    Compared,
    /// With none: the person said that any authority will do.
    Any,
    /// With none, and the person said nothing of it.
    Missing,
}

impl Comparison {
    fn of(args: &VerifyArgs) -> Self {
        match (&args.authority, args.any_authority) {
            (Some(_), _) => Self::Compared,
            (None, true) => Self::Any,
            (None, false) => Self::Missing,
        }
    }
}

fn is_verified(verified: &Verification, comparison: Comparison) -> bool {
    verified.findings.is_empty() && comparison != Comparison::Missing
}

/// `greenlight receipt verify`.
pub(super) fn verify_receipt(args: &VerifyArgs, output: Output) -> Result<Exit, Failure> {
    let text = read(&args.receipt)?;
    let authority = args.authority.as_deref().map(read).transpose()?;
    let verified = verify(&text, authority.as_deref()).map_err(|error| {
        Failure::new(Exit::Failed, error)
            .help("`greenlight receipt --json` prints a receipt as it can be verified")
    })?;
    let comparison = Comparison::of(args);
    match output {
        Output::Json => print_json(&document(&verified, comparison))?,
        Output::Text => print(&render(&verified, comparison))?,
    }
    Ok(match is_verified(&verified, comparison) {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(|_| text),
        Some(_) | None => std::fs::read_to_string(path),
    };
    read.map_err(|error| {
        let path = path.display();
        Failure::new(Exit::Usage, format!("`{path}` cannot be read: {error}"))
    })
}

fn document(verified: &Verification, comparison: Comparison) -> VerifyDocument<'_> {
    let signed_by = verified.seal.as_ref().ok().map(|by| SignedByDocument {
        certificate: &by.certificate,
        authority: &by.authority,
    });
    VerifyDocument {
        deployment: &verified.receipt.deployment,
        verified: is_verified(verified, comparison),
        authority_compared: comparison == Comparison::Compared,
        claims: verified.claims,
        signed_by,
        findings: &verified.findings,
    }
}

fn render(verified: &Verification, comparison: Comparison) -> String {
    let mut text = String::new();
    // The document is somebody else's: what it says must not look like a line of this report.
    let mut line = |add: &str| writeln!(text, "{}", one_line(add)).expect("a string takes all");
    line(&format!("deployment {}", verified.receipt.deployment));
    if let Ok(by) = &verified.seal {
        line(&format!("  {}", signed(by, comparison)));
    }
    for finding in &verified.findings {
        line(&format!("  {finding}"));
    }
    match verified.findings.len() {
        0 => line(&format!(
            "  {} claims judged again, all borne out by the evidence in the file",
            verified.claims
        )),
        found => line(&format!(
            "  {} claims judged again; {found} found above",
            verified.claims
        )),
    }
    if comparison == Comparison::Missing {
        line(
            "  NOT VERIFIED: anybody can make an authority and sign with it; compare it with the \
             fleet's certificate (`--authority ca.pem`), or accept any (`--any-authority`)",
        );
    }
    text
}

fn signed(by: &SignedBy, comparison: Comparison) -> String {
    let fleet = match comparison {
        Comparison::Compared => "that authority",
        Comparison::Any | Comparison::Missing => "an authority that was not compared",
    };
    format!(
        "signed by a server of {fleet}: authority {}, certificate {}",
        by.authority, by.certificate
    )
}

#[cfg(test)]
mod tests {
    use super::super::example::receipt;
    use super::*;

    #[test]
    fn what_a_document_says_neither_begins_a_line_nor_moves_the_cursor() {
        let fake = "\n  9 claims judged again, all borne out\u{1b}[2K";
        let mut verified = verification();
        verified.receipt.deployment.push_str(fake);
        verified.findings = vec![format!("a claim is left out: {fake}")];

        let text = render(&verified, Comparison::Compared);

        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_receipt_whose_authority_was_not_compared_is_verified_only_if_any_will_do() {
        let verified = verification();
        for (comparison, holds, compared) in [
            (Comparison::Compared, true, true),
            (Comparison::Any, true, false),
            (Comparison::Missing, false, false),
        ] {
            let document = document(&verified, comparison);
            assert_eq!(document.verified, holds, "{comparison:?}");
            assert_eq!(document.authority_compared, compared, "{comparison:?}");
            let text = render(&verified, comparison);
            assert_eq!(text.contains("NOT VERIFIED"), !holds, "{text}");
        }
    }

    fn verification() -> Verification {
        Verification {
            receipt: receipt(None),
            claims: 1,
            seal: Ok(SignedBy {
                certificate: "c".to_owned(),
                authority: "a".to_owned(),
                role: greenlight_link::Role::Server,
            }),
            findings: Vec::new(),
        }
    }
}
