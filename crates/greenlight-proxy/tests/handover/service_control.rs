//! What a gate has been told of each service outlives its process, and binds predecessors too.

use crate::client::Client;
use crate::proxy::{Process, Shop, get, send, until};
use crate::trial;
use greenlight_admin::{
    Color, HoldRequest, OnUncertain, OpenRequest, ServiceEvidence, ServiceSettings, ServicesRequest,
};
use libtest_mimic::Trial;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_parked_service_stays_parked_after_a_kill_in_a_hold_and_its_fresh_deadline",
            parked_and_killed,
        ),
        trial(
            "what_is_left_of_a_hold_keeps_its_deadline_after_a_kill",
            partly_opened_and_killed,
        ),
        trial(
            "that_a_hold_expired_is_told_also_after_kills_and_a_handover",
            expired_and_killed,
        ),
        trial(
            "each_service_keeps_its_own_fence_over_a_kill_and_a_handover",
            fenced_and_killed,
        ),
        trial(
            "a_predecessor_alone_keeps_parked_services_parked_and_tells_that_a_hold_expired",
            a_predecessor_alone,
        ),
    ]
}

// G4
async fn parked_and_killed() {
    let (shop, first, _) = open_with_mail().await;
    park(&shop).await;
    hold(&shop, 2, &["shop", "mail"], 500).await;
    first.kill();

    let (_second, address) = shop.start().await;
    let parked = waiting(address, "/").await;
    let held = waiting(address, "/mail").await;
    assert_eq!(in_time(held).await, "blue"); // G3
    let status = shop.admin.status().await.expect("a status");
    let seen = &status.services["shop"];
    assert_eq!((seen.state.as_str(), seen.parked), ("held", true));
    assert!(!parked.is_finished());
    assert_eq!(shop.blue.arrived(), 1);

    shop.open_to(2, Color::Green).await;
    assert_eq!(in_time(parked).await, "green");
}

// G3
async fn partly_opened_and_killed() {
    let (shop, first, _) = open_with_mail().await;
    hold(&shop, 1, &["shop", "mail"], 500).await;
    shop.open_to(1, Color::Green).await;
    first.kill();

    let (_second, address) = shop.start().await;
    assert_eq!(get(address).await, "green");
    let held = waiting(address, "/mail").await;
    assert_eq!(in_time(held).await, "blue");
}

// G1
async fn expired_and_killed() {
    let (shop, first, address) = open_with_mail().await;
    hold(&shop, 3, &["shop"], 50).await;
    assert_eq!(get(address).await, "blue");
    let before = evidence(&shop, 3, "shop").await;
    assert!(before.expired);
    first.kill();
    let (_second, _) = shop.start().await;
    assert!(has_expired(&shop, 3, "shop").await);
    let third = shop.handover(1).await;
    assert!(has_expired(&shop, 3, "shop").await);
    third.kill();
    let (_fourth, _) = shop.start().await;
    assert!(has_expired(&shop, 3, "shop").await);
    let after = evidence(&shop, 3, "shop").await;
    assert_eq!((after.old, after.new), (Some(Color::Blue), None));
    assert_eq!(
        (after.held, after.held_at_ns),
        (before.held, before.held_at_ns)
    );

    // It says so of this cut-over only.
    hold(&shop, 4, &["shop"], 60_000).await;
    shop.open_to(4, Color::Green).await;
    assert!(!has_expired(&shop, 4, "shop").await);
    assert!(has_expired(&shop, 3, "shop").await);
}

// G6
async fn fenced_and_killed() {
    let (shop, first, _) = open_with_mail().await;
    hold(&shop, 5, &["shop"], 60_000).await;
    first.kill();
    let (_second, _) = shop.start().await;
    assert_fences(&shop).await;
    shop.open_to(5, Color::Blue).await;
    let _third = shop.handover(1).await;
    assert_fences(&shop).await;
}

