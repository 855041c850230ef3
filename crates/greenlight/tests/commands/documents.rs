//! `--json`: one document on standard output for every verb, whatever becomes of it; and the page
//! that lists the verbs.

use crate::shop::Shop;
use clap::CommandFactory as _;
use greenlight::cli::Cli;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Every verb where nothing is there, or as it cannot be meant; and how it exits.
const REFUSED: [(&[&str], i32); 25] = [
    (&["abort"], 2),
    (
        &[
            "agent",
            "--name=a",
            "--state=/dev/null/a",
            "--server=127.0.0.1:1",
            "--listen=127.0.0.1:0",
            "--proxy-admin=/dev/null/a",
        ],
        1,
    ),
    (&["attach", "nginx"], 2),
    (&["completions", "no-shell"], 2),
    (&["demo", "--runtime", "docker"], 1),
    (&["deploy", "--version", "v1"], 2),
    (&["doctor", "--state", "."], 2),
    (&["history"], 2),
    (&["init", "--from", "kamal"], 2),
    (
        &["join", "--server=127.0.0.1:1", "--token=none", "--dir=."],
        2,
    ),
    (&["logs"], 2),
    (&["man", "/dev/null/pages"], 1),
    (&["plan", "--version", "v1"], 2),
    (&["prepare", "--version", "v1"], 2),
    (&["promote"], 2),
    (
        &[
            "proxy",
            "--listen=127.0.0.1:0",
            "--admin=/dev/null/a",
            "--state=/dev/null/b",
        ],
        1,
    ),
    (&["receipt"], 2),
    (&["remove", "shop"], 2),
    (&["rollback"], 2),
    (&["schema", "of-what"], 2),
    (
        &[
            "server",
            "--state=/dev/null/a",
            "--listen=127.0.0.1:0",
            "--instance=a",
        ],
        2,
    ),
    (&["setup"], 2),
    (&["status"], 2),
    (&["token", "--operator"], 2),
    (&["up"], 2),
];

#[test]
fn every_verb_that_is_refused_prints_one_document_that_says_why() {
    let shop = Shop::new();
    let mut tried = BTreeSet::new();
    for (arguments, code) in REFUSED {
        let refused = document(&shop, arguments, code);
        let why = refused["error"].as_str();
        assert!(
            why.is_some_and(|why| !why.is_empty()),
            "{arguments:?}: {refused}"
        );
        tried.insert(arguments[0].to_owned());
    }
    let command = Cli::command();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let verbs: BTreeSet<_> = verbs.map(|verb| verb.get_name().to_owned()).collect();
    assert_eq!(tried, verbs);
}

