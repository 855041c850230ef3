//! `doctor` as a person or a script uses it.

use crate::shop::{Ran, Shop};
use rustix::process::{Resource, getrlimit, prlimit};
use serde_json::Value;

#[test]
fn doctor_says_of_a_fleet_that_is_well_that_it_is() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.wait_until(|status| status["instances"]["b"].is_object());
    shop.run(&["deploy", "--version", "v1"]).ended(0);

    let ran = shop.run(&["doctor", "--json"]);

    assert_eq!(problems(&ran), [""; 0], "{ran}");
    assert_eq!(ran.code, 0, "{ran}");
    let findings = findings(&ran);
    for check in [
        "agent",
        "clock offset",
        "proxy",
        "kernel",
        "port",
        "certificate",
    ] {
        for instance in ["a", "b"] {
            let there = findings
                .iter()
                .any(|f| f["check"] == check && f["instance"] == instance && f["level"] == "ok");
            assert!(there, "no `{check}` of `{instance}`: {ran}");
        }
    }
    let same = findings
        .iter()
        .find(|f| f["check"] == "greenlight versions");
    assert_eq!(same.expect("it is checked")["level"], "ok", "{ran}");
    // Its proxy listens once for each thread, and is one process.
    let users = findings.iter().find_map(|finding| {
        let found = finding["found"].as_str()?;
        found.contains(" for users is held by ").then_some(found)
    });
    let users = users.expect("it is checked");
    assert_eq!(users.matches("(process ").count(), 1, "{users}");
    let text = shop.run(&["doctor"]);
    let last = text.data.lines().last().unwrap_or_default();
    assert!(last.starts_with("0 problems, "), "{text}");
    let local = shop.run(&["doctor", "--local", "--json"]);
    assert_eq!(problems(&local), [""; 0], "{local}");
}

#[test]
fn doctor_names_the_process_that_has_taken_a_slots_port() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.wait_until(|status| status["instances"]["b"].is_object());
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    let taken = shop.take_port(3);
    let port = taken.local_addr().expect("it listens").port();

    let ran = shop.run(&["doctor", "--json"]);

    assert_eq!(ran.code, 1, "{ran}");
    let name = std::fs::read_to_string("/proc/self/comm").expect("it has a name");
    let (name, own) = (name.trim(), std::process::id());
    let expected = format!("b: {port} for shop/green is taken by `{name}` (process {own})");
    assert_eq!(problems(&ran), [expected], "{ran}");
}

#[test]
fn doctor_says_which_agent_is_down_and_which_proxy_may_open_too_few_files() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.wait_until(|status| status["instances"]["a"].is_object());
    // Its supervisor starts it again; without an identity it ends each time.
    let identity = shop.dir().join(".greenlight/instances/b/identity");
    std::fs::rename(&identity, identity.with_extension("away")).expect("it is there");
    shop.kill_agent("b");
    shop.wait_until(|status| status["instances"]["b"].is_null());
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(512);
    prlimit(Some(shop.pid("proxy-a")), Resource::Nofile, limit).expect("it is ours");

    let ran = shop.run(&["doctor", "--json"]);

    assert_eq!(ran.code, 1, "{ran}");
    let problems = problems(&ran);
    assert_eq!(problems.len(), 2, "{ran}");
    assert!(
        problems[0].starts_with("a: the proxy may open 512 "),
        "{ran}"
    );
    assert_eq!(problems[1], "b: not connected");
}

#[test]
fn doctor_without_a_server_says_so_and_still_looks_at_this_machine() {
    let shop = Shop::new();
    let bare = shop.run(&["doctor", "--local", "--json"]);
    assert!(
        bare.data.contains("there is no `greenlight.yml` here"),
        "{bare}"
    );
    shop.configure("");
    let _taken = shop.take_port(0);

    let ran = shop.run(&["doctor", "--json"]);

    assert_eq!(ran.code, 1, "{ran}");
    let problems = problems(&ran);
    assert!(
        problems[0].starts_with("fleet: the fleet cannot be asked"),
        "{ran}"
    );
    assert!(problems[1].contains("for shop/blue is taken by"), "{ran}");
    let unknown = shop.run(&["doctor", "--instance", "z"]);
    assert_eq!(unknown.code, 2, "{unknown}");
    // Before setup there is no server to be missed.
    let local = shop.run(&["doctor", "--local", "--instance", "b"]);
    assert_eq!(local.code, 0, "{local}");
}

#[test]
fn doctor_says_of_an_instance_that_the_server_does_not_know_what_to_do() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    let path = shop.dir().join("greenlight.yml");
    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, text.replace("name: b,", "name: c,")).expect("a folder");

    let ran = shop.run(&["doctor", "--json"]);

    assert_eq!(ran.code, 1, "{ran}");
    let problems = problems(&ran).join("\n");
    assert!(problems.contains("`c` is in `servers`"), "{ran}");
    assert!(problems.contains("the server knows `b`"), "{ran}");
}

#[test]
fn doctor_says_that_a_docker_daemon_is_not_reachable() {
    let shop = Shop::new();
    shop.configure_for("image: example.com/shop", "proxy: { app_port: 80 }\n");

    let mut command = shop.command(&["doctor", "--local", "--json"]);
    let output = command
        .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
        .output();

    let output = output.expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("`unix:///nowhere/docker.sock` does not answer"),
        "{text}"
    );
}

#[test]
#[ignore = "needs docker"]
fn doctor_says_what_a_docker_daemon_is_that_answers() {
    let shop = Shop::new();
    shop.configure_for("image: example.com/shop", "proxy: { app_port: 80 }\n");

    let ran = shop.run(&["doctor", "--local", "--json"]);

    let findings = findings(&ran);
    let of = |check: &str| {
        let found = findings.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("no `{check}`: {ran}"))["level"].clone()
    };
    assert_eq!(of("docker"), "ok", "{ran}");
    assert_eq!(of("live-restore"), "note", "{ran}");
    assert_eq!(of("disk of images"), "ok", "{ran}");
}

fn findings(ran: &Ran) -> Vec<Value> {
    let document: Value =
        serde_json::from_str(&ran.data).unwrap_or_else(|error| panic!("{error}: {ran}"));
    document["findings"].as_array().cloned().unwrap_or_default()
}

/// `instance: fact` of each problem.
fn problems(ran: &Ran) -> Vec<String> {
    let findings = findings(ran).into_iter();
    let problems = findings.filter(|finding| finding["level"] == "problem");
    problems
        .map(|finding| {
            assert!(finding["todo"].is_string(), "nothing to do: {finding}");
            let instance = finding["instance"].as_str().unwrap_or("fleet");
            format!(
                "{instance}: {}",
                finding["found"].as_str().unwrap_or_default()
            )
        })
        .collect()
}
