//! The gate in front of real connections: hold, recall, release, shed, and what each promises.

use super::lab::{App, GET, Lab, OK, SHOP};
use super::wire::soon;
use greenlight_admin::{
    AdminError, Color, EvidenceRequest, HoldRequest, OnUncertain, ServicesRequest,
};
use greenlight_proxy::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

// G1
#[tokio::test]
async fn a_keep_alive_connection_survives_a_cut_over_and_its_next_request_goes_to_the_new_release()
{
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut old = lab.blue.serve_one().await;
    client.response().await;
    lab.hold(2).await;
    client.send(GET).await;
    lab.until_evidence(2, |seen| seen.held == 1).await;
    assert!(old.is_silent().await, "admitted during the hold");
    lab.open(2, Color::Green).await;
    lab.green.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
    assert!(old.is_silent().await);
    let evidence = lab.evidence(2).await;
    assert_eq!(
        (evidence.old, evidence.new),
        (Some(Color::Blue), Some(Color::Green))
    );
    assert_eq!((evidence.held, evidence.failed, evidence.shed), (1, 0, 0));
    assert!(evidence.max_held_us > 0);
    assert!(evidence.last_admission_old_ns < evidence.held_at_ns);
    assert!(evidence.held_at_ns < evidence.opened_at_ns);
    assert!(evidence.opened_at_ns < evidence.first_admission_new_ns);
}

#[tokio::test]
async fn evidence_is_waited_for_until_the_new_release_has_a_request_or_the_deadline_passes() {
    let lab = Lab::start().await;
    lab.hold(2).await;
    lab.open(2, Color::Green).await;
    let asked = EvidenceRequest {
        epoch: 2,
        deadline_ms: 60_000,
    };
    let waiting = lab.admin.evidence_after_first_requests(&asked);
    let request = async {
        let mut client = lab.client().await;
        client.send(GET).await;
        lab.green.serve_one().await;
        assert_eq!(client.response().await.text(), "ok");
    };
    let (evidence, ()) = tokio::join!(soon("the evidence", waiting), request);
    let evidence = evidence.expect("evidence").services;
    assert!(evidence[SHOP].first_admission_new_ns.is_some());

    lab.hold(3).await;
    lab.open(3, Color::Blue).await;
    let asked = EvidenceRequest {
        epoch: 3,
        deadline_ms: 1,
    };
    let waiting = lab.admin.evidence_after_first_requests(&asked);
    let evidence = soon("the deadline", waiting).await.expect("evidence");
    assert_eq!(evidence.services[SHOP].new, Some(Color::Blue));
    assert_eq!(evidence.services[SHOP].first_admission_new_ns, None);
}

