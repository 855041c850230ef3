//! Processes that die, stop, or cannot start; files that are not theirs.

use crate::app::App;
use crate::client::{Client, echo};
use crate::load::Load;
use crate::proxy::{Options, Process, Shop, accepted, get, send, until};
use crate::trial;
use greenlight_admin::{Color, OpenRequest, ServiceSettings, ServicesRequest};
use greenlight_ports::reserve_address;
use libtest_mimic::Trial;
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_successor_that_dies_midway_leaves_the_predecessor_serving_and_obeying",
            a_successor_dies,
        ),
        trial(
            "a_predecessor_is_led_again_after_its_successor_was_killed",
            a_successor_is_killed_later,
        ),
        trial(
            "a_torn_or_foreign_state_file_is_refused_by_name_and_left_alone",
            bad_state_files,
        ),
        trial(
            "a_second_proxy_does_not_start_unless_it_takes_over",
            a_second_proxy,
        ),
        trial(
            "a_hold_survives_the_kill_of_the_proxy_and_gets_a_fresh_deadline",
            killed_in_a_hold,
        ),
        trial(
            "a_proxy_that_dies_between_its_flip_and_writing_it_down_serves_neither_release_after_it",
            killed_between_flip_and_writing,
        ),
        trial(
            "after_a_restart_requests_wait_until_the_application_answers",
            restarted_before_the_application,
        ),
        trial(
            "told_to_stop_it_answers_what_it_has_and_accepts_nothing_more",
            told_to_stop,
        ),
        trial(
            "told_to_stop_it_answers_those_who_have_come_and_not_asked_yet",
            told_to_stop_before_the_first_request,
        ),
        trial(
            "told_to_stop_it_does_not_wait_for_endless_streams",
            told_to_stop_with_a_tunnel,
        ),
    ]
}

const ASK: &[u8] = b"POST /v1/handover HTTP/1.1\r\nhost: proxy\r\n\
    connection: upgrade\r\nupgrade: greenlight-handover\r\n\r\n";

/// How much of the offer a successor has read when it dies.
#[derive(Clone, Copy)]
enum Read {
    Nothing,
    Some,
    All,
}

async fn a_successor_dies() {
    let (shop, proxy, address) = Shop::open().await;
    let load = Load::start(address);
    load.go_on_for(20).await;
    let hello = b"{\"version\":5}";
    let strange = b"{\"version\":9}";
    for (epoch, (hello, read)) in [
        (None, Read::Nothing),
        (Some(hello), Read::Nothing),
        (Some(hello), Read::Some),
        (Some(hello), Read::All),
        (Some(strange), Read::Nothing),
    ]
    .into_iter()
    .enumerate()
    {
        let mut successor = UnixStream::connect(&shop.options.admin).expect("connected");
        successor.write_all(ASK).expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            successor.read_exact(&mut byte).expect("a response");
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        if let Some(hello) = hello {
            successor.write_all(&13_u32.to_be_bytes()).expect("sent");
            successor.write_all(hello).expect("sent");
        }
        match read {
            Read::Nothing => {}
            Read::Some => successor.read_exact(&mut [0; 30]).expect("an offer"),
            Read::All => {
                let pause = Some(Duration::from_millis(300));
                successor.set_read_timeout(pause).expect("a socket");
                // The pause after the last descriptor ends it.
                let _ = successor.read_to_end(&mut Vec::new());
            }
        }
        drop(successor);

        load.go_on_for(20).await; // G3
        let epoch = epoch as u64 + 1;
        until("the proxy obeys again", async || {
            shop.admin.hold(&Shop::hold(epoch)).await.ok()
        })
        .await;
        shop.open_to(epoch, Color::Blue).await;
    }

    assert_eq!(shop.led_by(&proxy).await.draining, 0);
    let _successor = shop.handover(2).await;
    load.go_on_for(20).await;
    load.end().await; // G3
    assert!(proxy.ended().await.0.success());
}

