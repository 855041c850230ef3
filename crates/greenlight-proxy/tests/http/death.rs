//! Applications that die, or are not there: what can be sent again is, what cannot is 502, and
//! nobody is told so before the time is up.

use super::lab::{App, GET, Lab, OK, SHOP};
use super::wire::Wire;
use greenlight_admin::{Color, OpenRequest};
use greenlight_proxy::Limits;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn a_request_for_an_application_that_refuses_connections_waits_until_it_is_back() {
    let mut lab = Lab::start().await;
    let address = lab.kill_blue().await;
    let mut client = lab.client().await;
    client
        .send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\n\r\nabc")
        .await;
    assert!(client.is_silent().await, "answered without an application");
    let app = App::start_at(address);
    let mut app = app.accept().await;
    app.head().await;
    app.expect("abc").await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn a_request_that_waits_follows_its_application_to_another_address() {
    let mut lab = Lab::start().await;
    lab.kill_blue().await;
    let (mut plain, mut other) = (lab.client().await, lab.client().await);
    plain.send(GET).await;
    other
        .send("GET / HTTP/1.1\r\nhost: shop\r\nte: trailers\r\n\r\n")
        .await;
    assert!(plain.is_silent().await && other.is_silent().await);

    // A container that was started again has another address.
    lab.blue = App::start().await;
    lab.define(SHOP, &[], "/", 120_000).await;

    for client in [&mut plain, &mut other] {
        lab.blue.serve_one().await;
        assert_eq!(client.response().await.text(), "ok");
    }
}

#[tokio::test]
async fn a_request_that_kills_every_application_it_is_sent_to_is_given_up() {
    let lab = Lab::start().await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let deaths = async {
        let mut deaths = 0;
        loop {
            let mut app = lab.blue.accept().await;
            app.head().await;
            deaths += 1;
            drop(app);
            if deaths > 5 {
                return deaths;
            }
        }
    };
    let (deaths, response) = tokio::join!(deaths, client.response());
    assert_eq!((deaths, response.status()), (6, 502));
    assert!(lab.blue.is_alone().await, "it was sent once more");
    assert_eq!(lab.evidence(2).await.retried, 5);
}

#[tokio::test]
async fn a_request_for_a_dead_application_goes_to_whatever_the_gate_opens_to() {
    let mut lab = Lab::start().await;
    lab.kill_blue().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    lab.hold(2).await;
    lab.open(2, Color::Green).await;
    lab.green.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn a_request_for_an_application_that_stays_dead_is_504_when_its_time_is_up() {
    let mut lab = Lab::with(Limits::default(), Duration::from_millis(200)).await;
    lab.count_from_here(2).await;
    lab.kill_blue().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    assert_eq!(client.response().await.status(), 504);
    assert_eq!(lab.evidence(2).await.failed, 1);
    // The connection is as good as before.
    client.send(GET).await;
    assert_eq!(client.response().await.status(), 504);
}

#[tokio::test]
async fn past_the_bound_of_waiting_requests_a_dead_service_is_refused_and_others_are_served() {
    let limits = Limits {
        max_held: 2,
        max_waiting: 2,
        ..Limits::default()
    };
    let mut lab = Lab::with_limits(limits).await;
    lab.count_from_here(2).await;
    let address = lab.kill_blue().await;
    lab.define("mail", &["mail"], "/", 120_000).await;
    let command = OpenRequest {
        epoch: 1,
        services: [("mail".to_owned(), Some(Color::Blue))].into(),
    };
    lab.admin.open(&command).await.expect("an open gate");
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = lab.client().await;
        client.send(GET).await;
        assert!(client.is_silent().await, "answered without an application");
        waiting.push(client);
    }

    let mut refused = lab.client().await;
    refused.send(GET).await;
    let response = refused.response().await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.head.get("retry-after"), Some("1"));
    assert_eq!(lab.evidence(2).await.failed, 1);
    let mut other = lab.client().await;
    other.send("GET / HTTP/1.1\r\nhost: mail\r\n\r\n").await;
    lab.blue.serve_one().await;
    assert_eq!(other.response().await.text(), "ok");

    // A client that leaves makes room, and those that waited are served when they can be.
    drop(waiting.pop());
    let app = App::start_at(address).answer_all("back");
    refused.send(GET).await;
    assert_eq!(refused.response().await.text(), "back");
    for client in &mut waiting {
        assert_eq!(client.response().await.text(), "back");
    }
    app.abort();
}

#[tokio::test]
async fn requests_that_waited_for_a_dead_application_are_held_by_a_gate_that_closes() {
    let limits = Limits {
        max_held: 2,
        max_waiting: 1,
        ..Limits::default()
    };
    let mut lab = Lab::with_limits(limits).await;
    lab.kill_blue().await;
    let mut first = lab.client().await;
    first.send(GET).await;
    assert!(first.is_silent().await, "answered without an application");
    lab.hold(2).await;
    lab.until_evidence(2, |seen| seen.held == 1).await;
    // It waits for the gate now: one that comes later may wait with it, also in a room for one.
    let mut second = lab.client().await;
    second.send(GET).await;
    lab.until_evidence(2, |seen| seen.held == 2).await;
    lab.open(2, Color::Green).await;
    let green = lab.take_green().await.answer_all("green");
    for client in [&mut first, &mut second] {
        assert_eq!(client.response().await.text(), "green");
    }
    green.abort();
}

