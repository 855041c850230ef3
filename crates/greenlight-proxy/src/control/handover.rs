//! The predecessor's side of a handover; the exchange is described in [`crate::handover`].

use super::answer::{Answer, Refusal, conflict, json};
use super::server::{Admin, pause};
use crate::downstream::listener::open_private;
use crate::handover::{PROTOCOL, Successor, follower_socket};
use crate::lifecycle::Lifecycle;
use bytes::Bytes;
use greenlight_gate::{Command, GateEvent};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::rc::Rc;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

impl Admin {
    /// A successor asks for everything. From here on no command is obeyed, until it has taken over
    /// or has failed to.
    pub(super) async fn offer(
        self: &Rc<Self>,
        mut request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        if let Err(refusal) = self.begin_handover(&request).await {
            return json::<()>(Err(refusal));
        }
        let upgrade = hyper::upgrade::on(&mut request);
        let admin = self.clone();
        tokio::task::spawn_local(async move {
            match admin.hand_over(upgrade).await {
                Ok(()) => tracing::info!("a successor has taken over"),
                Err(error) => {
                    tracing::warn!(%error, "a successor did not take over; this proxy goes on");
                    admin.step(GateEvent::HandoverFailed);
                }
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        response
    }

    async fn begin_handover(self: &Rc<Self>, request: &Request<Incoming>) -> Answer<()> {
        if request.headers().get(UPGRADE).map(HeaderValue::as_bytes) != Some(PROTOCOL.as_bytes()) {
            let error = format!("a handover needs `upgrade: {PROTOCOL}`");
            let help = "start `greenlight proxy --take-over`";
            return Err(Refusal(StatusCode::BAD_REQUEST, error, help));
        }
        if self.is_leader() && self.sockets.borrow().is_none() {
            return Err(conflict("this proxy is stopping"));
        }
        self.obey(Command::HandOver).await.map(|_| ())
    }

    async fn hand_over(self: &Rc<Self>, upgrade: OnUpgrade) -> io::Result<()> {
        let upgraded = upgrade.await.map_err(io::Error::other)?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| io::Error::other("the connection is not a unix socket's"))?;
        let successor = Successor::new(parts.io.into_inner().into_std()?, parts.read_buf.into())?;
        let path = follower_socket(&self.path);
        // Before the offer: the successor looks for this socket as soon as it leads.
        let beside = self.serve_follower_socket(&path)?;
        let handed = self.exchange(successor).await;
        if handed.is_err() {
            beside.abort();
            // This process alone leads.
            let _ = std::fs::remove_file(path);
        }
        handed
    }

    async fn exchange(self: &Rc<Self>, successor: Successor) -> io::Result<()> {
        let sockets = match &*self.sockets.borrow() {
            Some(sockets) => sockets.try_clone()?,
            None => return Err(io::Error::other("this proxy is stopping")),
        };
        let state = self.control.borrow().to_hand_over();
        let offered = tokio::task::spawn_blocking(move || successor.offer(&sockets, &state));
        let successor = offered.await.map_err(io::Error::other)??;
        // The last step: from here on the successor leads.
        successor.confirm()?;
        self.step(GateEvent::HandedOver);
        self.sockets.take();
        self.lifecycle.send_if_modified(|lifecycle| {
            let is_serving = *lifecycle == Lifecycle::Serving;
            if is_serving {
                *lifecycle = Lifecycle::HandedOver;
            }
            is_serving
        });
        Ok(())
    }

    /// Serves a socket of this process alone, for the successor.
    fn serve_follower_socket(self: &Rc<Self>, path: &std::path::Path) -> io::Result<AbortHandle> {
        let listener = UnixListener::from_std(open_private(path)?)?;
        let admin = self.clone();
        let serving = tokio::task::spawn_local(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => admin.serve_if_permitted(stream),
                    Err(error) => pause(&error).await,
                }
            }
        });
        Ok(serving.abort_handle())
    }
}
