//! Plain requests, which are passed on without hyper: together with others on one connection,
//! answered in every framing and in every piece, and on connections that cannot be trusted.

use super::lab::{GET, Lab, OK};
use super::wire::Wire;
use std::time::Duration;

const CHUNKED_POST: &str = "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n\
                            3\r\nabc\r\n0\r\n\r\n";

#[tokio::test]
async fn a_connection_goes_on_when_a_request_comes_that_is_not_plain() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let mut app: Option<Wire> = None;
    for request in [GET, GET, CHUNKED_POST, GET, CHUNKED_POST] {
        client.send(request).await;
        let app = match &mut app {
            Some(app) => app,
            none => none.insert(lab.blue.accept().await),
        };
        app.head().await;
        if request == CHUNKED_POST {
            assert_eq!(app.chunks().await.0, b"abc");
        }
        app.send(OK).await;
        assert_eq!(client.response().await.text(), "ok");
    }
    // All of it took one connection to the application.
    assert!(lab.blue.is_alone().await);
    assert_eq!(lab.status().await.blue.total(), 0);
}

#[tokio::test]
async fn pipelined_requests_of_all_kinds_are_answered_one_after_the_other() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let post = "POST /2 HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\n\r\nabc";
    client
        .send(format!("{GET}{post}{CHUNKED_POST}{GET}{post}"))
        .await;
    let mut app = lab.blue.accept().await;
    for (number, body) in ["", "abc", "3\r\nabc\r\n0\r\n\r\n", "", "abc"]
        .into_iter()
        .enumerate()
    {
        app.head().await;
        app.expect(body).await;
        assert!(app.is_silent().await, "the next came before the response");
        app.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}"
        ))
        .await;
        assert_eq!(client.response().await.text(), number.to_string());
    }
}

#[tokio::test]
async fn a_long_head_without_a_body_is_passed_on() {
    let long = "a".repeat(3_000);
    for (head, status) in [
        (
            format!("201 Created\r\nx-long: {long}\r\ncontent-length: 0"),
            201,
        ),
        (format!("304 Not Modified\r\netag: \"{long}\""), 304),
        (
            format!("302 Found\r\nlocation: /\r\nset-cookie: {long}\r\ncontent-length: 0"),
            302,
        ),
    ] {
        let lab = Lab::start().await;
        let mut client = lab.client().await;
        client.send(GET).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send(format!("HTTP/1.1 {head}\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status(), status);
        // And the connections are as good as before.
        client.send(GET).await;
        app.head().await;
        app.send(format!("HTTP/1.1 103 Early Hints\r\nlink: {long}\r\n\r\n"))
            .await;
        assert_eq!(client.head().await.status(), 103);
        app.send(format!(
            "HTTP/1.1 200 OK\r\nx-long: {long}\r\ncontent-length: 2\r\n\r\n"
        ))
        .await;
        app.send("ok").await;
        assert_eq!(client.response().await.text(), "ok");
    }
}

#[tokio::test]
async fn what_comes_after_the_answer_to_head_reaches_no_other_client() {
    let lab = Lab::start().await;
    for head in [
        "HEAD / HTTP/1.1\r\nhost: shop\r\n",
        "HEAD / HTTP/1.1\r\nhost: shop\r\nte: trailers\r\n",
    ] {
        let mut client = lab.client().await;
        client.send(format!("{head}\r\n")).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n")
            .await;
        assert_eq!(client.head().await.status(), 200);

        let mut victim = lab.client().await;
        victim.send(GET).await;
        let other = lab.blue.accept().await;
        // It is too late for the connection on which it would be a response.
        let _ = app
            .try_send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL")
            .await;
        let mut other = other;
        other.head().await;
        other
            .send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
            .await;
        assert_eq!(victim.response().await.text(), "ok");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_although_it_has_sent_something_more() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(format!("{GET}\r\n")).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    drop(client);
    app.end().await;
}

#[tokio::test]
async fn a_request_may_come_in_any_two_pieces() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let request = "PUT /a?b HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\nx-a: 1\r\n\r\nabc";
    let mut app = None;
    for cut in 1..request.len() {
        // One that is cut in its body takes its connection to hyper, so each cut has its own.
        if request.as_bytes()[..cut].ends_with(b"\r\n\r\n") {
            client = lab.client().await;
        }
        client.send(&request[..cut]).await;
        pause().await;
        client.send(&request[cut..]).await;
        let app: &mut Wire = match &mut app {
            Some(app) => app,
            none => none.insert(lab.blue.accept().await),
        };
        let head = app.head().await;
        assert_eq!(head.line, "PUT /a?b HTTP/1.1", "{cut}");
        assert_eq!(head.get("x-a"), Some("1"), "{cut}");
        app.expect("abc").await;
        app.send(OK).await;
        assert_eq!(client.response().await.text(), "ok", "{cut}");
    }
}

#[tokio::test]
async fn an_answer_in_any_framing_may_come_in_any_two_pieces() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let mut app = None;
    for (response, status, text) in [
        (OK, 200, "ok"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
            304,
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
            200,
            "abc0123456789",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            200,
            "",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length:2\r\n\r\nno",
            404,
            "no",
        ),
        (
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
            200,
            "ok",
        ),
    ] {
        for cut in 1..=response.len() {
            client.send(GET).await;
            let app: &mut Wire = match &mut app {
                Some(app) => app,
                none => none.insert(lab.blue.accept().await),
            };
            app.head().await;
            app.send(&response[..cut]).await;
            pause().await;
            app.send(&response[cut..]).await;
            if status == 304 {
                // It has a length and no body.
                assert_eq!(client.head().await.status(), status, "{cut}");
                continue;
            }
            let got = client.response().await;
            assert_eq!(got.status(), status, "{response:?} {cut}");
            assert_eq!(got.body, text.as_bytes(), "{response:?} {cut}");
        }
    }
    assert!(lab.blue.is_alone().await);
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_may_come_in_any_two_pieces() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let response = "HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\nall of it";
    for cut in 1..=response.len() {
        client.send(GET).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send(&response[..cut]).await;
        pause().await;
        app.send(&response[cut..]).await;
        app.finish().await;
        let got = client.response().await;
        assert_eq!(got.head.get("transfer-encoding"), Some("chunked"));
        assert_eq!(got.text(), "all of it", "{cut}");
    }
}

#[tokio::test]
async fn chunks_of_an_answer_that_are_not_chunks_are_not_made_to_look_whole() {
    for garbage in [
        "\r\n\r\n",
        "zz\r\n",
        "-1\r\nx\r\n",
        " 1\r\nx\r\n",
        "2\r\nabX\r\n",
        "1;a\x01\r\nx\r\n",
        "1;a\nb\r\nx\r\n",
        "fffffffffffffffff\r\n",
        "1\nx\n0\n\n",
        "0\r\nno field\r\n\r\n",
        "0\r\n\n",
    ] {
        let lab = Lab::start().await;
        lab.count_from_here(2).await;
        let mut client = lab.client().await;
        client.send(GET).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        client.head().await;
        client.expect("3\r\nabc\r\n").await;
        app.send(garbage).await;
        app.finish().await;
        let rest = client.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{garbage:?} looks whole");
        lab.until_evidence(2, |seen| seen.failed == 1).await;
        assert_eq!(lab.status().await.blue.total(), 0);
    }
}

#[tokio::test]
async fn lengths_of_an_answer_that_can_be_read_in_two_ways_are_502() {
    for fields in [
        "content-length: 1\r\ncontent-length: 2",
        "content-length: 1, 2",
        "content-length: +2",
        "content-length: 0x2",
        "content-length:",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: xchunked",
    ] {
        let lab = Lab::start().await;
        lab.count_from_here(2).await;
        let mut client = lab.client().await;
        client.send(GET).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"))
            .await;
        assert_eq!(client.response().await.status(), 502, "{fields:?}");
        app.end().await;
        assert_eq!(lab.evidence(2).await.failed, 1);
        // The client's connection is as good as before.
        client.send(GET).await;
        lab.blue.serve_one().await;
        assert_eq!(client.response().await.text(), "ok");
    }
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2, 2\r\n\r\nok")
        .await;
    let response = client.response().await;
    assert_eq!(response.head.get("content-length"), Some("2"));
    assert_eq!(response.text(), "ok");
}

#[tokio::test]
async fn what_comes_after_an_answer_is_not_taken_for_the_next_one() {
    let surplus = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nsurplus";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    for response in [OK, chunked] {
        for is_later in [false, true] {
            let lab = Lab::start().await;
            let mut client = lab.client().await;
            client.send(GET).await;
            let mut app = lab.blue.accept().await;
            app.head().await;
            if is_later {
                app.send(response).await;
                assert_eq!(client.response().await.text(), "ok");
                app.send(surplus).await;
            } else {
                app.send(format!("{response}{surplus}")).await;
                assert_eq!(client.response().await.text(), "ok");
            }
            app.end().await;
            client.send(GET).await;
            lab.blue.serve_one().await;
            assert_eq!(client.response().await.text(), "ok");
        }
    }
}

