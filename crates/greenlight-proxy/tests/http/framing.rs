//! Where a message begins and ends: what is ambiguous is refused or made unambiguous, in both
//! directions, so that the proxy and an application never disagree.

use super::lab::{GET, Lab, OK};
use super::wire::Wire;

#[tokio::test]
async fn a_request_with_a_length_and_chunks_goes_on_by_its_chunks_alone_and_ends_its_connection() {
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let lab = Lab::start().await;
        let mut client = lab.client().await;
        let smuggled = "GET /admin HTTP/1.1\r\nhost: shop\r\n\r\n";
        let request = format!("POST / HTTP/1.1\r\nhost: shop\r\n{fields}\r\n0\r\n\r\n{smuggled}");
        client.send(request).await;
        let mut app = lab.blue.accept().await;
        let head = app.head().await;
        assert_eq!(head.get("content-length"), None);
        assert_eq!(head.get("transfer-encoding"), Some("chunked"));
        assert_eq!(app.chunks().await.0, b"");
        app.send(OK).await;
        assert_eq!(client.response().await.status(), 200);
        client.end().await;
        assert!(app.is_silent().await, "the smuggled request was sent");
        assert!(lab.blue.is_alone().await);
    }
}

#[tokio::test]
async fn lengths_that_differ_are_refused_and_equal_ones_become_one() {
    let lab = Lab::start().await;
    for lengths in [
        "3\r\ncontent-length: 4",
        "3, 4",
        "-3",
        "+3",
        "0x3",
        "3 3",
        "99999999999999999999",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {lengths}\r\n\r\nabcd");
        refused(&lab, &request, 400).await;
    }
    let mut client = lab.client().await;
    let twice = "content-length: 3\r\ncontent-length: 3";
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: shop\r\n{twice}\r\n\r\nabc"
        ))
        .await;
    let mut app = lab.blue.accept().await;
    assert_eq!(app.head().await.get("content-length"), Some("3"));
    app.expect("abc").await;
}

#[tokio::test]
async fn heads_that_are_not_http_are_refused() {
    let lab = Lab::start().await;
    for field in [
        "x-a: 1\r\n folded: 2",
        "x a: 1",
        "x-a : 1",
        ": 1",
        "x-a: \0",
        "x-a: 1\rx-b: 2",
        "x(a): 1",
        "no colon",
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: shop\r\n{field}\r\n\r\n");
        refused(&lab, &request, 400).await;
    }
    for line in [
        "GET / HTTP/2.0",
        "GET /a b HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET /",
    ] {
        refused(&lab, &format!("{line}\r\nhost: shop\r\n\r\n"), 400).await;
    }
}

#[tokio::test]
async fn lines_that_end_in_a_bare_line_feed_are_sent_on_as_proper_lines() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send("GET /a HTTP/1.1\nhost: shop\nx-a: 1\n\n").await;
    let mut app = lab.blue.accept().await;
    let head = app.head().await;
    assert_eq!(head.line, "GET /a HTTP/1.1");
    assert_eq!(head.get("x-a"), Some("1"));
}

#[tokio::test]
async fn chunks_that_are_not_chunks_end_the_request_before_it_is_whole() {
    for garbage in [
        "zz\r\n",
        "-1\r\nx\r\n",
        "2\r\nabX\r\n",
        "ffffffffffffffffff\r\n",
        "1\nx\n0\n\n",
    ] {
        let lab = Lab::start().await;
        lab.count_from_here(2).await;
        let mut client = lab.client().await;
        let head = "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send(format!("{head}3\r\nabc\r\n{garbage}")).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        let body = app.rest().await;
        assert!(!body.ends_with(b"0\r\n\r\n"), "it looks whole");
        assert_eq!(client.response().await.status(), 400, "{garbage:?}");
        client.end().await;
        assert_eq!(lab.evidence(2).await.failed, 0, "the client is to blame");
    }
}

#[tokio::test]
async fn transfer_codings_other_than_chunked_are_refused() {
    let lab = Lab::start().await;
    for coding in ["gzip", "xchunked", "chunked, gzip", "identity"] {
        let head = format!("POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: {coding}\r\n\r\n");
        refused(&lab, &head, 400).await;
    }
    let head = "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: gzip, chunked\r\n\r\n";
    refused(&lab, &format!("{head}0\r\n\r\n"), 501).await;
    let head = "POST / HTTP/1.0\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n";
    refused(&lab, &format!("{head}0\r\n\r\n"), 400).await;
}

