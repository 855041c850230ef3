//! The sample application of the demo and the tests: a small web service whose behaviour, good
//! and bad, is set by its environment.
//!
//! | Variable | Meaning |
//! |---|---|
//! | `PORT` | where it listens |
//! | `LISTEN_ON` | on which address; default 127.0.0.1, which cannot be reached in a container |
//! | `VERSION` | what it calls itself, in the `X-Release` header and the body |
//! | `STARTUP_MS` | how long it takes before it listens |
//! | `FAIL_START_ON` | it ends at once on the instance of this name (`GREENLIGHT_INSTANCE`) |
//! | `FAIL_CHECK_ON` | `/up` answers 500 on the instance of this name (`GREENLIGHT_INSTANCE`) |
//! | `FAIL_CHECK_WHILE` | only while this file exists; then on every instance, unless one is named |
//! | `DIE_AFTER_MS` | it aborts this long after its first request that is not a check |
//! | `DIE_ON` | only on the instance of this name |
//! | `NEEDS_CHECKS` | anything else is answered 500 until `/up` has passed so often |
//! | `ANSWER_MS` | how long it works on each request that is not a check |
//! | `SLOW_EVERY` | it works so long only on every so many of them, and answers the others at once |
//! | `BALLAST_MB` | memory that it holds, as a real application would |
//! | `EFFECTS` | a file to which every POST appends its `Idempotency-Key`: what it has changed |
//!
//! A WebSocket on any path echoes text, with the release's version before it.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

struct Sample {
    version: String,
    fail_check: FailCheck,
    needs_checks: u64,
    checks: AtomicU64,
    effects: Option<PathBuf>,
    answer_after: Duration,
    slow_every: u64,
    _ballast: Vec<u8>,
    die_after: Option<Duration>,
    dying: AtomicBool,
    count: AtomicU64,
}

/// When its check fails.
enum FailCheck {
    Never,
    Always,
    /// While this file exists.
    While(PathBuf),
}

/// Runs the sample application until SIGTERM; then it answers what is in flight and ends.
pub async fn run() -> std::io::Result<()> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    // Whether a variable names the instance that this is.
    let is_here = |name: &str| {
        let me = std::env::var("GREENLIGHT_INSTANCE");
        std::env::var(name).map(|on| me.is_ok_and(|me| me == on))
    };
    if is_here("FAIL_START_ON") == Ok(true) {
        return Err(std::io::Error::other("it fails to start, as told"));
    }
    let port = number("PORT")
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(0);
    let ballast = number("BALLAST_MB").and_then(|mb| usize::try_from(mb).ok());
    let ballast = ballast.unwrap_or(0);
    let sample = Arc::new(Sample {
        version: std::env::var("VERSION").unwrap_or_else(|_| "unnamed".to_owned()),
        fail_check: match (
            is_here("FAIL_CHECK_ON"),
            std::env::var_os("FAIL_CHECK_WHILE"),
        ) {
            (Ok(true) | Err(_), Some(file)) => FailCheck::While(file.into()),
            (Ok(true), None) => FailCheck::Always,
            (Ok(false), _) | (Err(_), None) => FailCheck::Never,
        },
        needs_checks: number("NEEDS_CHECKS").unwrap_or(0),
        checks: AtomicU64::new(0),
        effects: std::env::var_os("EFFECTS").map(PathBuf::from),
        answer_after: Duration::from_millis(number("ANSWER_MS").unwrap_or(0)),
        slow_every: number("SLOW_EVERY").unwrap_or(1),
        // Not of zeros: those the system gives away without having them.
        _ballast: vec![1; ballast << 20],
        die_after: number("DIE_AFTER_MS")
            .filter(|_| is_here("DIE_ON") != Ok(false))
            .map(Duration::from_millis),
        dying: AtomicBool::new(false),
        count: AtomicU64::new(0),
    });
    tokio::time::sleep(Duration::from_millis(number("STARTUP_MS").unwrap_or(0))).await;
    let host = std::env::var("LISTEN_ON").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let listener = TcpListener::bind((host, port)).await?;
    eprintln!("{} listens on {}", sample.version, listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let (ending, seen) = watch::channel(false);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve_connection(stream, sample.clone(), seen.clone()));
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

impl FailCheck {
    fn is_on(&self) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::While(file) => {
                let is_there = file.exists();
                if is_there {
                    eprintln!("its check fails, as told");
                }
                is_there
            }
        }
    }
}

async fn serve_connection(
    stream: tokio::net::TcpStream,
    sample: Arc<Sample>,
    mut ending: watch::Receiver<bool>,
) {
    let socket_ending = ending.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let (sample, ending) = (sample.clone(), socket_ending.clone());
        async move {
            let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
            Ok::<_, Infallible>(match key {
                Some(key) => accept_socket(sample, request, key.as_bytes(), ending),
                None => answer(&sample, request).await,
            })
        }
    });
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(sample: &Arc<Sample>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/up" {
        let status = if sample.fail_check.is_on() {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            sample.checks.fetch_add(1, SeqCst);
            StatusCode::OK
        };
        return reply(sample, status, Bytes::from_static(b"up\n"));
    }
    if sample.checks.load(SeqCst) < sample.needs_checks {
        let text = Bytes::from_static(b"not ready\n");
        return reply(sample, StatusCode::INTERNAL_SERVER_ERROR, text);
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
    if !sample.answer_after.is_zero() && count.is_multiple_of(sample.slow_every) {
        tokio::time::sleep(sample.answer_after).await;
    }
    if request.method() == Method::POST {
        if let Err(error) = note_effect(sample, &request) {
            eprintln!("an effect cannot be noted: {error}");
            return reply(sample, StatusCode::INTERNAL_SERVER_ERROR, Bytes::new());
        }
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

/// Appends the request's key in one write, so that several processes may share the file.
fn note_effect(sample: &Sample, request: &Request<Incoming>) -> std::io::Result<()> {
    let key = request.headers().get("idempotency-key");
    let (Some(path), Some(key)) = (&sample.effects, key) else {
        return Ok(());
    };
    let line = [key.as_bytes(), b"\n"].concat();
    let mut file = File::options().create(true).append(true).open(path)?;
    file.write_all(&line)
}

/// Agrees to a WebSocket; the conversation begins when the client has the answer.
fn accept_socket(
    sample: Arc<Sample>,
    request: Request<Incoming>,
    key: &[u8],
    ending: watch::Receiver<bool>,
) -> Response<Full<Bytes>> {
    let mut response = reply(&sample, StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    tokio::spawn(async move {
        if let Ok(stream) = hyper::upgrade::on(request).await {
            echo(&sample, TokioIo::new(stream), ending).await;
        }
    });
    response
}

/// Echoes until the client leaves, or says goodbye when the application ends.
async fn echo(
    sample: &Sample,
    stream: TokioIo<hyper::upgrade::Upgraded>,
    mut ending: watch::Receiver<bool>,
) {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = async { drop(ending.wait_for(|ending| *ending).await) } => {
                // The client may be gone already.
                let _ = socket.close(None).await;
                return;
            }
        };
        let Some(Ok(message)) = message else {
            return;
        };
        if let Message::Text(text) = message {
            let text = format!("{} {text}", sample.version);
            if socket.send(Message::text(text)).await.is_err() {
                return;
            }
        }
    }
}

fn reply(sample: &Sample, status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if let Ok(version) = HeaderValue::from_str(&sample.version) {
        response.headers_mut().insert("x-release", version);
    }
    response
}
