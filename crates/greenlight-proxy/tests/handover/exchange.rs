//! A successor takes over: under load, with connections left at the predecessor, during a hold.

use crate::client::{Client, echo};
use crate::load::Load;
use crate::proxy::{Process, Shop, follower_sockets, get, send, until};
use crate::trial;
use greenlight_admin::{Color, DrainRequest, InFlight, ServicesRequest};
use greenlight_proxy::Address;
use libtest_mimic::Trial;
use std::time::Duration;
use tokio::net::UnixStream;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "ten_handovers_under_load_refuse_reset_and_fail_nothing",
            ten_handovers,
        ),
        trial(
            "after_the_ack_of_a_hold_nothing_reaches_the_old_color_from_a_predecessor_either",
            a_hold_binds_the_predecessor,
        ),
        trial(
            "an_exclusive_hold_waits_for_the_requests_of_the_predecessor",
            an_exclusive_hold,
        ),
        trial(
            "opening_without_a_hold_flips_predecessor_and_successor_together",
            opening_without_a_hold,
        ),
        trial(
            "a_handover_during_a_hold_waits_until_it_is_over",
            during_a_hold,
        ),
        trial(
            "unix_sockets_are_taken_over_too_and_an_address_may_be_added",
            with_other_addresses,
        ),
        trial("parked_requests_survive_a_handover", while_parked),
        trial(
            "a_hold_is_not_acknowledged_while_a_predecessor_is_silent",
            a_silent_predecessor,
        ),
        trial(
            "a_hold_that_expires_after_a_handover_also_ends_at_the_predecessor",
            an_expiring_hold,
        ),
    ]
}

async fn ten_handovers() {
    let (shop, mut proxy, address) = Shop::open().await;
    let load = Load::start(address);
    load.go_on_for(50).await;

    let mut predecessors = Vec::new();
    for threads in [1, 3, 2, 1, 2, 3, 1, 2, 2, 1] {
        let successor = shop.handover(threads).await;
        predecessors.push(std::mem::replace(&mut proxy, successor));
        load.go_on_for(50).await;
    }

    let status = shop.admin.status().await.expect("a status");
    assert_eq!(status.listening, [address.to_string()]);
    assert!(status.draining >= 1, "the tunnel is at the first one");
    let answered = load.end().await; // G3
    let arrived = shop.blue.arrived();
    assert!(arrived > answered, "{arrived} arrived, {answered} answered");
    for predecessor in predecessors {
        let (status, said) = predecessor.ended().await;
        assert!(status.success(), "{said}");
    }
    let status = shop.admin.status().await.expect("a status");
    assert_eq!(status.draining, 0);
    assert_eq!(status.services["shop"].admitted_blue, arrived);
    assert_eq!(follower_sockets(&shop.options.admin), 0);
}

async fn a_hold_binds_the_predecessor() {
    let (shop, old, address) = Shop::open().await;
    let in_flight = send(Client::connect(address).await.expect("connected"), "/slow");
    let mut idle = Client::connect(address).await.expect("connected");
    assert_eq!(idle.get("/").await.expect("a response").body, "blue");
    let tunnel = Client::connect(address).await.expect("connected");
    let mut tunnel = tunnel.upgrade().await.expect("upgraded");
    until("the slow request is there", async || {
        (shop.blue.arrived() == 3).then_some(())
    })
    .await;

    let new = shop.handover(2).await;
    let held = shop.admin.hold(&Shop::hold(1)).await.expect("held");
    let arrived = shop.blue.arrived();
    let seen = &held.services["shop"];
    assert_eq!((seen.color, seen.in_flight), (Some(Color::Blue), 2));
    assert!(seen.last_admission_ns.is_some());

    let at_the_old = send(idle, "/");
    let at_the_new = send(Client::connect(address).await.expect("connected"), "/");
    shop.held(1, 2).await;
    assert_eq!(shop.blue.arrived(), arrived); // G1
    assert_eq!(shop.open_to(1, Color::Green).await, 2);
    let response = at_the_old.await.expect("answered");
    assert_eq!(response.body, "green"); // G1
    assert!(response.closes(), "{}", response.head);
    assert_eq!(at_the_new.await.expect("answered").body, "green");
    assert_eq!(shop.blue.arrived(), arrived); // G1

    let mut drain = DrainRequest {
        service: "shop".to_owned(),
        color: Color::Blue,
        deadline_ms: 20,
    };
    let left = shop.admin.drain(&drain).await.expect("a drain").left;
    let expected = InFlight {
        requests: 1,
        streams: 0,
        upgrades: 1,
    };
    assert_eq!(left, expected); // G7
    shop.blue.release();
    assert_eq!(in_flight.await.expect("answered").body, "blue"); // G3
    echo(&mut tunnel).await.expect("the tunnel goes on");
    drop(tunnel);
    drain.deadline_ms = 60_000;
    let left = shop.admin.drain(&drain).await.expect("a drain").left;
    assert_eq!(left, InFlight::default()); // G7

    assert!(old.ended().await.0.success());
    let status = shop.led_by(&new).await;
    assert_eq!(status.draining, 0);
    assert_eq!(status.services["shop"].admitted_blue, 3);
    let evidence = shop.admin.evidence(1).await.expect("evidence");
    let seen = &evidence.services["shop"];
    assert_eq!(seen.held, 2);
    assert!(seen.last_admission_old_ns < seen.held_at_ns); // G1
    assert!(seen.opened_at_ns < seen.first_admission_new_ns);
}