// G1
#[tokio::test]
async fn after_the_acknowledgement_of_a_hold_nothing_more_reaches_the_old_release() {
    let mut lab = Lab::start().await;
    let received = Arc::new(AtomicU64::new(0));
    let blue = lab
        .take_blue()
        .await
        .answer_and_count("ok", received.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..16 {
        let (mut client, stop) = (lab.client().await, stop.clone());
        clients.push(tokio::spawn(async move {
            while !stop.load(SeqCst) {
                client.send(GET).await;
                assert_eq!(client.response().await.text(), "ok"); // G3
            }
        }));
    }
    for round in 0..30 {
        let epoch = 2 + round;
        let before = received.load(SeqCst);
        let busy = async {
            while received.load(SeqCst) < before + 50 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("fifty requests", busy).await;
        lab.hold(epoch).await;
        let admitted = lab.status().await.admitted_blue;
        // All that was admitted arrives, and then nothing more.
        let all_there = async {
            while received.load(SeqCst) < admitted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("the arrival of what was admitted", all_there).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(received.load(SeqCst), admitted);
        assert_eq!(lab.status().await.admitted_blue, admitted);
        lab.open(epoch, Color::Blue).await;
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.await.expect("no request failed");
    }
    blue.abort();
}

// G1, G3
#[tokio::test]
async fn no_request_is_answered_by_the_old_release_after_one_was_by_the_new() {
    let mut lab = Lab::start().await;
    let blue = lab.take_blue().await.answer_all("blue");
    let green = lab.take_green().await.answer_all("green");
    for round in 0..20 {
        let (to, old, new) = match round % 2 {
            0 => (Color::Green, "blue", "green"),
            _ => (Color::Blue, "green", "blue"),
        };
        let seen_new = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for _ in 0..8 {
            let mut client = lab.client().await;
            let seen_new = seen_new.clone();
            running.push(tokio::spawn(async move {
                let mut after = 0;
                while after < 5 {
                    let new_was_seen = seen_new.load(SeqCst);
                    client.send(GET).await;
                    let response = client.response().await;
                    if response.text() == new {
                        seen_new.store(true, SeqCst);
                        after += 1;
                    } else {
                        assert_eq!(response.text(), old);
                        assert!(!new_was_seen, "the old release after the new");
                    }
                }
            }));
        }
        lab.hold(2 + round).await;
        lab.open(2 + round, to).await;
        for client in running {
            client.await.expect("a good client");
        }
    }
    blue.abort();
    green.abort();
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_across_a_hold() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let request = |number| format!("GET /{number} HTTP/1.1\r\nhost: shop\r\n\r\n");
    client.send(request(1) + &request(2) + &request(3)).await;
    let mut old = lab.blue.accept().await;
    assert_eq!(old.head().await.line, "GET /1 HTTP/1.1");
    lab.hold(2).await;
    old.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
    lab.until_evidence(2, |seen| seen.held == 1).await;
    assert!(old.is_silent().await);
    lab.open(2, Color::Green).await;
    let mut new = lab.green.accept().await;
    for number in [2, 3] {
        assert_eq!(new.head().await.line, format!("GET /{number} HTTP/1.1"));
        new.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}"
        ))
        .await;
        assert_eq!(client.response().await.text(), number.to_string());
    }
}

#[tokio::test]
async fn of_a_held_request_only_the_head_is_read() {
    let lab = Lab::start().await;
    lab.hold(2).await;
    let mut waits = lab.client().await;
    let fields = "expect: 100-continue\r\ncontent-length: 3";
    waits
        .send(format!("PUT / HTTP/1.1\r\nhost: shop\r\n{fields}\r\n\r\n"))
        .await;
    lab.until_evidence(2, |seen| seen.held == 1).await;
    assert!(waits.is_silent().await, "the body was asked for");
    // A small body is not waited for either: the request counts as held without it.
    let mut slow = lab.client().await;
    slow.send("PUT / HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\n\r\n")
        .await;
    lab.until_evidence(2, |seen| seen.held == 2).await;
    // Of a large one, no more is taken than fits on the way.
    let mut large = lab.client_stream().await;
    let size = 64 * 1024 * 1024;
    let head = format!("PUT / HTTP/1.1\r\nhost: shop\r\ncontent-length: {size}\r\n\r\n");
    large.write_all(head.as_bytes()).await.expect("a proxy");
    let zeros = vec![0; size];
    let upload = large.write_all(&zeros);
    let sent = tokio::time::timeout(Duration::from_millis(300), upload).await;
    assert!(sent.is_err(), "a held body was read");
    lab.open(2, Color::Green).await;
    let mut app = lab.green.accept().await;
    app.head().await;
}

