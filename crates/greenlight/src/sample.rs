//! The sample application of the demo and the tests: a small web service whose behaviour, good
//! and bad, is set by its environment.
//!
//! | Variable | Meaning |
//! |---|---|
//! | `PORT` | where it listens on 127.0.0.1 |
//! | `VERSION` | what it calls itself, in the `X-Release` header and the body |
//! | `STARTUP_MS` | how long it takes before it listens |
//! | `FAIL_CHECK_ON` | `/up` answers 500 on the instance of this name (`GREENLIGHT_INSTANCE`) |
//! | `DIE_AFTER_MS` | it aborts this long after its first request that is not a check |

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

struct Sample {
    version: String,
    fail_check: bool,
    die_after: Option<Duration>,
    dying: AtomicBool,
    count: AtomicU64,
}

/// Runs the sample application until SIGTERM; then it answers what is in flight and ends.
pub async fn run() -> std::io::Result<()> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let port = number("PORT")
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(0);
    let sample = Arc::new(Sample {
        version: std::env::var("VERSION").unwrap_or_else(|_| "unnamed".to_owned()),
        fail_check: std::env::var("FAIL_CHECK_ON")
            .is_ok_and(|on| std::env::var("GREENLIGHT_INSTANCE").is_ok_and(|me| me == on)),
        die_after: number("DIE_AFTER_MS").map(Duration::from_millis),
        dying: AtomicBool::new(false),
        count: AtomicU64::new(0),
    });
    tokio::time::sleep(Duration::from_millis(number("STARTUP_MS").unwrap_or(0))).await;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    eprintln!("{} listens on {}", sample.version, listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let (ending, seen) = watch::channel(false);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let _ = stream.set_nodelay(true);
                tokio::spawn(converse(stream, sample.clone(), seen.clone()));
            }
            _ = terminate.recv() => break,
        }
    }
    drop(listener);
    drop(seen);
    let _ = ending.send(true);
    // Every conversation holds a receiver; when the last is gone, so is the last answer.
    ending.closed().await;
    Ok(())
}

async fn converse(
    stream: tokio::net::TcpStream,
    sample: Arc<Sample>,
    mut ending: watch::Receiver<bool>,
) {
    let service = service_fn(|request| {
        let sample = sample.clone();
        async move { Ok::<_, Infallible>(answer(&sample, request).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(sample: &Arc<Sample>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/up" {
        let status = if sample.fail_check {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::OK
        };
        return reply(sample, status, Bytes::from_static(b"up\n"));
    }
    if let Some(after) = sample.die_after
        && !sample.dying.swap(true, SeqCst)
    {
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            eprintln!("dying, as told");
            std::process::abort();
        });
    }
    let count = sample.count.fetch_add(1, SeqCst) + 1;
    if request.method() == Method::POST {
        let body = request.into_body().collect().await;
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        return reply(sample, StatusCode::OK, body);
    }
    let body = format!(
        "{{\"release\":\"{}\",\"pid\":{},\"count\":{count}}}\n",
        sample.version,
        std::process::id()
    );
    reply(sample, StatusCode::OK, Bytes::from(body))
}

fn reply(sample: &Sample, status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if let Ok(version) = HeaderValue::from_str(&sample.version) {
        response.headers_mut().insert("x-release", version);
    }
    response
}