async fn a_successor_is_killed_later() {
    let (shop, _first, address) = Shop::open().await;
    let mut idle = Client::connect(address).await.expect("connected");
    idle.get("/").await.expect("a response");
    let tunnel = Client::connect(address).await.expect("connected");
    let mut tunnel = tunnel.upgrade().await.expect("upgraded");
    let second = shop.handover(2).await;
    second.kill();

    let (third, address) = shop.start().await;
    assert_eq!(shop.led_by(&third).await.draining, 1);
    shop.admin.hold(&Shop::hold(1)).await.expect("held");
    let arrived = shop.blue.arrived();
    let waiting = send(idle, "/");
    shop.held(1, 1).await;
    shop.open_to(1, Color::Green).await;

    assert_eq!(waiting.await.expect("answered").body, "green"); // G1
    assert_eq!(get(address).await, "green");
    assert_eq!(shop.blue.arrived(), arrived);
    echo(&mut tunnel).await.expect("the tunnel goes on");
}

async fn bad_state_files() {
    let (shop, proxy, address) = Shop::open().await;
    let whole = std::fs::read(&shop.options.state).expect("a state file");
    let torn = whole[..whole.len() / 2].to_vec();
    let foreign = b"upstream shop { server 127.0.0.1:8080; }".to_vec();
    for (bytes, reason) in [
        (torn, "its checksum does not match"),
        (foreign, "it was not written by this version of greenlight"),
    ] {
        std::fs::write(&shop.options.state, &bytes).expect("written");
        for handover in [false, true] {
            let options = Options {
                handover,
                ..shop.options.clone()
            };
            let (status, said) = Process::spawn(&options).ended().await;
            assert!(!status.success());
            assert!(said.contains(reason), "{said}");
            let path = shop.options.state.display().to_string();
            assert!(said.contains(&path), "{said}");
            assert!(said.contains("move it away"), "{said}");
            assert_eq!(std::fs::read(&shop.options.state).expect("a file"), bytes);
        }
    }
    shop.led_by(&proxy).await;
    assert_eq!(get(address).await, "blue"); // G9
}

async fn a_second_proxy() {
    let (shop, first, _) = Shop::open().await;
    let (status, said) = Process::spawn(&shop.options).ended().await;
    assert!(!status.success());
    assert!(said.contains("belongs to a running proxy"), "{said}");
    assert!(said.contains("--take-over"), "{said}");
    shop.led_by(&first).await;

    first.kill();
    let alone = shop.handover(2).await;
    assert_eq!(shop.led_by(&alone).await.services["shop"].state, "open");
}

async fn killed_in_a_hold() {
    let (shop, first, _) = Shop::open().await;
    let mut hold = Shop::hold(3);
    // The next proxy is up, and was asked, before it runs out, also on a busy machine.
    hold.max_hold_ms = 5_000;
    shop.admin.hold(&hold).await.expect("held");
    first.kill();

    let (second, address) = shop.start().await;
    let arrived = shop.blue.arrived();
    let status = shop.led_by(&second).await;
    assert_eq!(status.services["shop"].state, "held");
    assert_eq!(status.services["shop"].color, Some(Color::Blue));
    assert_eq!(status.epoch, 3); // G6
    let waiting = send(Client::connect(address).await.expect("connected"), "/");
    until("it waits", async || {
        let counts = shop.ask_admin("GET", "/v1/counts").await.body;
        counts.contains("\"held\":1").then_some(())
    })
    .await;
    assert_eq!(shop.blue.arrived(), arrived);

    let response = tokio::time::timeout(Duration::from_mins(2), waiting).await;
    let response = response
        .expect("the fresh deadline passes")
        .expect("answered");
    assert_eq!(response.body, "blue"); // G3
    let stale = ServicesRequest {
        epoch: 2,
        services: vec!["shop".to_owned()],
    };
    shop.admin.park(&stale).await.expect_err("older than 3"); // G6
}