/// `shop` is at 5, `mail` is not.
async fn assert_fences(shop: &Shop) {
    let status = shop.admin.status().await.expect("a status");
    assert_eq!(status.epoch, 5);
    assert_eq!(status.services["shop"].epoch, 5);
    let stale = open_request("shop", 4, Color::Green);
    shop.admin.open(&stale).await.expect_err("older than 5");
    hold(shop, 4, &["mail"], 60_000).await;
    let park = ServicesRequest {
        epoch: 3,
        services: vec!["mail".to_owned()],
    };
    shop.admin.park(&park).await.expect_err("older than 4");
    // A hold keeps a handover waiting, so it is ended without opening, which would be too late
    // for another one.
    let park = ServicesRequest { epoch: 4, ..park };
    shop.admin.park(&park).await.expect("parked");
    hold(shop, 4, &["mail"], 1).await;
    until("the deadline passes", async || {
        let status = shop.admin.status().await.expect("a status");
        status.services["mail"].max_hold_ms.is_none().then_some(())
    })
    .await;
}

// G1, G4
async fn a_predecessor_alone() {
    let (shop, _first, address) = open_with_mail().await;
    let mut at_shop = Client::connect(address).await.expect("connected");
    let mut at_mail = Client::connect(address).await.expect("connected");
    at_shop.get("/").await.expect("a response");
    at_mail.get("/mail").await.expect("a response");
    let second = shop.handover(1).await;
    park(&shop).await;
    hold(&shop, 2, &["shop", "mail"], 500).await;
    let parked = send(at_shop, "/");
    let held = send(at_mail, "/mail");
    second.kill();

    // Nobody but the predecessor is there.
    let response = tokio::time::timeout(Duration::from_mins(2), held).await;
    let response = response.expect("the deadline is kept").expect("answered");
    assert_eq!(response.body, "blue"); // G3
    assert!(!parked.is_finished());

    let (_third, _) = shop.start().await;
    assert!(has_expired(&shop, 2, "mail").await);
    assert!(!has_expired(&shop, 2, "shop").await);
    assert!(!parked.is_finished());
    shop.open_to(2, Color::Green).await;
    assert_eq!(parked.await.expect("answered").body, "green");
    assert_eq!(shop.blue.arrived(), 3);
}

/// Both services are open to blue; the applications are the same.
async fn open_with_mail() -> (Shop, Process, SocketAddr) {
    let (shop, process, address) = Shop::open().await;
    let settings = ServiceSettings {
        hosts: Vec::new(),
        path_prefix: "/mail".to_owned(),
        blue: shop.blue.address.to_string(),
        green: shop.green.address.to_string(),
        request_timeout_ms: 60_000,
    };
    shop.admin.define("mail", &settings).await.expect("defined");
    let command = open_request("mail", 0, Color::Blue);
    shop.admin.open(&command).await.expect("opened");
    (shop, process, address)
}

fn open_request(service: &str, epoch: u64, color: Color) -> OpenRequest {
    let services = [(service.to_owned(), Some(color))].into();
    OpenRequest { epoch, services }
}

async fn park(shop: &Shop) {
    let park = ServicesRequest {
        epoch: 1,
        services: vec!["shop".to_owned()],
    };
    shop.admin.park(&park).await.expect("parked");
}

async fn hold(shop: &Shop, epoch: u64, services: &[&str], max_hold_ms: u64) {
    let hold = HoldRequest {
        epoch,
        services: services.iter().map(ToString::to_string).collect(),
        max_hold_ms,
        on_uncertain: OnUncertain::ServeOld,
        exclusive_ms: None,
    };
    shop.admin.hold(&hold).await.expect("held");
}

async fn waiting(address: SocketAddr, path: &'static str) -> tokio::task::JoinHandle<String> {
    let mut client = Client::connect(address).await.expect("connected");
    tokio::spawn(async move { client.get(path).await.expect("a response").body })
}

async fn in_time(response: tokio::task::JoinHandle<String>) -> String {
    let response = tokio::time::timeout(Duration::from_mins(2), response).await;
    response.expect("it is let go").expect("answered")
}

async fn has_expired(shop: &Shop, epoch: u64, service: &str) -> bool {
    evidence(shop, epoch, service).await.expired
}

async fn evidence(shop: &Shop, epoch: u64, service: &str) -> ServiceEvidence {
    let evidence = shop.admin.evidence(epoch).await.expect("evidence");
    evidence.services[service].clone()
}
