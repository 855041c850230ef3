//! An application that says its name, can be slow, and can switch to an echo.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) struct App {
    pub(crate) address: SocketAddr,
    arrived: Arc<AtomicU64>,
    release: watch::Sender<bool>,
}

impl App {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(name, listener)
    }

    pub(crate) fn on(name: &'static str, listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("an address");
        let arrived = Arc::new(AtomicU64::new(0));
        let (release, released) = watch::channel(false);
        let counting = arrived.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counting, released) = (counting.clone(), released.clone());
                let service = service_fn(move |request| {
                    counting.fetch_add(1, SeqCst);
                    let released = released.clone();
                    async move { Ok::<_, Infallible>(answer(name, request, released).await) }
                });
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                tokio::spawn(connection);
            }
        });
        Self {
            address,
            arrived,
            release,
        }
    }

    /// Requests that have reached it.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(SeqCst)
    }

    /// Lets slow requests end.
    pub(crate) fn release(&self) {
        self.release.send_replace(true);
    }
}

async fn answer(
    name: &'static str,
    mut request: Request<Incoming>,
    mut released: watch::Receiver<bool>,
) -> Response<Full<Bytes>> {
    if request.uri().path() == "/slow" {
        // When the test has ended nobody waits for the answer.
        let _ = released.wait_for(|released| *released).await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(name.as_bytes())));
    if request.uri().path() == "/echo" {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let io = TokioIo::new(upgrade.await.expect("an upgrade"));
            let (mut from, mut to) = tokio::io::split(io);
            // Ends when the client does.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.body_mut() = Full::default();
        let headers = response.headers_mut();
        headers.insert("connection", "upgrade".parse().expect("a value"));
        headers.insert("upgrade", "echo".parse().expect("a value"));
    }
    response
}
