//! The accept loop of one thread.

use super::client_info::ClientInfo;
use super::handshake;
use super::listener::Listener;
use crate::lifecycle::Lifecycle;
use crate::socket::Socket;
use crate::thread::ThreadContext;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;

/// The pause after `accept` failed, for example because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts and serves connections until the proxy drains and nothing is left.
pub(crate) async fn run(
    thread: Rc<ThreadContext>,
    listeners: Vec<Listener>,
    mut lifecycle: watch::Receiver<Lifecycle>,
) {
    let pool = thread.raw_pool.clone();
    tokio::task::spawn_local(async move { pool.sweep().await });
    let mut accepting = Vec::new();
    for listener in listeners {
        let (thread, lifecycle) = (thread.clone(), lifecycle.clone());
        accepting.push(tokio::task::spawn_local(accept(
            thread, listener, lifecycle,
        )));
    }
    for task in accepting {
        // A task that panicked drops its listener; the others continue.
        let _ = task.await;
    }
    thread.closing.set(true);
    let limit = async {
        // Its sender lives as long as the proxy.
        let _ = lifecycle
            .wait_for(|lifecycle| *lifecycle == Lifecycle::Draining)
            .await;
        tokio::time::sleep(thread.limits.stop_timeout).await;
    };
    tokio::select! {
        () = thread.no_connections() => {}
        () = limit => {
            let left = thread.connections();
            tracing::warn!(left, "connections were still open when the time to stop was over");
        }
    }
}

async fn accept(
    thread: Rc<ThreadContext>,
    listener: Listener,
    mut lifecycle: watch::Receiver<Lifecycle>,
) {
    let trust = listener.trust();
    let accepted = match listener {
        Listener::Tcp(listener) => {
            tokio::net::TcpListener::from_std(listener).map(AsyncListener::Tcp)
        }
        Listener::Unix(listener) => {
            tokio::net::UnixListener::from_std(listener).map(AsyncListener::Unix)
        }
    };
    let seen = lifecycle.clone();
    let listener = match accepted {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be used");
            return;
        }
    };
    // The sender lives as long as the proxy.
    let _ = lifecycle
        .wait_for(|lifecycle| *lifecycle > Lifecycle::Starting)
        .await;
    let mut failing = false;
    loop {
        let is_full = thread.is_full();
        tokio::select! {
            biased;
            _ = lifecycle.wait_for(|lifecycle| *lifecycle > Lifecycle::Serving) => return,
            // Crossing the bound in either direction changes what is waited for.
            () = thread.bound_crossed() => {}
            accepted = listener.accept(), if !is_full => match accepted {
                Ok((stream, address)) => {
                    failing = false;
                    let client_info = ClientInfo::new(address, trust);
                    handshake::spawn(&thread, stream, client_info, &seen);
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "connections cannot be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// A listening socket that is waited on.
enum AsyncListener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl AsyncListener {
    async fn accept(&self) -> io::Result<(Socket, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Latency matters more than the number of packets.
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Some(address.ip())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), None))
            }
        }
    }
}
