//! What `doctor` says of a real Nginx that is set up, and of one that is not.

use crate::fleet::NginxFleet;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn doctor_says_what_keeps_nginx_from_the_gate() {
    let fleet = NginxFleet::start("nginx").await;
    fleet.deploy("v1").ended(0);
    let well = problems(&fleet);
    assert_eq!(well, [""; 0]);

    let gate = fleet.dir().join(".greenlight/instances/a/gate.sock");
    let mode = std::fs::metadata(&gate).expect("a socket").permissions();
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(&gate, closed).expect("it is ours");
    let closed = problems(&fleet);
    std::fs::set_permissions(&gate, mode).expect("it is ours");
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert!(
        closed[0].contains("a: nginx's workers may not connect"),
        "{closed:?}"
    );

    let server = fleet.nginx_dir(0).join("conf.d/shop.conf");
    let text = std::fs::read_to_string(&server).expect("a file");
    std::fs::remove_file(&server).expect("it is there");
    let unused = problems(&fleet);
    std::fs::write(&server, text).expect("a folder");
    assert_eq!(unused, ["a: no server passes requests to `shop`"]);

    let include = fleet.nginx_dir(1).join("conf.d/greenlight.conf");
    let text = std::fs::read_to_string(&include).expect("a file");
    std::fs::write(&include, text.replace("keepalive 64", "keepalive 9")).expect("a folder");
    let edited = problems(&fleet);
    assert_eq!(edited.len(), 1, "{edited:?}");
    assert!(edited[0].starts_with("b: ") && edited[0].ends_with("is not what greenlight wrote"));

    std::fs::remove_file(&include).expect("it is there");
    let missing = problems(&fleet);
    assert!(
        missing[0].ends_with("greenlight.conf` is not there"),
        "{missing:?}"
    );
    assert!(missing.iter().all(|problem| problem.starts_with("b: ")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn doctor_says_that_an_include_has_drifted_and_who_else_reloads_nginx() {
    let fleet = NginxFleet::start("nginx_reload").await;
    let hooks = fleet
        .dir()
        .join("root/etc/letsencrypt/renewal-hooks/deploy");
    std::fs::create_dir_all(&hooks).expect("a folder");
    let hook = hooks.join("nginx.sh");
    std::fs::write(&hook, "#!/bin/sh\nsystemctl reload nginx\n").expect("a folder");
    assert_eq!(problems(&fleet), [""; 0]);

    let document = fleet.json(&["--json", "doctor"]);
    let notes = texts(&document, "note");
    let named = format!("`{}` reloads nginx", hook.display());
    assert_eq!(
        notes.iter().filter(|note| note.contains(&named)).count(),
        2,
        "{notes:?}"
    );

    let config = fleet.dir().join("greenlight.yml");
    let text = std::fs::read_to_string(&config).expect("a file");
    let port = text
        .split("green: ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let port = port.expect("it names ports");
    std::fs::write(&config, text.replacen(port, "9", 1)).expect("a folder");
    let drifted = problems(&fleet);
    assert_eq!(drifted.len(), 1, "{drifted:?}");
    assert!(
        drifted[0].starts_with("a: ") && drifted[0].contains("is not as the file describes it")
    );
    assert!(
        drifted[0].contains(&format!("and {port}, not ")),
        "{drifted:?}"
    );
}

/// `instance: fact` of each problem.
fn problems(fleet: &NginxFleet) -> Vec<String> {
    texts(&fleet.json(&["--json", "doctor"]), "problem")
}

fn texts(document: &Value, level: &str) -> Vec<String> {
    let findings = document["findings"].as_array().expect("a list").iter();
    let wanted = findings.filter(|finding| finding["level"] == level);
    wanted
        .map(|finding| {
            let instance = finding["instance"].as_str().unwrap_or("fleet");
            format!(
                "{instance}: {}",
                finding["found"].as_str().unwrap_or_default()
            )
        })
        .collect()
}