#[tokio::test]
async fn the_trailers_of_an_answer_are_for_those_who_asked_for_them() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-md5: 7\r\n\r\n",
    )
    .await;
    let response = client.response().await;
    assert_eq!((response.text(), response.trailers.as_str()), ("ok", ""));
    client.send(GET).await;
    lab.blue.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn connections_that_the_application_closes_are_closed_without_being_asked_for() {
    let lab = Lab::start().await;
    let mut clients = Vec::new();
    let mut apps = Vec::new();
    for _ in 0..5 {
        let mut client = lab.client().await;
        client.send(GET).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        clients.push(client);
        apps.push(app);
    }
    for (client, app) in clients.iter_mut().zip(&mut apps) {
        app.send(OK).await;
        assert_eq!(client.response().await.text(), "ok");
    }
    for app in &mut apps {
        app.finish().await;
        app.end().await;
    }
    clients[0].send(GET).await;
    lab.blue.serve_one().await;
    assert_eq!(clients[0].response().await.text(), "ok");
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_takes_its_request_with_it() {
    let lab = Lab::start().await;
    lab.count_from_here(2).await;
    for part in ["", "HTTP/1.1 200 OK\r\nconte"] {
        let mut client = lab.client().await;
        client.send(GET).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send(part).await;
        drop(client);
        app.end().await;
        lab.until_status(|status| status.blue.total() == 0).await;
    }
    let evidence = lab.evidence(2).await;
    assert_eq!((evidence.failed, evidence.retried), (0, 0));
}

#[tokio::test]
async fn answers_say_when_they_were_made_and_once() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send(OK).await;
    let response = client.response().await;
    let date = response.head.get("date").expect("a date");
    assert!(date.ends_with(" GMT"), "{date}");
    client.send(GET).await;
    app.head().await;
    app.send("HTTP/1.1 200 OK\r\nDate: then\r\ncontent-length: 2\r\n\r\nok")
        .await;
    let head = client.response().await.head;
    assert_eq!((head.get("Date"), head.get("date")), (Some("then"), None));
}

/// Long enough that what was sent before is most likely read before what comes after. If it is
/// not, the test tests less, and does not fail.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
