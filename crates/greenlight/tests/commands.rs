//! The commands as a person or a script uses them, with real processes.

#[path = "commands/doctor.rs"]
mod doctor;
#[path = "commands/documents.rs"]
mod documents;
#[path = "commands/github.rs"]
mod github;
#[path = "commands/health.rs"]
mod health;
#[path = "commands/operation.rs"]
mod operation;
#[path = "commands/ports.rs"]
mod ports;
#[path = "commands/receipts.rs"]
mod receipts;
#[path = "commands/refusals.rs"]
mod refusals;
#[path = "commands/runner.rs"]
mod runner;
#[path = "commands/services.rs"]
mod services;
#[path = "commands/shop.rs"]
mod shop;
#[path = "commands/terminal.rs"]
mod terminal;

use serde_json::Value;
use shop::Shop;

#[test]
fn a_new_user_gets_from_init_to_a_release_and_back() {
    let shop = Shop::new();
    let init = shop.run(&["init", "--service", "shop"]);
    assert_eq!(init.code, 0, "{init}");
    let again = shop.run(&["init"]);
    assert_eq!(again.code, 3, "{again}");
    assert!(again.talk.contains("is there already"), "{again}");

    shop.configure("");
    let up = shop.up();
    let plan = shop.run(&["plan", "--version", "v1"]);
    assert_eq!(plan.code, 0, "{plan}");
    assert!(plan.data.contains("shop: nothing -> v1"), "{plan}");

    let deployed = shop.run(&["deploy", "--version", "v1"]);
    assert_eq!(deployed.code, 0, "{deployed}");
    assert!(deployed.talk.contains("switched"), "{deployed}");
    assert_eq!(shop.serves(), ["v1", "v1"]);

    let prepared = shop.run(&["prepare", "--version", "v2"]);
    assert_eq!(prepared.code, 0, "{prepared}");
    assert_eq!(shop.serves(), ["v1", "v1"]);
    let same = shop.run(&["plan", "--version", "v2"]);
    assert_eq!(same.code, 0, "{same}");
    assert!(same.data.contains("`v2` is prepared; "), "{same}");
    let other = shop.run(&["plan", "--version", "v3"]);
    assert_eq!(other.code, 3, "{other}");
    let busy = "IN THE WAY: `v2` is being deployed by tester@";
    assert!(other.data.contains(busy), "{other}");
    let promoted = shop.json(&["promote", "--json"]);
    assert_eq!(promoted["outcome"]["outcome"], "promoted");
    assert_eq!(shop.serves(), ["v2", "v2"]);

    let elsewhere = shop.run(&["rollback", "--to", "v9"]);
    assert_eq!(elsewhere.code, 3, "{elsewhere}");
    assert!(elsewhere.talk.contains("goes to `v1`"), "{elsewhere}");
    let back = shop.run(&["rollback"]);
    assert_eq!(back.code, 0, "{back}");
    assert!(back.data.contains(" to `v1`: hold at most "), "{back}");
    assert_eq!(shop.serves(), ["v1", "v1"]);

    let history = shop.json(&["history", "--json", "-n", "2"]);
    assert_eq!(history["deployments"].as_array().map(Vec::len), Some(2));
    let receipt = shop.run(&["receipt"]);
    assert!(receipt.data.contains("claims borne out"), "{receipt}");
    let logs = shop.run(&["logs", "--instance", "a"]);
    assert!(logs.data.contains("a shop/"), "{logs}");
    let status = shop.run(&["status"]);
    assert!(
        status.data.contains("shop serves v1 everywhere"),
        "{status}"
    );

    // The fleet comes back with what it served.
    drop(up);
    let _up = shop.up();
    shop.wait_until_served("v1");
}

#[test]
fn a_fleet_whose_up_was_killed_is_brought_up_again_with_the_applications_it_had() {
    let shop = Shop::new();
    shop.configure("");
    let up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    let applications = pids(&shop);
    up.kill();

    let _up = shop.up();

    shop.wait_until_served("v1");
    assert_eq!(pids(&shop), applications);
    shop.run(&["deploy", "--version", "v2"]).ended(0);
    assert_eq!(shop.serves(), ["v2", "v2"]);
}

#[test]
fn the_same_release_attaches_and_another_is_refused_with_who_deploys_what_since_when() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v0"]).ended(0);
    shop.configure("watch: 1h\n");
    let begun = shop.json(&["deploy", "--version", "v1", "--detach", "--json"]);
    assert_eq!(begun["attached"], false);

    let same = shop.json(&["deploy", "--version", "v1", "--detach", "--json"]);
    assert_eq!(same["attached"], true);
    assert_eq!(same["deployment"], begun["deployment"]);
    let other = shop.run(&["deploy", "--version", "v2"]);
    assert_eq!(other.code, 3, "{other}");
    for part in ["`v1` is being deployed by tester@", " since 20", " UTC"] {
        assert!(other.talk.contains(part), "`{part}` is not in {other}");
    }

    let aborted = shop.run(&["abort"]);
    assert_eq!(aborted.code, 0, "{aborted}");
    assert_eq!(shop.serves(), ["v0", "v0"]);
}

