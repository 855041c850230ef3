//! Connections that leave HTTP: only when the application agrees, and counted until they end.

use super::lab::{GET, Lab, OK, SHOP};
use super::wire::Wire;
use greenlight_admin::{Color, DrainRequest};

const ASKS: &str = "GET /ws HTTP/1.1\r\nhost: shop\r\nconnection: keep-alive, Upgrade\r\n\
                    upgrade: websocket\r\nsec-websocket-key: a\r\n\r\n";
const AGREES: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\
                      upgrade: websocket\r\nsec-websocket-accept: b\r\n\r\n";

#[tokio::test]
async fn an_upgraded_connection_carries_both_directions_until_either_side_ends_it() {
    for ended_by_client in [true, false] {
        let lab = Lab::start().await;
        let (mut client, mut app) = upgraded(&lab).await;
        client.send("ping").await;
        app.expect("ping").await;
        app.send("pong").await;
        client.expect("pong").await;
        let status = lab.status().await.blue;
        assert_eq!(
            (status.requests, status.streams, status.upgrades),
            (0, 0, 1)
        );
        if ended_by_client {
            drop(client);
            app.end().await;
            drop(app);
        } else {
            drop(app);
            client.end().await;
            drop(client);
        }
        lab.until_status(|status| status.blue.total() == 0).await;
    }
}

#[tokio::test]
async fn what_a_client_sends_early_reaches_the_application_after_its_101_and_not_before() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    client.send(format!("{ASKS}early bytes")).await;
    let mut app = lab.blue.accept().await;
    let head = app.head().await;
    assert_eq!(head.get("connection"), Some("upgrade"));
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert!(app.is_silent().await, "tunnelled before the 101");
    app.send(format!("{AGREES}hello")).await;
    assert_eq!(client.head().await.status(), 101);
    client.expect("hello").await;
    app.expect("early bytes").await;
}

#[tokio::test]
async fn an_application_that_answers_an_upgrade_with_200_gets_nothing_but_requests() {
    let lab = Lab::start().await;
    let mut client = lab.client().await;
    // What would be tunnelled reads as a request of its own, and is routed as one.
    client
        .send(format!(
            "{ASKS}GET /next HTTP/1.1\r\nhost: shop\r\nx-forwarded-for: 1.2.3.4\r\n\r\n"
        ))
        .await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
    let next = app.head().await;
    assert_eq!(next.line, "GET /next HTTP/1.1");
    assert_eq!(next.get("x-forwarded-for"), Some("127.0.0.1"));
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
    let status = lab.status().await.blue;
    assert_eq!(status.total(), 0);
}

#[tokio::test]
async fn upgrades_to_another_http_and_upgrades_of_http_1_0_are_not_asked_for() {
    let lab = Lab::start().await;
    for request in [
        "GET / HTTP/1.1\r\nhost: shop\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket, H2C\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        let mut client = lab.client().await;
        client.send(request).await;
        let mut app = lab.blue.accept().await;
        let head = app.head().await;
        assert_eq!(head.get("upgrade"), None, "{request}");
        assert_eq!(head.get("connection"), None, "{request}");
        assert_eq!(head.get("http2-settings"), None, "{request}");
        app.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
        assert_eq!(client.response().await.status(), 200);
    }
}

#[tokio::test]
async fn an_application_that_switches_protocols_unasked_is_502() {
    let lab = Lab::start().await;
    lab.count_from_here(2).await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.send(AGREES).await;
    assert_eq!(client.response().await.status(), 502);
    assert_eq!(lab.evidence(2).await.failed, 1);
    assert_eq!(lab.status().await.blue.total(), 0);
}

#[tokio::test]
async fn an_upgraded_connection_stays_with_its_release_and_its_drain_waits_for_it() {
    let lab = Lab::start().await;
    let (mut client, mut app) = upgraded(&lab).await;
    lab.hold(2).await;
    lab.open(2, Color::Green).await;
    client.send("ping").await;
    app.expect("ping").await;
    let drain = |deadline_ms| DrainRequest {
        service: SHOP.to_owned(),
        color: Color::Blue,
        deadline_ms,
    };
    let left = lab.admin.drain(&drain(50)).await.expect("a drain").left;
    assert_eq!((left.requests, left.streams, left.upgrades), (0, 0, 1));
    let command = drain(120_000);
    let (drained, ()) = tokio::join!(lab.admin.drain(&command), async {
        drop(client);
        app.end().await;
        drop(app);
    });
    assert_eq!(drained.expect("a drain").left.total(), 0);
}

#[tokio::test]
async fn a_stream_of_events_is_counted_as_a_stream_and_may_be_silent() {
    // The application begins its response within this, also on a busy machine.
    let idle_timeout = std::time::Duration::from_secs(2);
    let limits = greenlight_proxy::Limits {
        idle_timeout,
        ..greenlight_proxy::Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    let kind = "content-type: Text/Event-Stream;charset=utf-8";
    app.send(format!(
        "HTTP/1.1 200 OK\r\n{kind}\r\ntransfer-encoding: chunked\r\n\r\n"
    ))
    .await;
    assert_eq!(client.head().await.status(), 200);
    let status = lab.status().await.blue;
    assert_eq!(
        (status.requests, status.streams, status.upgrades),
        (0, 1, 0)
    );
    // Twice the limit of everything else.
    tokio::time::sleep(2 * idle_timeout).await;
    assert!(client.is_silent().await);
    app.send("8\r\ndata: a\n\r\n").await;
    client.expect("8\r\ndata: a\n\r\n").await;
    drop(client);
    app.end().await;
    lab.until_status(|status| status.blue.total() == 0).await;
}

async fn upgraded(lab: &Lab) -> (Wire, Wire) {
    let mut client = lab.client().await;
    client.send(ASKS).await;
    let mut app = lab.blue.accept().await;
    let head = app.head().await;
    assert_eq!(head.get("sec-websocket-key"), Some("a"));
    app.send(AGREES).await;
    let head = client.head().await;
    assert_eq!(head.status(), 101);
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert_eq!(head.get("connection"), Some("upgrade"));
    assert_eq!(head.get("sec-websocket-accept"), Some("b"));
    (client, app)
}
