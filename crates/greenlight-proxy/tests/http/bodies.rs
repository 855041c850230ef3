//! Bodies on their way: streamed, never piled up, asked for only when wanted, and given up without
//! losing the response.

use super::lab::{GET, Lab, OK};
use super::wire::{Wire, soon};
use greenlight_proxy::Limits;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// More than the kernel's buffers of both connections can take.
const FAR_TOO_MUCH: usize = 64 * 1024 * 1024;
const ASKS: &str =
    "POST / HTTP/1.1\r\nhost: shop\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";

#[tokio::test]
async fn a_client_that_waits_is_asked_for_its_body_when_the_application_says_so() {
    let limits = Limits {
        expect_timeout: Duration::from_hours(1),
        ..Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    let mut client = lab.client().await;
    client.send(ASKS).await;
    let mut app = lab.blue.accept().await;
    assert_eq!(app.head().await.get("expect"), Some("100-continue"));
    assert!(client.is_silent().await, "asked before the application did");
    app.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await.line, "HTTP/1.1 100 Continue");
    client.send("abc").await;
    app.expect("abc").await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
    client.send(GET).await;
    app.head().await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn a_client_that_waits_is_not_asked_for_a_body_that_the_application_refuses() {
    for status in [
        "417 Expectation Failed",
        "413 Content Too Large",
        "401 Unauthorized",
    ] {
        let lab = Lab::start().await;
        let mut client = lab.client().await;
        client.send(ASKS).await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno"))
            .await;
        let response = client.response().await;
        assert!(response.head.line.ends_with(status), "{response:?}");
        // The body may still come or not: neither connection can be used again.
        assert_eq!(response.head.get("connection"), Some("close"));
        client.end().await;
        app.end().await;
    }
}

#[tokio::test]
async fn an_application_that_does_not_know_expectations_gets_the_body_after_a_while() {
    let limits = Limits {
        expect_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    let mut client = lab.client().await;
    client.send(ASKS).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    assert_eq!(client.head().await.status(), 100);
    client.send("abc").await;
    app.expect("abc").await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn bodies_stream_in_both_directions_at_once() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client
        .send("POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client.head().await;
    for word in ["one", "two", "six"] {
        let chunk = format!("3\r\n{word}\r\n");
        client.send(&chunk).await;
        app.expect(&chunk).await;
        app.send(&chunk).await;
        client.expect(&chunk).await;
    }
    client.send("0\r\n\r\n").await;
    app.expect("0\r\n\r\n").await;
    app.send("0\r\n\r\n").await;
    client.expect("0\r\n\r\n").await;
}

#[tokio::test]
async fn an_upload_waits_for_an_application_that_does_not_read() {
    let lab = Lab::start().await;
    let mut client = lab.client_stream().await;
    let head = format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {FAR_TOO_MUCH}\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("a proxy");
    let mut app = lab.blue.accept_stream().await;
    let sent = fill(&mut client).await;
    assert!(sent < FAR_TOO_MUCH / 2, "{sent} bytes piled up");
    let (mut reading, mut writing) = client.into_split();
    let rest = tokio::spawn(async move {
        let zeros = vec![0; 64 * 1024];
        let mut left = FAR_TOO_MUCH - sent;
        while left > 0 {
            let count = writing.write(&zeros[..left.min(zeros.len())]).await;
            left -= count.expect("the proxy reads");
        }
        writing
    });
    let received = drain(&mut app, FAR_TOO_MUCH).await;
    assert_eq!(received, FAR_TOO_MUCH);
    app.write_all(OK.as_bytes()).await.expect("the proxy reads");
    let mut response = [0; 12];
    let read = soon("a response", reading.read_exact(&mut response)).await;
    read.expect("a response");
    assert_eq!(&response, b"HTTP/1.1 200");
    rest.await.expect("the upload ended");
}

#[tokio::test]
async fn a_download_waits_for_a_client_that_does_not_read() {
    let lab = Lab::start().await;
    let mut client = lab.client_stream().await;
    client.write_all(GET.as_bytes()).await.expect("a proxy");
    let mut app = lab.blue.accept_stream().await;
    skip_head(&mut app).await;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {FAR_TOO_MUCH}\r\n\r\n");
    app.write_all(head.as_bytes()).await.expect("a proxy");
    let sent = fill(&mut app).await;
    assert!(sent < FAR_TOO_MUCH / 2, "{sent} bytes piled up");
    let rest = tokio::spawn(async move {
        let zeros = vec![0; FAR_TOO_MUCH - sent];
        app.write_all(&zeros).await.expect("the proxy reads");
        app
    });
    let received = drain(&mut client, FAR_TOO_MUCH).await;
    assert_eq!(received, FAR_TOO_MUCH);
    rest.await.expect("the download ended");
}

#[tokio::test]
async fn an_answer_before_the_body_was_read_is_delivered() {
    for is_closed in [true, false] {
        for size in [1_000, 300_000, FAR_TOO_MUCH] {
            let lab = Lab::start().await;
            lab.count_from_here(2).await;
            let (mut reading, mut writing) = lab.client_stream().await.into_split();
            let upload = tokio::spawn(async move {
                let head =
                    format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {size}\r\n\r\n");
                writing.write_all(head.as_bytes()).await.expect("a proxy");
                // The whole of it is sent, whatever comes back, as many clients do.
                let sent = soon("the upload", writing.write_all(&vec![0; size])).await;
                sent.expect("no reset");
                writing
            });
            let mut app = lab.blue.accept().await;
            app.head().await;
            app.send(OK).await;
            let app = if is_closed {
                drop(app);
                None
            } else {
                Some(app)
            };
            // Closing this half would look like a client that left.
            let _writing = upload.await.expect("the upload ended");
            let mut response = vec![0; OK.len()];
            let read = soon("a response", reading.read_exact(&mut response)).await;
            read.expect("a response");
            assert!(
                response.starts_with(b"HTTP/1.1 200 OK"),
                "{size} {is_closed}"
            );
            assert_eq!(lab.evidence(2).await.failed, 0);
            drop(app);
        }
    }
}

#[tokio::test]
async fn an_answer_is_not_lost_when_writing_the_body_fails_before_it_is_read() {
    let lab = Lab::start().await;
    lab.count_from_here(2).await;
    let size = 200_000;
    let body = vec![0; size];
    for _ in 0..100 {
        let (mut reading, mut writing) = lab.client_stream().await.into_split();
        let answering = async {
            let mut app = lab.blue.accept().await;
            app.head().await;
            app.send(OK).await;
        };
        let asking = async {
            let head = format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {size}\r\n\r\n");
            writing.write_all(head.as_bytes()).await.expect("a proxy");
            writing.write_all(&body).await.expect("no reset");
            let mut response = vec![0; OK.len()];
            let read = soon("a response", reading.read_exact(&mut response)).await;
            read.expect("a response");
            assert!(response.starts_with(b"HTTP/1.1 200 OK"));
        };
        tokio::join!(answering, asking);
    }
    assert_eq!(lab.evidence(2).await.failed, 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_at_once_or_when_it_is() {
    let limits = Limits {
        max_body: Some(10),
        ..Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    let mut client = lab.client().await;
    client
        .send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 11\r\n\r\nhello world")
        .await;
    assert_eq!(client.response().await.status(), 413);
    assert!(lab.blue.is_alone().await);
    let mut client = lab.client().await;
    let head = "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}6\r\nhello \r\n")).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.expect("6\r\nhello \r\n").await;
    client.send("6\r\nworld!\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 413);
    app.end().await;
}

#[tokio::test]
async fn a_client_that_stops_in_its_body_is_told_408_and_is_to_blame() {
    let lab = Lab::with_limits(impatient()).await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    client
        .send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 10\r\n\r\nabc")
        .await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.expect("abc").await;
    assert_eq!(client.response().await.status(), 408);
    client.end().await;
    app.end().await;
    assert_eq!(lab.evidence(2).await.failed, 0);
}

#[tokio::test]
async fn an_application_that_stops_in_its_answer_is_given_up() {
    let lab = Lab::with_limits(impatient()).await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        .await;
    client.head().await;
    assert_eq!(client.rest().await, b"abc");
    app.end().await;
    assert_eq!(lab.evidence(2).await.failed, 1);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up() {
    let lab = Lab::with_limits(impatient()).await;
    let mut client = lab.client_stream().await;
    client.write_all(GET.as_bytes()).await.expect("a proxy");
    let mut app = lab.blue.accept_stream().await;
    skip_head(&mut app).await;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {FAR_TOO_MUCH}\r\n\r\n");
    app.write_all(head.as_bytes()).await.expect("a proxy");
    let sending = tokio::spawn(async move { app.write_all(&vec![0; FAR_TOO_MUCH]).await });
    let sent = soon("the end of it", sending).await;
    assert!(sent.expect("no panic").is_err(), "nobody read it");
    lab.until_status(|status| status.blue.requests == 0).await;
    drop(client);
}

#[tokio::test]
async fn a_client_that_leaves_in_its_body_or_its_answer_frees_its_place() {
    let lab = Lab::start().await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    client
        .send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 10\r\n\r\nabc")
        .await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    drop(client);
    assert_eq!(app.rest().await, b"abc");
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        .await;
    client.head().await;
    drop(client);
    app.end().await;
    lab.until_status(|status| status.blue.total() == 0).await;
    assert_eq!(lab.evidence(2).await.failed, 0);
}

#[tokio::test]
async fn small_and_empty_bodies_arrive_as_they_were_sent() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let mut app: Option<Wire> = None;
    for (method, framing, arrives) in [
        ("POST", "content-length: 0\r\n\r\n", ""),
        ("POST", "\r\n", ""),
        ("PUT", "content-length: 3\r\n\r\nabc", "abc"),
        ("DELETE", "content-length: 1\r\n\r\nx", "x"),
        (
            "PATCH",
            "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "0\r\n\r\n",
        ),
    ] {
        client
            .send(format!("{method} / HTTP/1.1\r\nhost: shop\r\n{framing}"))
            .await;
        let app = match &mut app {
            Some(app) => app,
            none => none.insert(lab.blue.accept().await),
        };
        let head = app.head().await;
        assert!(head.line.starts_with(method), "{head:?}");
        app.expect(arrives).await;
        app.send(OK).await;
        assert_eq!(client.response().await.text(), "ok");
    }
}

/// Time enough for an application that answers, also on a busy machine.
fn impatient() -> Limits {
    Limits {
        idle_timeout: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// Writes zeros until nobody takes them any more.
async fn fill(stream: &mut tokio::net::TcpStream) -> usize {
    let zeros = vec![0; 64 * 1024];
    let mut sent = 0;
    while sent < FAR_TOO_MUCH {
        match timeout(Duration::from_millis(300), stream.write(&zeros)).await {
            Ok(count) => sent += count.expect("the proxy is there"),
            Err(_) => break,
        }
    }
    sent
}

/// Reads a head and then this many bytes; returns how many came after the head.
async fn drain(stream: &mut tokio::net::TcpStream, count: usize) -> usize {
    let mut buffer = vec![0; 1024 * 1024];
    skip_head(stream).await;
    let mut received = 0;
    while received < count {
        let read = soon("a read", stream.read(&mut buffer)).await;
        match read.expect("the proxy is there") {
            0 => break,
            count => received += count,
        }
    }
    received
}

async fn skip_head(stream: &mut tokio::net::TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = soon("a byte", stream.read_u8()).await;
        head.push(byte.expect("a head"));
    }
}
