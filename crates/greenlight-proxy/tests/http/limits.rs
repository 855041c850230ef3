//! What a client may ask for before it is refused.

use super::lab::{GET, Lab, OK};
use super::wire::soon;
use greenlight_proxy::Limits;
use std::time::Duration;

/// Between connecting and asking there may be a pause as long as a busy machine likes, and the
/// connection must still be there.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);

fn hasty() -> Limits {
    Limits {
        header_timeout: HEADER_TIMEOUT,
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_client_that_sends_its_head_byte_by_byte_is_closed() {
    let lab = Lab::with_limits(hasty()).await;
    let mut client = lab.client().await;
    let drip = async {
        client.send("GET / HTTP/1.1\r\nhost: shop\r\n").await;
        while client.try_send("x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the end of a slow client", drip).await;
    assert!(lab.blue.is_alone().await);
}

#[tokio::test]
async fn a_connection_that_is_not_used_is_closed() {
    let lab = Lab::with_limits(hasty()).await;
    lab.client().await.end().await;
    let mut client = lab.client().await;
    client.send(GET).await;
    lab.blue.serve_one().await;
    client.response().await;
    client.end().await;
}

#[tokio::test]
async fn a_slow_application_is_not_a_slow_client() {
    let lab = Lab::with_limits(hasty()).await;
    let mut client = lab.client().await;
    client.send(GET).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    tokio::time::sleep(2 * HEADER_TIMEOUT).await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let limits = Limits {
        max_head: 8192,
        ..Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    let cookie = "a".repeat(9000);
    let mut client = lab.client().await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nhost: shop\r\ncookie: {cookie}\r\n\r\n"
        ))
        .await;
    assert_eq!(client.head().await.status(), 431);
    // Also before it is whole.
    let mut client = lab.client().await;
    client
        .send(format!("GET / HTTP/1.1\r\nhost: shop\r\ncookie: {cookie}"))
        .await;
    assert_eq!(client.head().await.status(), 431);
    let mut client = lab.client().await;
    let many = "a: b\r\n".repeat(200);
    client
        .send(format!("GET / HTTP/1.1\r\nhost: shop\r\n{many}\r\n"))
        .await;
    assert_eq!(client.head().await.status(), 431);
    assert!(lab.blue.is_alone().await);
    let mut client = lab.client().await;
    let cookie = &cookie[..7000];
    client
        .send(format!(
            "GET / HTTP/1.1\r\nhost: shop\r\ncookie: {cookie}\r\n\r\n"
        ))
        .await;
    let head = lab.blue.accept().await.head().await;
    assert_eq!(head.get("cookie"), Some(cookie));
}

#[tokio::test]
async fn a_target_that_is_too_long_is_refused() {
    let limits = Limits {
        max_head: 128 * 1024,
        ..Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    let mut client = lab.client().await;
    let path = "a".repeat(70_000);
    client
        .send(format!("GET /{path} HTTP/1.1\r\nhost: shop\r\n\r\n"))
        .await;
    assert_eq!(client.head().await.status(), 414);
    assert!(lab.blue.is_alone().await);
}

#[tokio::test]
async fn a_body_may_be_larger_than_a_head() {
    let limits = Limits {
        max_head: 8192,
        ..Limits::default()
    };
    let lab = Lab::with_limits(limits).await;
    let mut client = lab.client().await;
    let body = "b".repeat(100_000);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {}",
        body.len()
    );
    client.send(format!("{head}\r\n\r\n{body}")).await;
    let mut app = lab.blue.accept().await;
    app.head().await;
    app.expect(&body).await;
    app.send(OK).await;
    assert_eq!(client.response().await.text(), "ok");
}
