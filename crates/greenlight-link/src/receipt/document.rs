//! A receipt as a document: the evidence, what its writer says that it shows, and a seal over both.
//!
//! The server writes this document, the API answers with it, and `greenlight receipt --json` prints
//! it. What it says is repeated from the evidence, so a reader can compare the two
//! ([`verify`](super::verify())).

use super::seal::{Seal, seal};
use super::{Check, CutOverReceipt, MixedWindow, Receipt};
use crate::{DocumentSigner, PkiError};
use greenlight_protocol::{Epoch, InstanceId, ServiceEvidence};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of the form in which receipts are written.
pub const FORMAT: u32 = 1;

/// A receipt as a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptDocument {
    /// The version of its form: [`FORMAT`].
    pub format: u32,
    /// The evidence.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// What the evidence shows, says its writer.
    pub statement: Statement,
    /// What a change of the document breaks.
    pub seal: Seal,
}

/// What the evidence of a deployment shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The claims about the deployment as a whole.
    pub claims: Vec<Check>,
    /// What the evidence of each cut-over shows, in order.
    pub cut_overs: Vec<CutOverStatement>,
}

/// What the evidence of a cut-over shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOverStatement {
    pub epoch: Epoch,
    /// The claims of the barrier, and about the account of it.
    pub claims: Vec<Check>,
    /// Whether old and new may have been served side by side; nothing if the cut-over switched
    /// nothing, or has no gates.
    pub window: Option<MixedWindow>,
    /// By instance: how long it served the old release after its hold had run out, at most, in
    /// microseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub served_old_us: BTreeMap<InstanceId, Option<u64>>,
    /// What the gates counted, together.
    pub totals: Totals,
}

/// What the gates of a cut-over counted, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// From the first `Hold` sent to the last switch confirmed, in microseconds.
    pub hold_us: Option<u64>,
    /// Requests that waited.
    pub held: u64,
    /// The longest wait, in microseconds.
    pub longest_wait_us: u64,
    /// Requests that were taken back before they were sent.
    pub recalled: u64,
    /// Requests sent again because the application died under them.
    pub retried: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that the gates answered 503.
    pub shed: u64,
}

impl ReceiptDocument {
    /// The text of a receipt's document, signed if there is somebody to sign.
    pub fn write(receipt: &Receipt, signer: Option<&DocumentSigner>) -> Result<String, PkiError> {
        let unsealed = Self {
            format: FORMAT,
            receipt: receipt.clone(),
            statement: Statement::of(receipt),
            seal: Seal::default(),
        };
        let mut document = serde_json::to_value(unsealed).expect("a receipt serialises");
        let sealed = seal(&document, signer)?;
        document["seal"] = serde_json::to_value(sealed).expect("a seal serialises");
        Ok(document.to_string())
    }

    /// Reads a document as a program does that only shows it: without checking its seal.
    pub fn read(document: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(document)
    }
}

impl Statement {
    /// What this evidence shows.
    pub fn of(receipt: &Receipt) -> Self {
        Self {
            claims: receipt.account(),
            cut_overs: receipt.cut_overs.iter().map(CutOverStatement::of).collect(),
        }
    }

    /// All claims.
    pub fn claims(&self) -> impl Iterator<Item = &Check> {
        let of_cut_overs = self.cut_overs.iter().flat_map(|its| &its.claims);
        self.claims.iter().chain(of_cut_overs)
    }
}

impl CutOverStatement {
    fn of(cut_over: &CutOverReceipt) -> Self {
        let mut claims = cut_over.checks();
        claims.extend(cut_over.account());
        let served_old = cut_over.served_old().into_iter();
        Self {
            epoch: cut_over.epoch,
            claims,
            window: cut_over.mixed_window(),
            served_old_us: served_old.map(|(name, us)| (name.clone(), us)).collect(),
            totals: cut_over.totals(),
        }
    }
}

impl CutOverReceipt {
    /// What the gates counted, together.
    pub fn totals(&self) -> Totals {
        let sum = |count: fn(&ServiceEvidence) -> u64| {
            self.gates().map(count).fold(0, u64::saturating_add)
        };
        let hold_ns = self.completed_ns.zip(self.hold_sent_ns);
        let hold_ns = hold_ns.map(|(completed, sent)| completed.saturating_sub(sent));
        Totals {
            hold_us: hold_ns.map(|ns| ns / 1000),
            held: sum(|seen| seen.held),
            longest_wait_us: self.max_held_us(),
            recalled: sum(|seen| seen.recalled),
            retried: sum(|seen| seen.retried),
            failed: sum(|seen| seen.failed),
            shed: sum(|seen| seen.shed),
        }
    }
}
