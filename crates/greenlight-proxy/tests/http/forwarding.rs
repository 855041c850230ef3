//! Where a request goes, and what its fields say when it gets there and when the response comes back.

use super::lab::{Lab, OK};
use super::wire::Head;
use greenlight_admin::Color;

#[tokio::test]
async fn what_is_meant_for_one_hop_is_taken_off_in_both_directions() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    let fields = "connection: keep-alive, X-Secret-Hop, Content-Length\r\nkeep-alive: timeout=5\r\n\
                  x-secret-hop: 1\r\nproxy-connection: keep-alive\r\nproxy-authorization: b\r\n\
                  te: gzip\r\nupgrade: foo\r\naccept: */*";
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: shop\r\n{fields}\r\ncontent-length: 3\r\n\r\nabc"
        ))
        .await;
    let mut app = lab.blue.accept().await;
    let head = app.head().await;
    for gone in [
        "connection",
        "keep-alive",
        "x-secret-hop",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "upgrade",
    ] {
        assert_eq!(head.get(gone), None, "{gone}");
    }
    assert_eq!(head.get("accept"), Some("*/*"));
    // The framing is not the client's to take off.
    assert_eq!(head.get("content-length"), Some("3"));
    app.expect("abc").await;
    let fields = "connection: x-hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
                  proxy-authenticate: Basic\r\nupgrade: h2c\r\nx-kept: 1";
    app.send(format!(
        "HTTP/1.1 200 OK\r\n{fields}\r\ncontent-length: 2\r\n\r\nok"
    ))
    .await;
    let head = client.response().await.head;
    for gone in [
        "connection",
        "x-hop",
        "keep-alive",
        "proxy-authenticate",
        "upgrade",
    ] {
        assert_eq!(head.get(gone), None, "{gone}");
    }
    assert_eq!(head.get("x-kept"), Some("1"));
}

#[tokio::test]
async fn the_application_that_closes_its_connection_does_not_close_the_clients() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        let mut app = lab.blue.accept().await;
        app.head().await;
        app.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
            .await;
        let response = client.response().await;
        assert_eq!(response.head.get("connection"), None);
        assert_eq!(response.text(), "ok");
    }
}

#[tokio::test]
async fn a_client_that_closes_after_its_request_does_not_close_the_applications_connection() {
    let lab = Lab::start().await;
    let mut app = None;
    for _ in 0..2 {
        let mut client = lab.client().await;
        client
            .send("GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")
            .await;
        let app = match &mut app {
            Some(app) => app,
            none => none.insert(lab.blue.accept().await),
        };
        app.head().await;
        app.send(OK).await;
        let response = client.response().await;
        assert_eq!(response.head.get("connection"), Some("close"));
        client.end().await;
    }
}

const LIES: &str = "x-forwarded-for: 10.9.9.9\r\nx-forwarded-host: lie\r\nx-forwarded-proto: https\r\n\
                    x-forwarded-port: 1\r\nx-real-ip: 10.9.9.9\r\nforwarded: for=10.9.9.9";

#[tokio::test]
async fn what_a_client_says_of_itself_is_replaced() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    // Nominating a field must not take off what the proxy adds.
    let nominated = "connection: x-forwarded-for, x-real-ip, forwarded";
    client
        .send(format!(
            "GET / HTTP/1.1\r\nhost: shop:80\r\n{nominated}\r\n{LIES}\r\n\r\n"
        ))
        .await;
    let head = lab.blue.accept().await.head().await;
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.get("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-host"), Some("shop:80"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(head.get("x-forwarded-port"), None);
    let forwarded = "for=127.0.0.1;host=\"shop:80\";proto=http";
    assert_eq!(head.get("forwarded"), Some(forwarded));
    assert_eq!(head.get("host"), Some("shop:80"));
}

#[tokio::test]
async fn what_another_proxy_on_the_unix_socket_says_of_a_client_stands() {
    let lab = Lab::start().await;
    let mut peer = lab.peer().await;
    peer.send(format!("GET / HTTP/1.1\r\nhost: shop\r\n{LIES}\r\n\r\n"))
        .await;
    let mut app = lab.blue.accept().await;
    let head = app.head().await;
    assert_eq!(head.get("x-forwarded-for"), Some("10.9.9.9"));
    assert_eq!(head.get("x-real-ip"), Some("10.9.9.9"));
    assert_eq!(head.get("x-forwarded-host"), Some("lie"));
    assert_eq!(head.get("x-forwarded-proto"), Some("https"));
    assert_eq!(head.get("forwarded"), Some("for=10.9.9.9"));
    app.send(OK).await;
    peer.response().await;
    // What it leaves out is filled in.
    peer.send("GET / HTTP/1.1\r\nhost: shop\r\nx-forwarded-for: 10.9.9.9\r\n\r\n")
        .await;
    let head = app.head().await;
    assert_eq!(head.get("x-forwarded-for"), Some("10.9.9.9"));
    assert_eq!(head.get("x-forwarded-host"), Some("shop"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
}

#[tokio::test]
async fn another_proxy_finds_the_gate_by_its_own_answer_and_clients_do_not() {
    let lab = Lab::start().await;
    let ask = "GET /.greenlight/gate HTTP/1.1\r\nhost: anything\r\n\r\n";

    let mut peer = lab.peer().await;
    peer.send(ask).await;
    let response = peer.response().await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.text(), greenlight_admin::GATE_RESPONSE);

    let mut client = lab.client().await;
    client.send(ask).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send(OK).await;
    client.response().await;
}

#[tokio::test]
async fn the_unix_socket_is_for_its_owner_and_one_group() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::start().await;

    let socket = std::fs::metadata(&lab.unix).expect("it is there");

    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
}

#[tokio::test]
async fn host_and_path_choose_between_services() {
    let lab = Lab::start().await;
    lab.define("api", &["shop.example"], "/api", 120_000).await;
    let command = greenlight_admin::OpenRequest {
        epoch: 2,
        services: [("api".to_owned(), Some(Color::Green))].into(),
    };
    lab.admin.open(&command).await.expect("an open gate");
    let mut client = lab.client().await;
    for (host, path, is_api) in [
        ("shop.example", "/api/items?a=b", true),
        ("SHOP.example:8080", "/api", true),
        ("shop.example.", "/api", true),
        ("shop.example", "/apiary", false),
        ("other.example", "/api", false),
        ("shop.example", "/", false),
    ] {
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
            ))
            .await;
        let app = if is_api { &lab.green } else { &lab.blue };
        let mut app = app.accept().await;
        let head: Head = app.head().await;
        assert_eq!(head.line, format!("GET {path} HTTP/1.1"));
        app.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
        client.response().await;
        client = lab.client().await;
    }
}

#[tokio::test]
async fn a_request_for_no_service_is_404_and_keeps_the_connection() {
    let lab = Lab::start().await;
    lab.define(super::lab::SHOP, &["shop"], "/", 120_000).await;
    let mut client = lab.client().await;
    let elsewhere = "POST / HTTP/1.1\r\nhost: elsewhere\r\ncontent-length: 3\r\n\r\nabc";
    client.send(elsewhere).await;
    assert_eq!(client.response().await.status(), 404);
    client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    lab.blue.serve_one().await;
    assert_eq!(client.response().await.text(), "ok");
}
