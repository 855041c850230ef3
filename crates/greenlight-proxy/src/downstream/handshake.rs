//! What comes between accepting a connection and HTTP: which protocol it speaks, and who serves it.
//!
//! ```text
//!  accepted ─▶ (TLS, ALPN) ─▶ HTTP/1.1: fast path ─▶ hyper, from the first request that the
//!              not yet        HTTP/2: not yet        fast path does not take
//! ```
//!
//! This is the place of whatever comes between the socket and HTTP: a TLS handshake would turn
//! the socket into a stream here, and ALPN would choose between the fast path and HTTP/2.

use super::client_info::ClientInfo;
use super::grace_period::GracePeriod;
use super::http1::FastPath;
use super::hyper;
use crate::lifecycle::Lifecycle;
use crate::socket::Socket;
use crate::thread::ThreadContext;
use std::pin::pin;
use std::rc::Rc;
use tokio::sync::watch;

/// Serves a connection in a task of its own.
pub(super) fn spawn(
    thread: &Rc<ThreadContext>,
    socket: Socket,
    client_info: ClientInfo,
    lifecycle: &watch::Receiver<Lifecycle>,
) {
    let (thread, lifecycle) = (thread.clone(), lifecycle.clone());
    let guard = thread.connection_guard();
    tokio::task::spawn_local(async move {
        serve_connection(&thread, socket, client_info, lifecycle).await;
        drop(guard);
    });
}

async fn serve_connection(
    thread: &Rc<ThreadContext>,
    socket: Socket,
    client_info: ClientInfo,
    mut lifecycle: watch::Receiver<Lifecycle>,
) {
    let grace_period = GracePeriod::default();
    let mut draining = pin!(async {
        // The sender lives as long as the proxy: an error cannot come first.
        let _ = lifecycle
            .wait_for(|lifecycle| *lifecycle == Lifecycle::Draining)
            .await;
        grace_period.over().await;
    });
    let fast_path = FastPath::new(thread, &client_info, &grace_period, socket);
    if let Some(parts) = fast_path.run(draining.as_mut()).await {
        grace_period.request_arrived();
        // Most connections never come here, and need not be as large.
        Box::pin(hyper::serve_connection(
            thread,
            parts,
            client_info,
            draining,
        ))
        .await;
    }
}
