//! The local ports of slots: they belong to the instance, and nobody has to name them.

use crate::shop::{Shop, free_port};
use greenlight_agent::addresses::reservation;
use serde_json::Value;
use std::net::TcpListener;
use std::time::Duration;

/// Writes a file for these instances that names no local port.
fn configure(shop: &Shop, instances: &[(&str, u16)]) {
    let program = env!("CARGO_BIN_EXE_greenlight");
    let servers = instances
        .iter()
        .map(|(name, port)| format!("  - {{ name: {name}, host: 127.0.0.1, port: {port} }}\n"));
    let text = format!(
        "service: shop\ncommand: [{program}, sample-app]\nservers:\n{}watch: 300ms\n\
         deploy_timeout: 3m\ncutover: {{ hold_budget: 20s, max_hold: 2m }}\n",
        servers.collect::<String>()
    );
    std::fs::write(shop.dir().join("greenlight.yml"), text).expect("a folder");
}

/// The ports of the only service on an instance.
fn ports(shop: &Shop, instance: &str) -> [u16; 2] {
    let path = format!(".greenlight/instances/{instance}/addresses.json");
    let text = std::fs::read_to_string(shop.dir().join(path)).expect("the agent has kept them");
    let kept: Value = serde_json::from_str(&text).expect("it is JSON");
    let pair = &kept["ports"]["shop"]["preferred"];
    ["blue", "green"].map(|color| {
        let port = pair[color].as_u64().expect("a number");
        u16::try_from(port).expect("a port")
    })
}

/// Takes the port that an agent would choose first. The agent of another test may have reserved it,
/// and gives it back in a while. A program that keeps it does so for the rest of this test as well.
fn take_8080() -> Option<TcpListener> {
    let reserved = (0..600).find_map(|_| {
        let reserved = reservation(8080);
        if reserved.is_none() {
            std::thread::sleep(Duration::from_millis(100));
        }
        reserved
    });
    let taken = TcpListener::bind(("127.0.0.1", 8080)).ok();
    // Whoever looks now finds somebody listening.
    drop(reserved);
    taken
}

#[test]
fn ports_that_no_file_names_are_free_ones_also_if_8080_is_taken() {
    let _taken = take_8080();
    let shop = Shop::new();
    let [a, b] = shop.public().map(|address| address.port());
    configure(&shop, &[("a", a), ("b", b)]);
    let _up = shop.up();

    shop.run(&["deploy", "--version", "v1"]).ended(0);

    assert_eq!(shop.serves(), ["v1", "v1"]);
    let (of_a, of_b) = (ports(&shop, "a"), ports(&shop, "b"));
    assert!(
        of_a.iter().all(|port| !of_b.contains(port)),
        "{of_a:?} {of_b:?}"
    );
    assert!(!of_a.contains(&8080) && !of_b.contains(&8080));

    // The first release is blue. Somebody takes the port of the other slot meanwhile.
    let _stranger = TcpListener::bind(("127.0.0.1", of_a[1])).expect("the slot is idle");
    shop.run(&["deploy", "--version", "v2"]).ended(0);

    assert_eq!(shop.serves(), ["v2", "v2"]);
    assert_eq!(ports(&shop, "a")[0], of_a[0]);
    assert_ne!(ports(&shop, "a")[1], of_a[1]);
    assert_eq!(ports(&shop, "b"), of_b);
}

#[test]
fn a_rollback_reaches_an_instance_that_came_after_its_release() {
    let shop = Shop::new();
    let [a, b] = shop.public().map(|address| address.port());
    configure(&shop, &[("a", a), ("b", b)]);
    let up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    drop(up);
    configure(&shop, &[("a", a), ("b", b), ("c", free_port())]);
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v2"]).ended(0);

    shop.run(&["rollback"]).ended(0);

    assert_eq!(shop.serves(), ["v1", "v1"]);
    let status = shop.json(&["status", "--json"]);
    let on_c = &status["instances"]["c"]["live"]["shop"];
    assert_eq!(on_c["version"], "v1", "{status:#}");
}
