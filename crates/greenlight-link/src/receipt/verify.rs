//! Verifies a receipt's document from its text alone: the seal, and each statement against the
//! evidence beside it.
//!
//! Nothing is asked of a server. Every claim is judged again by the code that judged it when the
//! document was written, and every total is counted again.

use super::canonical::parse;
use super::document::{CutOverStatement, FORMAT, ReceiptDocument, Statement};
use super::seal::{SealError, check};
use super::{Check, Receipt};
use crate::{PkiError, SignedBy, fingerprint};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why a text is not a receipt.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not the JSON of a receipt.
    #[error("it is not a receipt: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It is a receipt of another version.
    #[error(
        "it is a receipt of format {found}, and this version of greenlight reads format {FORMAT}"
    )]
    Format {
        /// Its format.
        found: Value,
    },
    /// The certificate of the authority that it is compared with cannot be used.
    #[error(transparent)]
    Authority(#[from] PkiError),
}

/// What came of verifying a receipt.
#[derive(Debug)]
pub struct Verification {
    /// The receipt.
    pub receipt: Receipt,
    /// How many claims were judged again.
    pub claims: usize,
    /// Who signed it, or what is wrong with its seal.
    pub seal: Result<SignedBy, SealError>,
    /// What is wrong, each in a sentence: the seal, a statement that the evidence does not show, a
    /// claim that is not borne out, evidence that is missing. If there is none, all is well.
    pub findings: Vec<String>,
}

/// Verifies the text of a receipt. With `authority`, the certificate of a fleet's authority in PEM,
/// a server of that fleet must have signed it.
pub fn verify(text: &str, authority: Option<&str>) -> Result<Verification, VerifyError> {
    let document = parse(text)?;
    let found = document.get("format").cloned().unwrap_or_default();
    if found != FORMAT {
        return Err(VerifyError::Format { found });
    }
    let read = ReceiptDocument::read(&document)?;
    let mut findings = Vec::new();
    let seal = check(&document).and_then(|by| of_fleet(by, authority));
    if let Err(error) = &seal {
        findings.push(error.to_string());
    }
    let shown = Statement::of(&read.receipt);
    compare(&read.statement, &shown, &mut findings);
    for cut_over in &read.receipt.cut_overs {
        let mut again = cut_over.clone();
        again.measure();
        if again.aligned != cut_over.aligned {
            findings.push(format!(
                "cut-over {}: the stated window is not the one that the evidence gives",
                cut_over.epoch
            ));
        }
    }
    let broken = shown.claims().filter(|check| !check.holds);
    findings.extend(broken.map(Check::complaint));
    Ok(Verification {
        claims: shown.claims().count(),
        receipt: read.receipt,
        seal,
        findings,
    })
}

fn of_fleet(by: SignedBy, authority: Option<&str>) -> Result<SignedBy, SealError> {
    let expected = authority.map(fingerprint).transpose()?;
    if expected.is_some_and(|expected| expected != by.authority) {
        let found = by.authority;
        return Err(SealError::Authority { found });
    }
    Ok(by)
}

/// Adds a line for each statement that is not what the evidence shows.
fn compare(stated: &Statement, shown: &Statement, findings: &mut Vec<String>) {
    compare_claims("", &stated.claims, &shown.claims, findings);
    if stated.cut_overs.len() != shown.cut_overs.len() {
        findings.push(format!(
            "it states something of {} cut-overs, and has evidence of {}",
            stated.cut_overs.len(),
            shown.cut_overs.len()
        ));
    }
    for (stated, shown) in stated.cut_overs.iter().zip(&shown.cut_overs) {
        let place = format!("cut-over {}: ", shown.epoch);
        compare_claims(&place, &stated.claims, &shown.claims, findings);
        compare_figures(&place, stated, shown, findings);
    }
}

fn compare_claims(place: &str, stated: &[Check], shown: &[Check], findings: &mut Vec<String>) {
    let by_sentence = |checks: &[Check]| -> BTreeMap<String, (bool, Option<String>)> {
        let checks = checks.iter();
        let checks = checks.map(|c| (c.claim.clone(), (c.holds, c.missing.clone())));
        checks.collect()
    };
    let (stated, shown) = (by_sentence(stated), by_sentence(shown));
    for (claim, judged) in &stated {
        match shown.get(claim) {
            None => findings.push(format!(
                "{place}the evidence says nothing of this claim: {claim}"
            )),
            Some(again) if again != judged => {
                let said = |holds: bool| match holds {
                    true => "borne out",
                    false => "not borne out",
                };
                findings.push(format!(
                    "{place}stated as {}, and {} by the evidence: {claim}",
                    said(judged.0),
                    said(again.0)
                ));
            }
            Some(_) => {}
        }
    }
    for claim in shown.keys().filter(|claim| !stated.contains_key(*claim)) {
        findings.push(format!("{place}a claim is left out: {claim}"));
    }
}