#[test]
fn every_verb_that_does_something_prints_one_document_that_says_what() {
    let shop = Shop::new();
    let began = document(&shop, &["init", "--service", "shop"], 0);
    assert_eq!(began, json!({ "file": "greenlight.yml" }));
    // Nobody answers there.
    let machine =
        "service: shop\ncommand: [shop]\nservers: [127.0.0.1]\nsetup: { ssh: { port: 1 } }\n";
    std::fs::write(shop.dir().join("machine.yml"), machine).expect("it is ours");
    shop.configure("");
    let (_up, up) = shop.up_json();
    assert!(up["fleet"].is_string(), "{up}");
    let steps: [(&[&str], i32, &str); 16] = [
        (&["schema"], 0, "/title"),
        (&["plan", "--version", "v1"], 0, "/services/shop/to"),
        (&["deploy", "--version", "v1"], 0, "/outcome/outcome"),
        (&["prepare", "--version", "v2"], 0, "/state"),
        (&["promote"], 0, "/outcome/outcome"),
        (&["prepare", "--version", "v3"], 0, "/state"),
        (&["abort"], 0, "/outcome/outcome"),
        (&["rollback"], 0, "/outcome/outcome"),
        (&["receipt"], 0, "/cut_overs/0"),
        (&["rollback", "--detach"], 0, "/state"),
        (&["status"], 0, "/instances/a"),
        (&["history"], 0, "/deployments/0"),
        (&["logs"], 0, "/instances/a"),
        (&["setup", "--dry-run", "-f", "machine.yml"], 1, "/0/error"),
        (&["token", "--operator"], 0, "/token"),
        (&["init"], 3, "/help"),
    ];
    for (arguments, code, says) in steps {
        let document = document(&shop, arguments, code);
        let said = document.pointer(says).filter(|said| !said.is_null());
        assert!(said.is_some(), "{arguments:?}: no `{says}` in {document:#}");
    }
    let server = shop.dir().join(".greenlight/operator/server");
    let server = std::fs::read_to_string(server).expect("it is up");
    let token = shop.json(&["token", "--operator", "--json"]);
    let token = token["token"].as_str().expect("a token");
    let join = ["join", "--server", &server, "--token", token, "--dir", "me"];
    assert_eq!(document(&shop, &join, 0)["dir"], "me");
    // What it finds depends on the machine.
    let doctor = shop.json(&["doctor", "--json"]);
    assert!(doctor["findings"].is_array(), "{doctor}");
    shop.wait_until(|status| status["deployment"].is_null());
    let removed = document(&shop, &["remove", "shop"], 0);
    assert_eq!(removed["removed"], json!(["shop"]));
}

#[test]
fn what_is_lost_of_another_tool_s_file_is_in_the_document() {
    let shop = Shop::new();
    let kamal = "service: shop\nservers: [10.0.0.11]\nboot: { limit: 1 }\n";
    std::fs::write(shop.dir().join("deploy.yml"), kamal).expect("it is ours");
    let arguments = ["init", "--from", "kamal", "--input", "deploy.yml"];
    let imported = document(&shop, &arguments, 0);
    assert_eq!(imported["file"], "greenlight.yml");
    let lost = imported["not_carried_over"].as_array().expect("a list");
    let boot = lost.iter().find(|loss| loss["what"] == "boot");
    let why = boot.and_then(|loss| loss["why"].as_str());
    assert!(why.is_some_and(|why| !why.is_empty()), "{imported:#}");
}

/// Of `docs/reference/cli.md`.
#[test]
fn the_reference_of_the_commands_has_each_with_its_options_and_no_other() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/reference/cli.md")).expect("it is text");
    let mut told = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        if let [_, command, _, options, _] = cells[..] {
            let words = command.trim_matches('`').split(' ');
            let name = words.take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()));
            let options = options.split('`').filter(|word| word.starts_with("--"));
            let options: BTreeSet<_> = options.map(ToOwned::to_owned).collect();
            told.insert(name.collect::<Vec<_>>().join(" "), options);
        }
    }
    let mut known = BTreeMap::new();
    commands_of(&Cli::command(), "", &mut known);
    assert_eq!(told, known);
}

/// The only thing on standard output.
fn document(shop: &Shop, arguments: &[&str], code: i32) -> Value {
    let mut command = shop.command(arguments);
    command.arg("--json");
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let ran = crate::shop::Ran::from(command.output().expect("the binary runs"));
    assert_eq!(ran.code, code, "{arguments:?}: {ran}");
    serde_json::from_str(&ran.data).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {ran}"))
}

/// By name, the commands that do something, each with the options that are shown.
fn commands_of(of: &clap::Command, name: &str, commands: &mut BTreeMap<String, BTreeSet<String>>) {
    let shown = of
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    for command in shown {
        let name = format!("{name} {}", command.get_name());
        if command.has_subcommands() {
            commands_of(command, &name, commands);
        }
        if !command.is_subcommand_required_set() {
            let options = command.get_arguments().filter(|its| !its.is_hide_set());
            let names = options.filter_map(|option| Some(format!("--{}", option.get_long()?)));
            commands.insert(name.trim().to_owned(), names.collect());
        }
    }
}
