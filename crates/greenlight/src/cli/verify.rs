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
    /// Whether nothing was found.
    verified: bool,
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

/// `greenlight receipt verify`.
pub(super) fn verify_receipt(args: &VerifyArgs, output: Output) -> Result<Exit, Failure> {
    let text = read(&args.receipt)?;
    let authority = args.authority.as_deref().map(read).transpose()?;
    let verified = verify(&text, authority.as_deref()).map_err(|error| {
        Failure::new(Exit::Failed, error)
            .help("`greenlight receipt --json` prints a receipt as it can be verified")
    })?;
    match output {
        Output::Json => print_json(&document(&verified))?,
        Output::Text => print(&render(&verified, args.authority.is_some()))?,
    }
    Ok(match verified.findings.is_empty() {
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

fn document(verified: &Verification) -> VerifyDocument<'_> {
    let signed_by = verified.seal.as_ref().ok().map(|by| SignedByDocument {
        certificate: &by.certificate,
        authority: &by.authority,
    });
    VerifyDocument {
        deployment: &verified.receipt.deployment,
        verified: verified.findings.is_empty(),
        claims: verified.claims,
        signed_by,
        findings: &verified.findings,
    }
}

fn render(verified: &Verification, compared: bool) -> String {
    let mut text = String::new();
    // The document is somebody else's: what it says must not look like a line of this report.
    let mut line = |add: &str| writeln!(text, "{}", one_line(add)).expect("a string takes all");
    line(&format!("deployment {}", verified.receipt.deployment));
    if let Ok(by) = &verified.seal {
        line(&format!("  {}", signed(by, compared)));
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
    text
}

fn signed(by: &SignedBy, compared: bool) -> String {
    let fleet = match compared {
        true => "that authority",
        false => "an authority that was not compared (`--authority`)",
    };
    format!(
        "signed by a server of {fleet}: authority {}, certificate {}",
        by.authority, by.certificate
    )
}