#[tokio::test]
async fn an_application_that_accepts_and_never_answers_is_504_and_not_asked_again() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    assert_eq!(client.response().await.status(), 504);
    app.end().await;
    assert!(lab.blue.is_alone().await);
    let evidence = lab.evidence(2).await;
    assert_eq!((evidence.failed, evidence.retried), (1, 0));
    assert_eq!(lab.status().await.blue.total(), 0);
}

#[tokio::test]
async fn an_idempotent_request_under_which_the_application_died_is_sent_again() {
    for (request, body) in [
        (GET, ""),
        ("HEAD / HTTP/1.1\r\nhost: shop\r\n\r\n", ""),
        (
            "PUT / HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
        ),
        (
            "DELETE / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\ntrailer: x-a\r\n\r\n3\r\nabc\r\n0\r\nx-a: 1\r\n\r\n",
            "3\r\nabc\r\n0\r\nx-a: 1\r\n\r\n",
        ),
    ] {
        let lab = Lab::start().await;
        lab.count_from_here(2).await;
        let mut client = lab.client().await;
        client.send(request).await;
        let mut app = lab.blue.accept().await;
        let first = app.head().await;
        app.expect(body).await;
        drop(app);
        let mut app = lab.blue.accept().await;
        assert_eq!(app.head().await.line, first.line);
        app.expect(body).await;
        app.send(OK).await;
        assert_eq!(client.head().await.status(), 200);
        let evidence = lab.evidence(2).await;
        assert_eq!((evidence.retried, evidence.failed), (1, 0));
    }
}

#[tokio::test]
async fn an_idempotent_request_is_sent_again_to_the_release_that_was_cut_over_to() {
    let mut lab = Lab::start().await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    lab.kill_blue().await;
    drop(app);
    lab.until_evidence(2, |seen| seen.retried == 1).await;
    lab.hold(3).await;
    lab.open(3, Color::Green).await;
    lab.green.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn a_body_that_the_client_is_still_sending_is_sent_again_from_its_start() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client
        .send("PUT / HTTP/1.1\r\nhost: shop\r\ncontent-length: 6\r\n\r\nabc")
        .await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.expect("abc").await;
    drop(app);
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.expect("abc").await;
    client.send("def").await;
    app.expect("def").await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn what_cannot_be_sent_again_is_502_and_counted() {
    let big = "x".repeat(100_000);
    let put = format!(
        "PUT / HTTP/1.1\r\nhost: shop\r\ncontent-length: {}\r\n\r\n{big}",
        big.len()
    );
    let post = "POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\n\r\nabc".to_owned();
    let bare = "POST / HTTP/1.1\r\nhost: shop\r\n\r\n".to_owned();
    for request in [put, post, bare] {
        let lab = Lab::start().await;
        lab.count_from_here(2).await;
        let mut client = lab.client().await;
        client.send(&request).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        let body = request.len() - request.find("\r\n\r\n").expect("a head") - 4;
        app.take(body).await;
        drop(app);
        assert_eq!(client.response().await.status(), 502);
        assert!(lab.blue.is_alone().await, "sent twice");
        let evidence = lab.evidence(2).await;
        assert_eq!((evidence.retried, evidence.failed), (0, 1));
        assert_eq!(lab.status().await.blue.total(), 0);
    }
}

#[tokio::test]
async fn a_request_with_a_byte_of_an_answer_is_not_sent_again() {
    let lab = Lab::start().await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send("H").await;
    drop(app);
    assert_eq!(client.response().await.status(), 502);
    assert!(lab.blue.is_alone().await);
    let evidence = lab.evidence(2).await;
    assert_eq!((evidence.retried, evidence.failed), (0, 1));
}

#[tokio::test]
async fn a_pooled_connection_that_the_application_closed_is_not_used() {
    let lab = Lab::start().await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    for _ in 0..20 {
        client
            .send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\n\r\nabc")
            .await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.expect("abc").await;
        app.send(OK).await;
        assert_eq!(client.response().await.text(), "ok");
        app.finish().await;
        // The proxy has seen it when it has closed its own side.
        app.end().await;
    }
    let evidence = lab.evidence(2).await;
    assert_eq!((evidence.retried, evidence.failed), (0, 0));
}

#[tokio::test]
async fn a_post_that_meets_a_closing_connection_is_never_sent_twice() {
    let lab = Lab::start().await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    let mut received = BTreeMap::new();
    let mut refused = 0;
    for number in 0..200 {
        let request = format!("POST /{number} HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n\r\n");
        client.send(request).await;
        // The application closes as soon as it has answered, while the next request comes.
        let answering = async {
            loop {
                let mut app = lab.blue.accept().await;
                let Some(head) = app.try_head().await else {
                    continue;
                };
                *received.entry(head.line).or_insert(0) += 1;
                app.send(OK).await;
                return;
            }
        };
        let response = tokio::select! {
            response = client.response() => response,
            never = async { answering.await; std::future::pending().await } => never,
        };
        match response.status() {
            200 => {}
            502 => refused += 1,
            status => panic!("{status}"),
        }
    }
    assert!(received.values().all(|times| *times == 1), "{received:?}");
    assert_eq!(lab.evidence(2).await.failed, refused);
}

#[tokio::test]
async fn a_reset_instead_of_an_answer_is_a_death_too() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    // Closing with unread bytes resets the connection.
    let mut stream = lab.blue.accept_stream().await;
    stream.readable().await.expect("a request");
    stream.flush().await.expect("nothing to flush");
    drop(stream);
    let mut app: Wire = lab.blue.accept().await;
    app.head().await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}