#[test]
fn a_release_that_fails_its_check_leaves_the_old_one_and_says_why() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);

    shop.configure("deploy_timeout: 8s\nenv: { FAIL_CHECK_ON: b }\n");
    let failed = shop.run(&["deploy", "--version", "v2", "--json"]);

    assert_eq!(failed.code, 1, "{failed}");
    let receipt: Value = serde_json::from_str(&failed.data).expect("one document");
    assert_eq!(receipt["outcome"]["outcome"], "aborted");
    // The person sees where, what was answered last, and what the application wrote.
    for part in ["instance `b`", "500", "v2 listens on"] {
        assert!(failed.talk.contains(part), "`{part}` is not in {failed}");
    }
    assert_eq!(shop.serves(), ["v1", "v1"]); // G2
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_do() {
    let shop = Shop::new();
    let cases: [(&[&str], i32, &str); 5] = [
        (&["deploy", "--version", "v1"], 2, "greenlight init"),
        (&["status"], 2, "greenlight up"),
        (&["deploy", "--verzion", "v1"], 2, "--version"),
        (&["status", "--fleet", "/nowhere"], 2, "/nowhere"),
        (&["up"], 2, "greenlight init"),
    ];
    for (arguments, code, part) in cases {
        let ran = shop.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran}");
        assert!(ran.talk.contains(part), "`{part}` is not in {ran}");
    }

    shop.configure("strateggy: blue_green\n");
    let misspelt = shop.run(&["deploy", "--version", "v1"]);
    assert_eq!(misspelt.code, 2, "{misspelt}");
    assert!(misspelt.talk.contains("`strategy`"), "{misspelt}");
    shop.configure("");
    let unlabelled = shop.run(&["deploy"]);
    assert_eq!(unlabelled.code, 2, "{unlabelled}");
    assert!(unlabelled.talk.contains("--version"), "{unlabelled}");
}

#[test]
fn a_file_of_another_tool_is_carried_over_and_what_is_lost_is_said() {
    let shop = Shop::new();
    let write = |name: &str, text: &str| {
        let path = shop.dir().join(name);
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("it is ours");
        std::fs::write(path, text).expect("it is ours");
    };
    let nothing = shop.run(&["init", "--from", "kamal"]);
    assert_eq!(nothing.code, 2, "{nothing}");
    assert!(nothing.talk.contains("`config/deploy.yml`"), "{nothing}");

    write(
        "config/deploy.yml",
        "service: shop\nservers: [10.0.0.11]\nboot: { limit: 1 }\n",
    );
    write("config/deploy.staging.yml", "servers: [10.0.0.21]\n");
    write(".kamal/hooks/pre-deploy", "#!/bin/sh\n");
    write(".kamal/hooks/post-deploy.sample", "#!/bin/sh\n");
    let kamal = shop.run(&["init", "--from", "kamal"]);
    assert_eq!(kamal.code, 0, "{kamal}");
    let written = std::fs::read_to_string(shop.dir().join("greenlight.yml")).expect("a file");
    assert!(written.contains("  - 10.0.0.11\n"), "{written}");
    for part in [
        "boot: ",
        "`deploy.staging.yml`: ",
        "`.kamal/hooks/pre-deploy`: ",
    ] {
        assert!(
            kamal.talk.contains(&format!("not carried over: {part}")),
            "{kamal}"
        );
        assert!(written.contains(&format!("# - {part}")), "{written}");
    }
    assert!(!written.contains("post-deploy"), "{written}");

    write(
        "prod.yml",
        "services: { a: { image: a, ports: ['80:1'] }, b: { image: b } }\n",
    );
    let compose = ["init", "--from", "compose", "--input", "prod.yml"];
    let again = shop.run(&compose);
    assert_eq!(again.code, 3, "{again}");
    let elsewhere = shop.run(&[&compose[..], &["--file", "b.yml", "--service", "b"]].concat());
    assert_eq!(elsewhere.code, 0, "{elsewhere}");
    let written = std::fs::read_to_string(shop.dir().join("b.yml")).expect("a file");
    assert!(written.contains("service: b\n"), "{written}");
    let unknown = shop.run(&[&compose[..], &["--file", "c.yml", "--service", "c"]].concat());
    assert_eq!(unknown.code, 2, "{unknown}");
    assert!(unknown.talk.contains("it has `a`, `b`"), "{unknown}");
}

#[test]
fn schema_completions_and_manual_pages_are_made_from_the_program_itself() {
    let shop = Shop::new();
    let schema = shop.json(&["schema"]);
    assert_eq!(schema["title"], "greenlight.yml");
    let completions = shop.run(&["completions", "bash"]);
    assert!(completions.data.contains("rollback"), "{completions}");
    let man = shop.run(&["man", "pages"]);
    assert_eq!(man.code, 0, "{man}");
    let page = std::fs::read_to_string(shop.dir().join("pages/greenlight-deploy.1"));
    assert!(page.expect("a page").contains("whole fleet"));
}

/// The processes that answer on each instance.
fn pids(shop: &Shop) -> [Value; 2] {
    shop.bodies("/").map(|body| {
        let body: Value = serde_json::from_str(&body).expect("the sample answers with JSON");
        body["pid"].clone()
    })
}