#[tokio::test]
async fn a_request_that_waits_for_a_connection_is_recalled_by_a_hold() {
    let mut lab = Lab::start().await;
    let (full, callers) = App::start_full().await;
    lab.blue = full;
    lab.define(SHOP, &[], "/", 120_000).await;
    let mut client = lab.client().await;
    client.send(GET).await;
    lab.until_status(|status| status.blue.requests == 1).await;
    // An exclusive hold waits for requests in flight; nothing of this one was sent.
    let command = HoldRequest {
        exclusive_ms: Some(120_000),
        ..hold_order(2)
    };
    let held = soon("the hold", lab.admin.hold(&command))
        .await
        .expect("a hold");
    assert_eq!(held.services[SHOP].in_flight, 0);
    let evidence = lab.until_evidence(2, |seen| seen.held == 1).await;
    assert_eq!(evidence.recalled, 1);
    lab.open(2, Color::Green).await;
    lab.green.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
    drop(callers);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_held_does_not_reach_the_application() {
    let lab = Lab::start().await;
    lab.hold(2).await;
    let mut leaver = lab.client().await;
    leaver
        .send("GET /leaver HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await;
    lab.until_evidence(2, |seen| seen.held == 1).await;
    drop(leaver);
    let mut stayer = lab.client().await;
    stayer
        .send("GET /stayer HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await;
    lab.until_evidence(2, |seen| seen.held == 2).await;
    lab.open(2, Color::Green).await;
    let mut app = lab.green.accept().await;
    assert_eq!(app.head().await.line, "GET /stayer HTTP/1.1");
    app.send(OK).await;
    assert_eq!(stayer.response().await.text(), "ok");
    assert!(app.is_silent().await);
    assert!(lab.green.is_alone().await);
}

#[tokio::test]
async fn the_gate_itself_opens_to_the_old_release_when_its_deadline_passes() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    lab.hold_for(2, BRIEFLY_MS, OnUncertain::ServeOld).await;
    client.send(GET).await;
    // Nobody speaks to the admin socket any more.
    lab.blue.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
    let evidence = lab.evidence(2).await;
    assert!(evidence.expired);
    assert_eq!((evidence.held, evidence.shed, evidence.new), (1, 0, None));
}

#[tokio::test]
async fn the_gate_itself_sheds_when_its_deadline_passes_if_it_is_told_so() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    lab.hold_for(2, BRIEFLY_MS, OnUncertain::Shed).await;
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.head.get("retry-after"), Some("1"));
    assert!(lab.blue.is_alone().await);
    assert_eq!(lab.evidence(2).await.shed, 1);
    assert_eq!(lab.status().await.state, "shed");
    // The decision comes late, and on the same connection.
    lab.open(2, Color::Green).await;
    client.send(GET).await;
    lab.green.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
}

/// A hold that runs out, and that a request reaches before, also on a busy machine.
const BRIEFLY_MS: u64 = 2_000;

// G1
#[tokio::test]
async fn what_the_old_release_is_admitted_after_its_hold_has_expired_is_evidence() {
    let lab = Lab::start().await;
    lab.hold_for(2, 50, OnUncertain::ServeOld).await;
    lab.until_status(|status| status.state == "open").await;
    let mut client = lab.client().await;
    client.send(GET).await;
    lab.blue.serve_one().await;
    client.response().await;

    let undecided = lab.evidence(2).await;
    lab.open(2, Color::Green).await;
    client.send(GET).await;
    lab.green.serve_one().await;
    client.response().await;
    let decided = lab.evidence(2).await;

    assert!(decided.expired);
    assert!(decided.last_admission_old_ns > decided.held_at_ns);
    assert!(decided.last_admission_old_ns < decided.opened_at_ns);
    assert_eq!(
        decided.last_admission_old_ns,
        undecided.last_admission_old_ns
    );
}

#[tokio::test]
async fn what_is_admitted_after_a_cut_over_was_given_up_or_undone_is_not_of_it() {
    // Given up, and undone by a command that no hold came before.
    for commands in [
        &[(2, Color::Blue)][..],
        &[(2, Color::Green), (3, Color::Blue)],
    ] {
        let lab = Lab::start().await;
        let mut client = lab.client().await;
        client.send(GET).await;
        let mut old = lab.blue.serve_one().await;
        client.response().await;
        lab.hold(2).await;
        for (epoch, color) in commands {
            lab.open(*epoch, *color).await;
        }
        client.send(GET).await;
        old.head().await;
        old.send(OK).await;
        client.response().await;

        let evidence = lab.evidence(2).await;

        assert!(evidence.last_admission_old_ns.is_some());
        assert!(evidence.last_admission_old_ns < evidence.held_at_ns);
    }
}

