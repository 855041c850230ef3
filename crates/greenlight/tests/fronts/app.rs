//! An application that shows what reached it, and whose answers can be made to wait.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What `/download` sends and `/upload` is sent: more than any buffer on the way.
pub(crate) const LARGE: usize = 50 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

type Body = BoxBody<Bytes, Infallible>;

/// An application; it ends with this.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    /// How far those may go that wait: `/slow` for 1, each event of `/events` for the next.
    pub(crate) step: Arc<watch::Sender<u64>>,
    task: tokio::task::JoinHandle<()>,
}

impl App {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it listens");
        let step = Arc::new(watch::Sender::new(0));
        let steps = step.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let steps = steps.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let step = steps.subscribe();
                        async move { Ok::<_, Infallible>(answer(name, request, step).await) }
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self {
            address,
            step,
            task,
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    name: &'static str,
    request: Request<Incoming>,
    mut step: watch::Receiver<u64>,
) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (_, "/slow") => {
            let _ = step.wait_for(|step| *step >= 1).await;
            text(name)
        }
        (_, "/headers") => {
            let lines = request.headers().iter().map(|(name, value)| {
                format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
            });
            text(&lines.collect::<String>())
        }
        (&Method::POST, "/upload") => {
            let mut body = request.into_body();
            let (mut bytes, mut sum) = (0_u64, 0_u64);
            while let Some(Ok(frame)) = body.frame().await {
                let data = frame.into_data().unwrap_or_default();
                bytes += data.len() as u64;
                sum += data.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            }
            text(&format!("{bytes} {sum}"))
        }
        (_, "/download") => {
            let chunks = stream::iter(0..LARGE / CHUNK);
            let chunks = chunks.map(|_| Ok(Frame::data(pattern())));
            Response::new(BodyExt::boxed(StreamBody::new(chunks)))
        }
        (_, "/events") => {
            let events = stream::unfold((0_u64, step), |(number, mut step)| async move {
                step.wait_for(|step| *step >= number).await.ok()?;
                let event = Bytes::from(format!("data: {number}\n\n"));
                (number < 3).then(|| (Ok(Frame::data(event)), (number + 1, step)))
            });
            let mut response = Response::new(BodyExt::boxed(StreamBody::new(events)));
            let kind = "text/event-stream".parse().expect("a header");
            response.headers_mut().insert("content-type", kind);
            response
        }
        (_, "/socket") => {
            tokio::spawn(echo(request));
            let mut response = text("");
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert("connection", "upgrade".parse().expect("a header"));
            headers.insert("upgrade", "websocket".parse().expect("a header"));
            response
        }
        _ => text(name),
    }
}

async fn echo(request: Request<Incoming>) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else {
        return;
    };
    let mut stream = TokioIo::new(upgraded);
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Bytes that show when any of them is lost or doubled.
pub(crate) fn pattern() -> Bytes {
    let bytes = (0..CHUNK).map(|at| u8::try_from(at % 251).expect("less than 256"));
    Bytes::from(bytes.collect::<Vec<_>>())
}

pub(crate) fn large_sum() -> u64 {
    let one: u64 = pattern().iter().map(|byte| u64::from(*byte)).sum();
    one * (LARGE / CHUNK) as u64
}

fn text(text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    Response::new(body.boxed())
}