fn compare_figures(
    place: &str,
    stated: &CutOverStatement,
    shown: &CutOverStatement,
    findings: &mut Vec<String>,
) {
    let figures = |statement: &CutOverStatement| {
        let mut figures = serde_json::to_value(statement).expect("plain data serialises");
        let totals = figures["totals"].take();
        let mut figures = figures.as_object().cloned().unwrap_or_default();
        for done in ["claims", "totals"] {
            figures.remove(done);
        }
        figures.extend(totals.as_object().cloned().unwrap_or_default());
        figures
    };
    let (stated, shown) = (figures(stated), figures(shown));
    for (name, figure) in &shown {
        let said = stated.get(name).unwrap_or(&Value::Null);
        if said != figure {
            findings.push(format!(
                "{place}`{name}` is stated as {said}, and the evidence gives {figure}"
            ));
        }
    }
    for name in stated.keys().filter(|name| !shown.contains_key(*name)) {
        findings.push(format!(
            "{place}`{name}` is stated, and the evidence does not give it"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::receipt;
    use super::*;
    use crate::{Authority, Identity, Role};
    use serde_json::json;

    #[test]
    fn a_receipt_that_nobody_changed_verifies_and_says_who_signed() {
        let fleet = Fleet::new();
        let text = fleet.write(&receipt());

        let verified = verify(&text, Some(fleet.authority.certificate())).expect("a receipt");
        assert_eq!(verified.findings, [""; 0]);
        assert_eq!(verified.claims, 1 + 2 * 4 + 1 + 2 * 2);
        let by = verified.seal.expect("it is signed");
        assert_eq!(by.role, Role::Server);
        // The layout of the file does not count.
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let pretty = serde_json::to_string_pretty(&document).expect("JSON");
        assert!(findings(&pretty).is_empty());
    }

    #[test]
    fn every_digit_that_is_changed_is_found() {
        let text = Fleet::new().write(&receipt());
        let digits = text.match_indices(|letter: char| letter.is_ascii_digit());
        let mut changed = 0;
        for (at, digit) in digits {
            for other in ["0", "1", "5", "9"] {
                if other == digit {
                    continue;
                }
                let mut text = text.clone();
                text.replace_range(at..=at, other);
                assert!(!findings(&text).is_empty(), "{other} for {digit} at {at}");
                changed += 1;
            }
        }
        assert!(changed > 1_500, "{changed}");
    }

    #[test]
    fn evidence_that_contradicts_the_claims_is_found_though_the_seal_is_good() {
        let fleet = Fleet::new();
        let changes = [
            (
                "/cut_overs/0/instances/a/held_order",
                json!(12),
                "before the commit",
            ),
            (
                "/cut_overs/0/instances/b/switch_order",
                json!(9),
                "told to switch",
            ),
            (
                "/cut_overs/0/instances/a/readings/commit_ns",
                json!(6_000_000_000_u64),
                "opened its gate after",
            ),
            (
                "/cut_overs/0/instances/a/gate/services/shop/last_admission_old_ns",
                json!(5_010_000_000_u64),
                "kept its gate closed",
            ),
            (
                "/cut_overs/0/instances/a/gate/services/shop/expired",
                json!(true),
                "kept its gate closed",
            ),
            (
                "/cut_overs/0/instances/a/gate/services/shop/first_admission_new_ns",
                json!(5_029_000_000_u64),
                "kept its gate closed",
            ),
            (
                "/cut_overs/0/instances/b/held_ns",
                json!(1_021_000_000_u64),
                "times agree",
            ),
            (
                "/cut_overs/0/committed_ns",
                json!(1_033_000_000_u64),
                "times agree",
            ),
            (
                "/cut_overs/0/instances/b/switched/opened_at_ns",
                json!(1),
                "reports of `b`",
            ),
            (
                "/cut_overs/0/instances/b/retired/requests",
                json!(3),
                "cut nothing off",
            ),
            (
                "/cut_overs/0/instances/b/gate/services/shop/failed",
                json!(3),
                "`failed` is stated as 0",
            ),
            (
                "/cut_overs/0/completed_ns",
                json!(1_050_000_000_u64),
                "`hold_us` is stated",
            ),
            (
                "/cut_overs/0/direction",
                json!("back"),
                "ended as its cut-overs did",
            ),
        ];
        for (place, value, told) in changes {
            let text = fleet.reseal(&receipt(), |document| {
                *document.pointer_mut(place).expect(place) = value.clone();
            });
            let found = findings(&text);
            assert!(
                found.iter().any(|line| line.contains(told)),
                "{place}: {found:?}"
            );
        }
    }

    #[test]
    fn evidence_that_is_missing_is_a_line_for_each_claim_that_needs_it() {
        let fleet = Fleet::new();
        for (part, claims) in [("gate", 2), ("readings", 1), ("held", 1)] {
            let mut receipt = receipt();
            let a = receipt.cut_overs[0].instances.get_mut(&"a".into());
            let a = a.expect("it is there");
            match part {
                "gate" => a.gate = None,
                "readings" => a.readings = None,
                _ => a.held = None,
            }
            // The server states it like that itself: the document is whole, and still not proof.
            let found = findings(&fleet.write(&receipt));
            assert_eq!(found.len(), claims, "{part}: {found:?}");
            for line in found {
                assert!(line.starts_with("NOT SHOWN: `a` "), "{line}");
            }
        }
    }

    #[test]
    fn a_statement_that_is_left_out_or_made_up_is_found() {
        let fleet = Fleet::new();
        let text = fleet.reseal(&receipt(), |document| {
            let claims = document.pointer_mut("/statement/cut_overs/0/claims");
            let claims = claims
                .and_then(Value::as_array_mut)
                .expect("they are there");
            claims.remove(0);
            claims.push(json!({"claim": "all users are happy", "holds": true}));
        });
        let found = findings(&text).join("\n");
        assert!(
            found.contains("a claim is left out: `a` had stopped"),
            "{found}"
        );
        assert!(
            found.contains("nothing of this claim: all users are happy"),
            "{found}"
        );
    }

    #[test]
    fn only_a_server_of_the_fleet_can_sign() {
        let (fleet, other) = (Fleet::new(), Fleet::new());
        let text = other.write(&receipt());
        let verified = verify(&text, Some(fleet.authority.certificate())).expect("a receipt");
        assert!(
            verified.findings[0].contains("another fleet"),
            "{:?}",
            verified.findings
        );

        let unsigned = ReceiptDocument::write(&receipt(), None).expect("a receipt");
        assert_eq!(findings(&unsigned), ["it is not signed"]);

        let agent = fleet.identity(&Role::Agent("a".to_owned()));
        let by_agent = ReceiptDocument::write(&receipt(), Some(&agent.signer()));
        let found = findings(&by_agent.expect("it has a key"));
        assert!(found[0].contains("which is no server"), "{found:?}");
    }

    #[test]
    fn what_is_no_receipt_of_this_format_is_refused() {
        for text in [
            "",
            "{}",
            "{\"format\": 2}",
            "{\"format\": 1, \"format\": 1}",
        ] {
            verify(text, None).expect_err(text);
        }
        let text = Fleet::new().write(&receipt());
        let twice = text.replacen('{', "{\"deployment\":\"another\",", 1);
        verify(&twice, None).expect_err("a key is there twice");
    }

    fn findings(text: &str) -> Vec<String> {
        match verify(text, None) {
            Ok(verified) => verified.findings,
            Err(error) => vec![error.to_string()],
        }
    }

    /// A fleet with a server that signs.
    struct Fleet {
        _dir: tempfile::TempDir,
        authority: Authority,
        server: Identity,
    }

    impl Fleet {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let authority = Authority::open(dir.path()).expect("a folder");
            let credentials = authority.issue(&Role::Server).expect("credentials");
            Self {
                _dir: dir,
                server: Identity::new(&credentials).expect("they are whole"),
                authority,
            }
        }

        fn identity(&self, role: &Role) -> Identity {
            let credentials = self.authority.issue(role).expect("credentials");
            Identity::new(&credentials).expect("they are whole")
        }

        fn write(&self, receipt: &Receipt) -> String {
            let signer = self.server.signer();
            ReceiptDocument::write(receipt, Some(&signer)).expect("it has a key")
        }

        /// Somebody who has the key changes the document and seals it again.
        fn reseal(&self, receipt: &Receipt, change: impl FnOnce(&mut Value)) -> String {
            let text = self.write(receipt);
            let mut document: Value = serde_json::from_str(&text).expect("JSON");
            change(&mut document);
            let signer = self.server.signer();
            let seal = super::super::seal::seal(&document, Some(&signer)).expect("it has a key");
            document["seal"] = serde_json::to_value(seal).expect("JSON");
            document.to_string()
        }
    }
}
