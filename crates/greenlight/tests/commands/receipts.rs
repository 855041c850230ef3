//! Receipts of real deployments, verified from their files alone.

use crate::shop::Shop;
use greenlight_link::receipt::verify;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long agents may take to tell what their gates saw.
const EVIDENCE_TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn a_receipt_verifies_from_its_file_and_every_changed_digit_is_found() {
    let shop = Shop::new();
    shop.configure("");
    let up = shop.up();
    for version in ["v1", "v2"] {
        let deployed = shop.run(&["deploy", "--version", version]);
        assert_eq!(deployed.code, 0, "{deployed}");
    }
    let receipt = whole_receipt(&shop);
    let text = serde_json::to_string(&receipt).expect("JSON");
    let authority = shop.dir().join(".greenlight/operator/ca.pem");
    let authority = authority.to_str().expect("the path is text");
    // Nobody is there to be asked.
    drop(up);

    let file = write(&shop, "receipt.json", &text);
    let verified = shop.run(&["receipt", "verify", &file, "--authority", authority]);
    assert_eq!(verified.code, 0, "{verified}");
    assert!(verified.data.contains("all borne out"), "{verified}"); // G1, G5
    assert!(
        verified.data.contains("signed by a server of that"),
        "{verified}"
    );
    let said = shop.json(&["--json", "receipt", "verify", &file, "--any-authority"]);
    assert_eq!(said["verified"], true, "{said}");
    assert_eq!(said["authority_compared"], false, "{said}");
    // Anybody can make an authority.
    let uncompared = shop.run(&["receipt", "verify", &file]);
    assert_eq!(uncompared.code, 1, "{uncompared}");
    assert!(uncompared.data.contains("--authority"), "{uncompared}");
    assert_eq!(said["deployment"], receipt["deployment"]);

    let mut changed = 0;
    for (at, digit) in text.match_indices(|letter: char| letter.is_ascii_digit()) {
        let other = match digit {
            "9" => "0".to_owned(),
            digit => (digit.parse::<u8>().expect("a digit") + 1).to_string(),
        };
        let mut text = text.clone();
        text.replace_range(at..=at, &other);
        let found = match verify(&text, None) {
            Ok(verified) => !verified.findings.is_empty(),
            Err(_) => true,
        };
        assert!(found, "{other} in place of {digit} at {at} is not found");
        changed += 1;
    }
    assert!(changed > 500, "{changed}");

    // The program says so, too, and what the evidence contradicts.
    let held = &receipt["cut_overs"][0]["instances"]["a"]["held_order"];
    let later = text.replacen(
        &format!("\"held_order\":{held}"),
        "\"held_order\":999999",
        1,
    );
    let file = write(&shop, "changed.json", &later);
    let refused = shop.run(&["receipt", "verify", &file]);
    assert_eq!(refused.code, 1, "{refused}");
    for said in ["it was changed", "NOT BORNE OUT: `a` had stopped admitting"] {
        assert!(refused.data.contains(said), "{refused}");
    }
    let other = Shop::new();
    other.configure("");
    let _up = other.up();
    let ca = other.dir().join(".greenlight/operator/ca.pem");
    let ca = ca.to_str().expect("the path is text");
    let file = write(&shop, "receipt.json", &text);
    let refused = shop.run(&["receipt", "verify", &file, "--authority", ca]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.data.contains("another fleet"), "{refused}");
}

#[test]
fn receipts_are_files_that_outlive_the_server_and_one_that_is_lost_says_what_is_missing() {
    let shop = Shop::new();
    shop.configure("");
    let up = shop.up();
    for version in ["v1", "v2"] {
        let deployed = shop.run(&["deploy", "--version", version]);
        assert_eq!(deployed.code, 0, "{deployed}");
    }
    let told = whole_receipt(&shop);
    let folder = shop.dir().join(".greenlight/server/receipts");
    let id = told["deployment"].as_str().expect("it has an id");
    let file = folder.join(format!("{id}.json"));
    let file = file.to_str().expect("the path is text");
    let deadline = Instant::now() + EVIDENCE_TIMEOUT;
    // What is written is what was answered, as soon as the disk has it.
    let verify = ["receipt", "verify", file, "--any-authority"];
    while shop.run(&verify).code != 0 {
        assert!(Instant::now() < deadline, "{}", shop.run(&verify));
    }
    assert_eq!(std::fs::read_dir(&folder).expect("it is there").count(), 2);

    kill_process(shop.pid("server"), Signal::KILL).expect("it runs");
    let again = whole_receipt(&shop);
    assert_eq!(again["cut_overs"], told["cut_overs"]);
    assert_eq!(again["outcome"], told["outcome"]);
    let history = shop.json(&["history", "--json"]);
    assert_eq!(history["deployments"].as_array().map(Vec::len), Some(2));
    assert!(
        history["deployments"][1]["cut_overs"].is_null(),
        "{history}"
    );

    drop(up);
    std::fs::remove_dir_all(&folder).expect("it is ours");
    let _up = shop.up();
    let text = shop.run(&["receipt"]).data;
    assert!(
        text.contains("NOT SHOWN: every gate was closed before"),
        "{text}"
    );
    assert!(text.contains("the server was restarted"), "{text}");
    let lost = shop.json(&["receipt", "--json"]);
    assert_eq!(lost["outcome"], told["outcome"]);
    let file = write(&shop, "lost.json", &lost.to_string());
    let refused = shop.run(&["receipt", "verify", &file]);
    assert_eq!(refused.code, 1, "{refused}");
}

#[test]
fn a_file_that_is_no_receipt_is_refused() {
    let shop = Shop::new();
    let file = write(&shop, "other.json", "{\"releases\": {}}");
    let refused = shop.run(&["receipt", "verify", &file]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(
        refused.talk.contains("is a receipt of format null"),
        "{refused}"
    );
    let missing = shop.run(&["receipt", "verify", "nowhere.json"]);
    assert_eq!(missing.code, 2, "{missing}");
}

/// The latest receipt when both gates have told all that they saw.
fn whole_receipt(shop: &Shop) -> Value {
    let deadline = Instant::now() + EVIDENCE_TIMEOUT;
    loop {
        // A server that is being started again does not answer yet.
        let receipt = shop.json(&["receipt", "--json"]);
        let instances = &receipt["cut_overs"][0]["instances"];
        if ["a", "b"]
            .iter()
            .all(|name| instances[name]["gate"].is_object())
        {
            return receipt;
        }
        assert!(Instant::now() < deadline, "{receipt:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn write(shop: &Shop, name: &str, text: &str) -> String {
    let path: PathBuf = shop.dir().join(name);
    std::fs::write(&path, text).expect("it is ours");
    path.to_str().expect("the path is text").to_owned()
}