async fn an_exclusive_hold() {
    let (shop, _old, address) = Shop::open().await;
    let in_flight = send(Client::connect(address).await.expect("connected"), "/slow");
    until("the slow request is there", async || {
        (shop.blue.arrived() == 1).then_some(())
    })
    .await;
    let _new = shop.handover(2).await;

    let mut hold = Shop::hold(1);
    hold.exclusive_ms = Some(30);
    let refused = shop.admin.hold(&hold).await.expect_err("it is in flight");
    assert!(refused.to_string().contains("`shop` has 1"), "{refused}");
    assert_eq!(get(address).await, "blue");

    let mut hold = Shop::hold(2);
    hold.exclusive_ms = Some(60_000);
    let admin = shop.admin.clone();
    let holding = tokio::spawn(async move { admin.hold(&hold).await });
    until("the hold is on", async || {
        let status = shop.admin.status().await.expect("a status");
        (status.services["shop"].state == "held").then_some(())
    })
    .await;
    shop.blue.release();
    in_flight.await.expect("answered");
    let held = holding.await.expect("no panic").expect("held");
    assert_eq!(held.services["shop"].in_flight, 0);
}

async fn opening_without_a_hold() {
    let (shop, _old, address) = Shop::open().await;
    let mut idle = Client::connect(address).await.expect("connected");
    assert_eq!(idle.get("/").await.expect("a response").body, "blue");
    let _new = shop.handover(2).await;

    shop.open_to(1, Color::Green).await;
    let arrived = shop.blue.arrived();

    assert_eq!(get(address).await, "green");
    assert_eq!(idle.get("/").await.expect("a response").body, "green"); // G1
    assert_eq!(shop.blue.arrived(), arrived);
}

async fn during_a_hold() {
    let (shop, old, address) = Shop::open().await;
    shop.admin.hold(&Shop::hold(1)).await.expect("held");
    let waiting = send(Client::connect(address).await.expect("connected"), "/");
    shop.held(1, 1).await;

    let upgrade = "connection: upgrade\r\nupgrade: greenlight-handover\r\n";
    let stream = UnixStream::connect(&shop.options.admin).await;
    let mut asking = Client::new(stream.expect("the admin socket"));
    let refused = asking.ask("POST", "/v1/handover", upgrade).await;
    let refused = refused.expect("a response");
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("a hold is on"), "{}", refused.body);

    let options = crate::proxy::Options {
        handover: true,
        ..shop.options.clone()
    };
    let new = Process::spawn(&options);
    shop.led_by(&old).await;
    shop.open_to(1, Color::Green).await;
    let status = shop.led_by(&new).await;

    assert_eq!(waiting.await.expect("answered").body, "green"); // G3
    assert_eq!(status.services["shop"].color, Some(Color::Green));
    assert_eq!(status.epoch, 1);
    assert_eq!(get(address).await, "green");
    let evidence = shop.admin.evidence(1).await.expect("evidence");
    assert_eq!(evidence.services["shop"].held, 1);
    assert!(evidence.services["shop"].opened_at_ns.is_some());
}