#[tokio::test]
async fn an_http_1_0_client_is_answered_in_its_version_and_its_connection_ends() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.0\r\nhost: shop\r\n\r\n").await;
    let mut app = lab.blue.accept().await;
    assert_eq!(app.head().await.line, "GET / HTTP/1.1");
    // It knows no chunks: the end of the connection is the end of the response.
    app.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(head.line, "HTTP/1.0 200 OK");
    assert_eq!(head.get("transfer-encoding"), None);
    assert_eq!(client.rest().await, b"ok");
}

#[tokio::test]
async fn an_http_1_0_client_that_asks_for_it_keeps_its_connection() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let request = "GET / HTTP/1.0\r\nhost: shop\r\nconnection: keep-alive\r\n\r\n";
    client.send(request).await;
    let mut app = lab.blue.serve_one().await;
    let response = client.response().await;
    assert_eq!(response.head.get("connection"), Some("keep-alive"));
    client.send(request).await;
    app.head().await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn a_request_names_one_host_and_a_possible_one() {
    let lab = Lab::start().await;
    for fields in [
        "x-a: 1",
        "host: a\r\nhost: b",
        "host: a\r\nhost: a",
        "host: a b",
        "host: a\"b",
        "host: a/b",
        "host: user@a",
        "host: a,b",
    ] {
        refused(&lab, &format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"), 400).await;
    }
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut app = lab.blue.accept().await;
    // HTTP/1.1 needs one.
    assert_eq!(app.head().await.get("host"), Some("localhost"));
}

#[tokio::test]
async fn an_absolute_target_names_the_host_and_is_made_relative() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client
        .send("GET http://real.example:81/a?b HTTP/1.1\r\nhost: other\r\n\r\n")
        .await;
    let mut app = lab.blue.accept().await;
    let head = app.head().await;
    assert_eq!(head.line, "GET /a?b HTTP/1.1");
    assert_eq!(head.get("host"), Some("real.example:81"));
    assert_eq!(head.get("x-forwarded-host"), Some("real.example:81"));
}

#[tokio::test]
async fn options_of_the_whole_server_reach_the_application_and_connect_does_not() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client
        .send("OPTIONS * HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await;
    let mut app = lab.blue.accept().await;
    assert_eq!(app.head().await.line, "OPTIONS * HTTP/1.1");
    app.send(OK).await;
    assert_eq!(client.response().await.status(), 200);
    refused(
        &lab,
        "CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n",
        405,
    )
    .await;
    assert!(app.is_silent().await);
}

