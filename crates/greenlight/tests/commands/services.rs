//! Services that come and go, through the commands.

use crate::shop::{Shop, TEST_TIMEOUT, free_port};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Writes a `greenlight.yml` with the services named, `shop` and `mail`, on hosts of these names.
fn configure(shop: &Shop, ports: &[u16; 8], services: &[&str]) {
    let program = env!("CARGO_BIN_EXE_greenlight");
    let of = |service: &str, instance: usize| {
        let at = instance * 4 + if service == "shop" { 0 } else { 2 };
        let (blue, green) = (ports[at], ports[at + 1]);
        format!("{service}: {{ blue: {blue}, green: {green} }}")
    };
    let sections = services.iter().map(|service| {
        format!(
            "  {service}: {{ command: [{program}, sample-app], proxy: {{ host: {service} }} }}\n"
        )
    });
    let servers = ["a", "b"].iter().enumerate().map(|(index, name)| {
        let public = shop.public()[index].port();
        let ports: Vec<_> = services.iter().map(|service| of(service, index)).collect();
        let ports = ports.join(", ");
        format!("  - {{ name: {name}, host: 127.0.0.1, port: {public}, ports: {{ {ports} }} }}\n")
    });
    let text = format!(
        "services:\n{}servers:\n{}watch: 300ms\ndeploy_timeout: 3m\n\
         cutover: {{ hold_budget: 20s, max_hold: 2m }}\n",
        sections.collect::<String>(),
        servers.collect::<String>(),
    );
    std::fs::write(shop.dir().join("greenlight.yml"), text).expect("a folder");
}

/// What each instance answers for a service's host: the release, or the status of a refusal.
fn serves(shop: &Shop, service: &str) -> [String; 2] {
    shop.public().map(|address| {
        let mut stream = TcpStream::connect(address).expect("the proxy listens");
        let request = format!("GET / HTTP/1.1\r\nhost: {service}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let release = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-release: "));
        let status = || answer.split(' ').nth(1).unwrap_or_default().to_owned();
        release.map_or_else(status, str::to_owned)
    })
}

#[test]
fn a_service_that_is_removed_is_refused_everywhere_and_a_rollback_brings_it_back() {
    let shop = Shop::new();
    let ports = std::array::from_fn(|_| free_port());
    configure(&shop, &ports, &["shop", "mail"]);
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    assert_eq!(serves(&shop, "mail"), ["v1", "v1"]);

    configure(&shop, &ports, &["shop"]);
    let plan = shop.run(&["plan", "--version", "v2"]);
    assert!(plan.data.contains("`greenlight remove mail`"), "{plan}");
    let deployed = shop.run(&["deploy", "--version", "v2"]);
    assert_eq!(deployed.code, 0, "{deployed}");
    assert!(
        deployed.talk.contains("`greenlight remove mail`"),
        "{deployed}"
    );
    assert_eq!(serves(&shop, "mail"), ["v1", "v1"], "it goes on");

    // Without the file it is as in the latest deployment, and not watched for the default's time.
    std::fs::remove_file(shop.dir().join("greenlight.yml")).expect("it was written");
    let removed = shop.run(&["remove", "mail"]);
    assert_eq!(removed.code, 0, "{removed}");
    let receipt = shop.json(&["receipt", "--json"]);
    let at = |key: &str| receipt[key].as_u64().expect("a time");
    let watch = greenlight_protocol::Policy::default().watch.as_millis();
    assert!(u128::from(at("finished_ms") - at("started_ms")) < watch);
    // What the gates saw comes in last. The gate of a service that is removed opens too.
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let receipt = shop.run(&["receipt"]).data;
        if !receipt.contains("NOT ") {
            break;
        }
        assert!(Instant::now() < deadline, "{receipt}");
        std::thread::sleep(Duration::from_millis(50));
    }
    configure(&shop, &ports, &["shop"]);
    assert!(removed.data.contains("mail removed (was v1)"), "{removed}");
    assert_eq!(serves(&shop, "mail"), ["503", "503"]);
    assert_eq!(serves(&shop, "shop"), ["v2", "v2"]);
    let again = shop.run(&["remove", "mail"]);
    assert_eq!(again.code, 3, "{again}");
    assert!(again.talk.contains("`mail` is not live"), "{again}");
    let history = shop.run(&["history"]);
    assert!(history.data.contains("mail removed"), "{history}");

    let back = shop.run(&["rollback"]);
    assert_eq!(back.code, 0, "{back}");
    assert_eq!(serves(&shop, "mail"), ["v1", "v1"]);
    assert_eq!(serves(&shop, "shop"), ["v2", "v2"], "it was live then");
}

#[test]
fn a_file_and_a_fleet_that_differ_are_refused_alike_by_plan_and_deploy() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    let file = shop.dir().join("greenlight.yml");
    let text = std::fs::read_to_string(&file).expect("it was written");
    std::fs::write(&file, text.replace("name: b,", "name: c,")).expect("a folder");

    let plan = shop.json(&["plan", "--version", "v2", "--json"]);
    let obstacles = plan["obstacles"].as_array().expect("a list");
    let told = obstacles
        .iter()
        .filter_map(Value::as_str)
        .collect::<String>();
    assert!(told.contains("`c` is in `servers`"), "{plan}");
    assert!(told.contains("`b` is in the running fleet"), "{plan}");
    let deployed = shop.run(&["deploy", "--version", "v2"]);
    assert_eq!(deployed.code, 3, "{deployed}");
    assert!(deployed.talk.contains("`c` is in `servers`"), "{deployed}");
    assert_eq!(shop.serves(), ["v1", "v1"]);
}

#[test]
fn to_deploy_what_was_prepared_promotes_it_also_when_nobody_waits() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.run(&["prepare", "--version", "v1"]).ended(0);

    let deployed = shop.json(&["deploy", "--version", "v1", "--detach", "--json"]);

    assert_eq!(deployed["attached"], true);
    shop.wait_until_served("v1");
}