async fn with_other_addresses() {
    let mut shop = Shop::new().await;
    let socket = shop.options.admin.with_file_name("front.sock");
    shop.options.listen.push(Address::Unix(socket.clone()));
    let (_old, address) = shop.start().await;
    shop.define().await;
    shop.open_to(0, Color::Blue).await;
    let stream = UnixStream::connect(&socket).await.expect("connected");
    let mut idle = Client::new(stream);
    assert_eq!(idle.get("/").await.expect("a response").body, "blue");

    let one_more = "[::1]:0".parse().expect("an address");
    shop.options.listen.push(one_more);
    let new = shop.handover(3).await;

    let listening = shop.led_by(&new).await.listening;
    assert_eq!(listening.len(), 3);
    assert_eq!(listening[0], address.to_string());
    assert_eq!(get(address).await, "blue");
    let added = listening[2].parse().expect("a TCP address");
    assert_eq!(get(added).await, "blue");
    let stream = UnixStream::connect(&socket).await.expect("connected");
    let response = Client::new(stream).get("/").await.expect("a response");
    assert!(!response.closes(), "the successor keeps it alive");
    let response = idle.get("/").await.expect("a response"); // G3
    assert!(
        response.closes(),
        "the predecessor closes it by its response"
    );
}

async fn while_parked() {
    let (shop, _old, address) = Shop::open().await;
    let park = ServicesRequest {
        epoch: 1,
        services: vec!["shop".to_owned()],
    };
    shop.admin.park(&park).await.expect("parked");
    let at_the_old = send(Client::connect(address).await.expect("connected"), "/");
    until("it waits", async || {
        let metrics = shop.ask_admin("GET", "/v1/counts").await.body;
        metrics.contains("\"held\":1").then_some(())
    })
    .await;

    let new = shop.handover(2).await;
    assert_eq!(shop.led_by(&new).await.services["shop"].state, "held");
    let at_the_new = send(Client::connect(address).await.expect("connected"), "/");
    until("it waits", async || {
        let metrics = shop.ask_admin("GET", "/v1/counts").await.body;
        metrics.contains("\"held\":1").then_some(())
    })
    .await;
    let arrived = (shop.blue.arrived(), shop.green.arrived());
    assert_eq!(arrived, (0, 0));

    assert_eq!(shop.open_to(1, Color::Green).await, 2);
    assert_eq!(at_the_old.await.expect("answered").body, "green"); // G1, G3
    assert_eq!(at_the_new.await.expect("answered").body, "green");
}

async fn a_silent_predecessor() {
    let (shop, old, address) = Shop::open().await;
    let mut idle = Client::connect(address).await.expect("connected");
    idle.get("/").await.expect("a response");
    let _new = shop.handover(2).await;
    old.pause();

    let mut hold = Shop::hold(1);
    hold.max_hold_ms = 300;
    let refused = shop.admin.hold(&hold).await.expect_err("one is silent"); // G1
    assert!(refused.to_string().contains("deadline"), "{refused}");
    assert_eq!(get(address).await, "blue"); // G3

    old.go_on();
    shop.admin.hold(&Shop::hold(2)).await.expect("held");
    let waiting = send(idle, "/");
    shop.held(2, 1).await;
    shop.open_to(2, Color::Green).await;
    assert_eq!(waiting.await.expect("answered").body, "green"); // G1
}

async fn an_expiring_hold() {
    let (shop, _old, address) = Shop::open().await;
    let mut idle = Client::connect(address).await.expect("connected");
    idle.get("/").await.expect("a response");
    let _new = shop.handover(2).await;

    let mut hold = Shop::hold(1);
    // Both requests reach it before it runs out, also on a busy machine.
    hold.max_hold_ms = 5_000;
    shop.admin.hold(&hold).await.expect("held");
    let at_the_old = send(idle, "/");
    let at_the_new = send(Client::connect(address).await.expect("connected"), "/");

    shop.held(1, 2).await;
    assert!(!at_the_old.is_finished());

    let responses = async { (at_the_old.await, at_the_new.await) };
    let responses = tokio::time::timeout(Duration::from_mins(2), responses).await;
    let (old, new) = responses.expect("the deadline is kept");
    assert_eq!(old.expect("answered").body, "blue"); // G3
    assert_eq!(new.expect("answered").body, "blue");
    assert!(shop.admin.evidence(1).await.expect("evidence").services["shop"].expired);
}
