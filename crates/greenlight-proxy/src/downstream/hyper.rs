//! Everything that the fast path does not take, read and written by hyper.

mod body;
mod client_io;
mod lazy_timer;
mod request;
mod response;
mod service;
mod upgrade;

use super::client_info::ClientInfo;
use super::http1::Parts;
use crate::thread::ThreadContext;
use client_io::{ClientIo, InterimResponses};
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lazy_timer::LazyTimer;
use request::Client;
use service::serve;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// hyper takes no smaller one.
const SMALLEST_BUFFER: usize = 8192;

/// Serves a connection from here to its end. One that waits for a request ends when the proxy is
/// `draining`.
pub(super) async fn serve_connection(
    thread: &Rc<ThreadContext>,
    parts: Parts,
    client_info: ClientInfo,
    draining: Pin<&mut impl Future>,
) {
    let client = Client {
        info: client_info,
        interim: Arc::new(InterimResponses::default()),
    };
    let io = ClientIo::new(
        parts.socket,
        parts.read_buf,
        client.interim.clone(),
        thread.limits.idle_timeout,
    );
    let client = &client;
    let service = service_fn(|request| async move {
        let mut response = serve(thread, client, request).await;
        if thread.closing.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        Ok::<_, Infallible>(response)
    });
    // No half close: a client that is gone must not reach the application, and one that has
    // only stopped writing looks the same.
    let connection = http1::Builder::new()
        .writev(false)
        .timer(LazyTimer::default())
        .header_read_timeout(thread.limits.header_timeout)
        .max_header_size(thread.limits.max_head)
        .max_buf_size(thread.limits.max_head.max(SMALLEST_BUFFER))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        // Errors when a client closes its connection are ignored.
        _ = &mut connection => return,
        _ = draining => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