// G1: between the two it may have admitted requests to green.
async fn killed_between_flip_and_writing() {
    let (shop, first, _) = Shop::open().await;
    // Opened for the first time together with it, so that what is written after the flip is longer
    // than everything that is written before.
    let others: Vec<_> = (0..20).map(|number| format!("other-{number}")).collect();
    for name in &others {
        let settings = ServiceSettings {
            hosts: Vec::new(),
            path_prefix: format!("/{name}"),
            blue: shop.blue.address.to_string(),
            green: shop.green.address.to_string(),
            request_timeout_ms: 60_000,
        };
        shop.admin.define(name, &settings).await.expect("defined");
    }
    let mut hold = Shop::hold(1_000_000);
    // The next proxy is up, and was asked, before it runs out, also on a busy machine.
    hold.max_hold_ms = 5_000;
    shop.admin.hold(&hold).await.expect("held");
    let written = std::fs::metadata(&shop.options.state).expect("a state file");
    first.die_at_a_file_of(written.len() + 300);
    let services = others.into_iter().chain(["shop".to_owned()]);
    let open = OpenRequest {
        epoch: 1_000_000,
        services: services.map(|name| (name, Some(Color::Green))).collect(),
    };
    shop.admin.open(&open).await.expect_err("the proxy died");
    let (status, said) = first.ended().await;
    assert_eq!(status.signal(), Some(Signal::XFSZ.as_raw()), "{said}");

    let (second, address) = shop.start().await;
    let arrived = shop.blue.arrived();
    let status = shop.led_by(&second).await;
    assert_eq!(status.services["shop"].state, "held");
    let waiting = send(Client::connect(address).await.expect("connected"), "/");
    let response = tokio::time::timeout(Duration::from_mins(2), waiting).await;
    let response = response.expect("the fresh deadline passes");
    assert_eq!(response.expect("answered").status, 503);
    let status = shop.led_by(&second).await;
    assert_eq!(status.services["shop"].state, "shed");
    assert_eq!(shop.blue.arrived(), arrived);
    shop.open_to(1_000_000, Color::Green).await;

    assert_eq!(get(address).await, "green");
}

async fn restarted_before_the_application() {
    let (shop, first, _) = Shop::open().await;
    // An application that is not up yet: an address that refuses.
    let later = reserve_address().expect("a port is free");
    let settings = ServiceSettings {
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        blue: later.to_string(),
        green: shop.green.address.to_string(),
        request_timeout_ms: 60_000,
    };
    shop.admin.define("shop", &settings).await.expect("defined");
    first.kill();

    let (_second, address) = shop.start().await;
    let waiting = send(Client::connect(address).await.expect("connected"), "/");
    until("it waits", async || {
        let status = shop.admin.status().await.expect("a status");
        (!waiting.is_finished() && status.services["shop"].state == "open").then_some(())
    })
    .await;
    let listener = tokio::net::TcpListener::bind(later).await;
    let _app = App::on("late", listener.expect("the port is free still"));

    let response = waiting.await.expect("answered");
    assert_eq!((response.status, response.body.as_str()), (200, "late")); // G3
}

async fn told_to_stop() {
    let (shop, proxy, address) = Shop::open().await;
    let in_flight = send(Client::connect(address).await.expect("connected"), "/slow");
    until("the slow request is there", async || {
        (shop.blue.arrived() == 1).then_some(())
    })
    .await;

    proxy.terminate();
    until("it accepts nothing more", async || {
        Client::connect(address).await.err()
    })
    .await;
    assert!(!in_flight.is_finished());
    shop.blue.release();

    assert_eq!(in_flight.await.expect("answered").body, "blue"); // G7
    assert!(proxy.ended().await.0.success());
    assert!(!shop.options.admin.exists());
}

async fn told_to_stop_before_the_first_request() {
    let (_shop, proxy, address) = Shop::open().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(address).await.expect("connected"));
    }
    until("they are accepted", async || {
        (accepted(address) == 4).then_some(())
    })
    .await;

    proxy.terminate();
    until("it accepts nothing more", async || {
        Client::connect(address).await.err()
    })
    .await;

    for mut client in clients {
        let response = client.get("/").await.expect("answered"); // G3
        assert_eq!((response.status, response.closes()), (200, true));
    }
    assert!(proxy.ended().await.0.success());
}

async fn told_to_stop_with_a_tunnel() {
    let mut shop = Shop::new().await;
    shop.options.stop_timeout = Duration::from_millis(100);
    let (mut proxy, address) = shop.start().await;
    shop.define().await;
    shop.open_to(0, Color::Blue).await;
    let tunnel = Client::connect(address).await.expect("connected");
    let mut tunnel = tunnel.upgrade().await.expect("upgraded");
    echo(&mut tunnel).await.expect("the tunnel goes on");
    assert!(proxy.is_alive());

    proxy.terminate();

    assert!(proxy.ended().await.0.success());
    echo(&mut tunnel).await.expect_err("the tunnel has ended");
}