#[tokio::test]
async fn the_answer_to_head_has_the_length_and_no_body() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send("HEAD / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n")
        .await;
    assert_eq!(client.head().await.get("content-length"), Some("12"));
    // Without a length, none is made up.
    client.send("HEAD / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(client.head().await.get("content-length"), None);
    client.send(GET).await;
    lab.blue.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn answers_that_cannot_have_a_body_have_none() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let mut app = None;
    for head in [
        "204 No Content\r\n",
        "304 Not Modified\r\netag: \"a\"\r\n",
        "304 Not Modified\r\ncontent-length: 12\r\n",
    ] {
        client.send(GET).await;
        let app: &mut Wire = match &mut app {
            Some(app) => app,
            none => none.insert(lab.blue.accept().await),
        };
        app.head().await;
        app.send(format!("HTTP/1.1 {head}\r\n")).await;
        let response = client.head().await;
        assert!(matches!(response.status(), 204 | 304), "{response:?}");
        assert_eq!(response.get("transfer-encoding"), None);
    }
    client.send(GET).await;
    let app = app.as_mut().expect("it was used three times");
    app.head().await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn an_answer_with_a_length_and_chunks_goes_on_without_the_length() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    let fields = "content-length: 1\r\ntransfer-encoding: chunked";
    app.send(format!(
        "HTTP/1.1 200 OK\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    ))
    .await;
    let response = client.response().await;
    assert_eq!(response.head.get("content-length"), None);
    assert_eq!(response.text(), "abc");
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_chunked_for_the_client_who_keeps_his() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    for version in ["1.0", "1.1"] {
        client.send(GET).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send(format!("HTTP/{version} 200 OK\r\n\r\nall of it"))
            .await;
        app.finish().await;
        let response = client.response().await;
        assert_eq!(response.head.line, "HTTP/1.1 200 OK");
        assert_eq!(response.head.get("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), "all of it");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_to_look_whole() {
    for head in [
        "content-length: 10\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let lab = Lab::start().await;
        lab.count_from_here(2).await;
        let mut client = lab.client().await;
        client.send(GET).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send(format!("HTTP/1.1 200 OK\r\n{head}")).await;
        drop(app);
        client.head().await;
        let body = client.rest().await;
        assert!(!body.ends_with(b"0\r\n\r\n"), "it looks whole");
        let evidence = lab.until_evidence(2, |seen| seen.failed > 0).await;
        assert_eq!(evidence.failed, 1);
        assert_eq!(lab.status().await.blue.requests, 0);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_502_counted_and_not_asked_for_again() {
    for nonsense in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nx a: 1\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 2",
    ] {
        let lab = Lab::start().await;
        lab.count_from_here(2).await;
        let mut client = lab.client().await;
        client.send(GET).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send(nonsense).await;
        app.finish().await;
        assert_eq!(client.response().await.status(), 502, "{nonsense:?}");
        let evidence = lab.evidence(2).await;
        assert_eq!((evidence.failed, evidence.retried), (1, 0));
        assert!(lab.blue.is_alone().await);
    }
}

#[tokio::test]
async fn interim_answers_are_passed_on_before_the_final_one() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    let hints = "link: </a.css>; rel=preload\r\nconnection: x-mine\r\nx-mine: 1\r\n";
    app.send(format!("HTTP/1.1 103 Early Hints\r\n{hints}\r\n"))
        .await;
    let early = client.head().await;
    assert_eq!(early.line, "HTTP/1.1 103 Early Hints");
    assert_eq!(early.get("link"), Some("</a.css>; rel=preload"));
    assert_eq!(early.get("x-mine"), None);
    // Together with the final response, and one that nobody asked for.
    let more = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b.css>\r\n\r\n";
    app.send(format!("{more}{OK}")).await;
    assert_eq!(client.head().await.get("link"), Some("</b.css>"));
    assert_eq!(client.response().await.text(), "ok");
    client.send(GET).await;
    app.head().await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_interim_answer() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.0\r\nhost: shop\r\n\r\n").await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send(format!(
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n{OK}"
    ))
    .await;
    assert_eq!(client.response().await.status(), 200);
}

#[tokio::test]
async fn a_chunked_get_keeps_its_body() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let head = "GET /_search HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nquery\r\n0\r\n\r\n")).await;
    let mut app = lab.blue.accept().await;
    assert_eq!(app.head().await.get("transfer-encoding"), Some("chunked"));
    assert_eq!(app.chunks().await.0, b"query");
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let head = "POST / HTTP/1.1\r\nhost: shop\r\nte: trailers\r\nconnection: te\r\n\
                trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n";
    client
        .send(format!("{head}3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n"))
        .await;
    let mut app = lab.blue.accept().await;
    let head = app.head().await;
    assert_eq!(head.get("trailer"), Some("x-sum"));
    assert_eq!(head.get("te"), Some("trailers"));
    assert_eq!(app.chunks().await, (b"abc".to_vec(), "x-sum: 6".to_owned()));
    let head = "HTTP/1.1 200 OK\r\ntrailer: x-md5\r\ntransfer-encoding: chunked\r\n\r\n";
    app.send(format!("{head}2\r\nok\r\n0\r\nx-md5: 7\r\n\r\n"))
        .await;
    let response = client.response().await;
    assert_eq!(response.text(), "ok");
    assert_eq!(response.trailers, "x-md5: 7");
}

/// The request is refused, its connection ends, and nothing of it reaches the application.
async fn refused(lab: &Lab, request: &str, status: u16) {
    let mut client = lab.client().await;
    client.send(request).await;
    let response = client.head().await;
    assert_eq!(response.status(), status, "{request:?}");
    assert!(lab.blue.is_alone().await, "{request:?}");
}
