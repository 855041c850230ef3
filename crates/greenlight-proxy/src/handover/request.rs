//! The successor's end of the exchange.

use super::wire::Wire;
use super::{Accepted, Hello, Offer, Offered, PROTOCOL, Ready, Sockets, StatusSocket, VERSION};
use crate::downstream::listener::BoundSocket;
use crate::error::ProxyError;
use bytes::Bytes;
use greenlight_admin::ErrorAnswer;
use greenlight_admin::ServiceSettings;
use greenlight_gate::HandoverState;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a successor asks again when it is refused: longer than a hold.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// What a successor was offered, and has not yet accepted.
pub(crate) struct Handover {
    pub(crate) state: HandoverState<ServiceSettings>,
    pub(crate) sockets: Sockets,
    wire: Wire,
}

impl Handover {
    /// Requests a handover from the running proxy; `None` if none runs. Asks again while refused.
    pub(crate) fn request(admin: &Path) -> Result<Option<Self>, ProxyError> {
        let since = Instant::now();
        loop {
            let reason = match Self::ask(admin) {
                Ok(handover) => return Ok(Some(handover)),
                Err(RequestError::NotRunning) => return Ok(None),
                Err(RequestError::Refused(reason)) => reason,
                Err(RequestError::Failed(error)) => error.to_string(),
            };
            if since.elapsed() >= REQUEST_TIMEOUT {
                let path = admin.to_owned();
                return Err(ProxyError::Handover { path, reason });
            }
            tracing::info!(reason, "the proxy that runs cannot be taken over yet");
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    fn ask(admin: &Path) -> Result<Self, RequestError> {
        // A thread of its own: this may be called where a runtime is running already.
        let connected = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(upgrade(admin))
            });
            asking.join().expect("asking does not panic")
        });
        let mut wire = Wire::new(connected?, Vec::new())?;
        wire.send(&Hello { version: VERSION })?;
        let (state, offered) = match wire.receive()? {
            Offer::Given { state, sockets } => (state, sockets),
            Offer::Refused(reason) => return Err(RequestError::Refused(reason)),
        };
        let (mut admin, mut status, mut users) = (None, None, Vec::new());
        for socket in offered {
            let descriptor = wire.receive_descriptor()?;
            match socket {
                Offered::Admin => admin = Some(UnixListener::from(descriptor)),
                Offered::Status { requested } => {
                    let socket = TcpListener::from(descriptor);
                    status = Some(StatusSocket { requested, socket });
                }
                Offered::Users { requested, address } => {
                    users.push(BoundSocket::received(requested, address, descriptor));
                }
            }
        }
        let admin = admin.ok_or_else(|| io::Error::other("no admin socket was offered"))?;
        Ok(Self {
            state,
            sockets: Sockets {
                admin,
                status,
                users,
            },
            wire,
        })
    }

    /// The predecessor gives this successor up, as it does one that stalls.
    #[cfg(test)]
    pub(crate) fn is_given_up(&self) {
        self.wire.break_off();
    }

    /// Splits what is used from what says that it is used.
    pub(crate) fn into_parts(self) -> (HandoverState<ServiceSettings>, Sockets, Confirmation) {
        (self.state, self.sockets, Confirmation { wire: self.wire })
    }
}

/// The successor's last message to the predecessor, still to be sent.
pub(crate) struct Confirmation {
    wire: Wire,
}

impl Confirmation {
    /// Reports that everything is ready. When this succeeds, the predecessor has stopped accepting.
    pub(crate) fn confirm(mut self) -> io::Result<()> {
        self.wire.send(&Ready)?;
        // Giving up now could leave no leader: only the predecessor may still decide.
        self.wire.wait_without_limit()?;
        let Accepted = self.wire.receive()?;
        Ok(())
    }
}

enum RequestError {
    NotRunning,
    Refused(String),
    Failed(io::Error),
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Turns an admin connection into the handover's. Nothing is read past the answer's head: the
/// predecessor sends nothing before the successor's hello.
async fn upgrade(admin: &Path) -> Result<UnixStream, RequestError> {
    let stream = match tokio::net::UnixStream::connect(admin).await {
        Ok(stream) => stream,
        Err(error) => {
            let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
            if nobody.contains(&error.kind()) {
                return Err(RequestError::NotRunning);
            }
            return Err(RequestError::Failed(error));
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let driving = tokio::spawn(connection.with_upgrades());
    let request = Request::post("/v1/handover")
        .header(HOST, "greenlight-proxy")
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let mut response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let body = response.into_body().collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        let reason = match serde_json::from_slice::<ErrorAnswer>(&body) {
            Ok(answer) => answer.error,
            Err(_) => "the proxy that runs cannot be taken over".to_owned(),
        };
        return Err(RequestError::Refused(reason));
    }
    let upgraded = hyper::upgrade::on(&mut response).await;
    let upgraded = upgraded.map_err(io::Error::other)?;
    driving.abort();
    let parts = upgraded
        .downcast::<TokioIo<tokio::net::UnixStream>>()
        .map_err(|_| io::Error::other("the connection is not a unix socket's"))?;
    Ok(parts.io.into_inner().into_std()?)
}