#[tokio::test]
async fn a_parked_service_has_no_deadline_but_that_of_its_requests() {
    let lab = Lab::with(Limits::default(), Duration::from_millis(200)).await;
    let command = ServicesRequest {
        epoch: 2,
        services: vec![SHOP.to_owned()],
    };
    lab.admin.park(&command).await.expect("a parked service");
    let mut client = lab.client().await;
    client.send(GET).await;
    assert_eq!(client.response().await.status(), 504);
    // The next one has time enough.
    lab.define(SHOP, &[], "/", 60_000).await;
    client.send(GET).await;
    lab.open(2, Color::Green).await;
    lab.green.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn past_the_bound_of_held_requests_connections_wait_in_the_kernels_queue() {
    let limits = Limits {
        max_held: 3,
        ..Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    let opener = lab.client().await;
    lab.hold(2).await;
    let mut clients = Vec::new();
    for count in 1..=3 {
        let mut client = lab.client().await;
        client.send(GET).await;
        lab.until_evidence(2, |seen| seen.held == count).await;
        clients.push(client);
    }
    // These are connected, as far as they know, and refused nothing.
    for _ in 0..5 {
        let mut client = lab.client().await;
        client.send(GET).await;
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(lab.evidence(2).await.held, 3, "a connection past the bound");
    lab.open(2, Color::Green).await;
    let mut lab = lab;
    let green = lab.take_green().await.answer_all("green");
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "green");
    }
    green.abort();
    drop(opener);
}

#[tokio::test]
async fn a_full_gate_lets_others_in_when_held_clients_leave() {
    let limits = Limits {
        max_held: 1,
        ..Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    lab.hold(2).await;
    let mut first = lab.client().await;
    first.send(GET).await;
    lab.until_evidence(2, |seen| seen.held == 1).await;
    let mut second = lab.client().await;
    second.send(GET).await;
    drop(first);
    lab.until_evidence(2, |seen| seen.held == 2).await;
    lab.open(2, Color::Green).await;
    lab.green.serve_one().await;
    assert_eq!(second.response().await.text(), "ok");
}

#[tokio::test]
async fn an_exclusive_hold_waits_for_requests_in_flight_but_not_for_streams() {
    let lab = Lab::start().await;
    let mut listener = lab.client().await;
    listener.send(GET).await;
    let mut events = lab.blue.accept().await;
    events.head().await;
    events
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        .await;
    listener.head().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    let command = HoldRequest {
        exclusive_ms: Some(120_000),
        ..hold_order(2)
    };
    let hold = lab.admin.hold(&command);
    tokio::pin!(hold);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut hold).await;
    assert!(early.is_err(), "a request was in flight");
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
    let held = soon("the hold", hold).await.expect("a hold");
    assert_eq!(held.services[SHOP].in_flight, 1);
    assert_eq!(lab.status().await.blue.streams, 1);
}

#[tokio::test]
async fn an_exclusive_hold_that_takes_too_long_is_given_up_and_kills_nothing() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    let command = HoldRequest {
        exclusive_ms: Some(50),
        ..hold_order(2)
    };
    let refused = soon("the refusal", lab.admin.hold(&command)).await;
    assert!(
        matches!(refused, Err(AdminError::Refused { .. })),
        "{refused:?}"
    );
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
    client.send(GET).await;
    app.head().await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

fn hold_order(epoch: u64) -> HoldRequest {
    HoldRequest {
        epoch,
        services: vec![SHOP.to_owned()],
        max_hold_ms: 120_000,
        on_uncertain: OnUncertain::ServeOld,
        exclusive_ms: None,
    }
}
