//! The predecessor's side of a handover; the exchange is described in [`crate::handover`].

use super::answer::{Answer, Refusal, conflict, json};
use super::server::{Admin, Role};
use crate::downstream::listener::open_private;
use crate::handover::{HandoverState, PROTOCOL, Successor, follower_socket};
use crate::lifecycle::Lifecycle;
use bytes::Bytes;
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
    pub(super) fn offer(self: &Rc<Self>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Err(refusal) = self.may_offer(&request) {
            return json::<()>(Err(refusal));
        }
        self.role.send_replace(Role::HandingOver);
        let upgrade = hyper::upgrade::on(&mut request);
        let admin = self.clone();
        tokio::task::spawn_local(async move {
            match admin.hand_over(upgrade).await {
                Ok(()) => tracing::info!("a successor has taken over"),
                Err(error) => {
                    tracing::warn!(%error, "a successor did not take over; this proxy goes on");
                    admin.role.send_replace(Role::Leader);
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

    fn may_offer(&self, request: &Request<Incoming>) -> Answer<()> {
        if request.headers().get(UPGRADE).map(HeaderValue::as_bytes) != Some(PROTOCOL.as_bytes()) {
            let error = format!("a handover needs `upgrade: {PROTOCOL}`");
            let help = "start `greenlight proxy --take-over`";
            return Err(Refusal(StatusCode::BAD_REQUEST, error, help));
        }
        self.leading()?;
        let controls = self.controls.borrow();
        if controls.values().any(|s| s.deadline.is_some()) {
            // The hold would move to the successor together with its deadline and the caller that
            // waits for its answer. It is over in a moment; the successor asks again.
            return Err(conflict("a hold is on"));
        }
        if self.running.get() > 0 {
            return Err(conflict("a command is being carried out"));
        }
        if self.sockets.borrow().is_none() {
            return Err(conflict("this proxy is stopping"));
        }
        Ok(())
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
        let state = HandoverState {
            routing: self.state(),
            evidence: self.evidence.borrow().clone(),
            final_counts: self.followers.final_counts(),
        };
        let offered = tokio::task::spawn_blocking(move || successor.offer(&sockets, &state));
        let successor = offered.await.map_err(io::Error::other)??;
        // The last step: from here on the successor leads.
        successor.confirm()?;
        self.role.send_replace(Role::Follower);
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
                    Err(error) => tracing::warn!(%error, "the successor could not connect"),
                }
            }
        });
        Ok(serving.abort_handle())
    }
}
