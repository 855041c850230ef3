//! Health checks go on for as long as a release is live.

use crate::shop::{Ran, Shop};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;

#[test]
fn a_release_whose_check_begins_to_fail_in_the_watch_is_taken_back_and_it_says_why() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    let unwell = configure_unwell_on_b(&shop, "watch: 1h\n");
    let deploy = shop
        .command(&["deploy", "--version", "v2", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    shop.wait_until(|status| status["deployment"]["phase"] == "watching");
    assert_eq!(shop.serves(), ["v2", "v2"]);

    std::fs::write(&unwell, "").expect("a folder");
    let ended = Ran::from(deploy.wait_with_output().expect("it ends"));

    assert_eq!(ended.code, 1, "{ended}");
    let receipt: Value = serde_json::from_str(&ended.data).expect("one document");
    assert_eq!(receipt["outcome"]["outcome"], "rolled_back", "{ended}");
    for part in [
        "instance `b`",
        "its check on `/up` does not pass",
        // The last answers of the check, and the last lines of the application.
        "500 (3 times)",
        "v2 listens on",
        "its check fails, as told",
    ] {
        assert!(ended.talk.contains(part), "`{part}` is not in {ended}");
    }
    assert_eq!(shop.serves(), ["v1", "v1"]); // G2
}

#[test]
fn a_live_release_is_told_as_not_healthy_while_its_check_fails_also_after_its_agent_died() {
    let shop = Shop::new();
    let unwell = configure_unwell_on_b(&shop, "");
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    shop.wait_until(|status| healthy(status) == ["yes", "yes"]);

    std::fs::write(&unwell, "").expect("a folder");
    shop.wait_until(|status| healthy(status) == ["yes", "no"]);
    let status = shop.run(&["status"]).data;
    let of = |name: &str| status.lines().find(|line| line.trim().starts_with(name));
    assert!(
        of("a ").is_some_and(|line| line.contains(", healthy)")),
        "{status}"
    );
    assert!(
        of("b ").is_some_and(|line| line.contains("NOT HEALTHY")),
        "{status}"
    );
    // Nobody is there to go back to: what is live goes on serving.
    assert_eq!(shop.serves(), ["v1", "v1"]);

    std::fs::remove_file(&unwell).expect("it is there");
    shop.wait_until(|status| healthy(status) == ["yes", "yes"]);

    let before = shop.pid("agent-b");
    shop.kill_agent("b");
    shop.wait_until(|status| shop.pid("agent-b") != before && healthy(status) == ["yes", "yes"]);
    std::fs::write(&unwell, "").expect("a folder");
    shop.wait_until(|status| healthy(status) == ["yes", "no"]);
    std::fs::remove_file(&unwell).expect("it is there");
    shop.wait_until(|status| healthy(status) == ["yes", "yes"]);
}

/// Writes `greenlight.yml` for the sample, often asked, whose check fails on instance `b` while
/// the file that this returns exists.
fn configure_unwell_on_b(shop: &Shop, added: &str) -> PathBuf {
    let unwell = shop.dir().join("unwell");
    let file = unwell.display();
    shop.configure(&format!(
        "proxy: {{ healthcheck: {{ interval: 100ms }} }}\n\
         env: {{ FAIL_CHECK_ON: b, FAIL_CHECK_WHILE: {file} }}\n\
         {added}"
    ));
    unwell
}

/// How the live application of each instance is told to be.
fn healthy(status: &Value) -> [&str; 2] {
    ["a", "b"].map(|name| {
        let healthy = &status["instances"][name]["live"]["shop"]["healthy"];
        healthy.as_str().unwrap_or("not told")
    })
}
