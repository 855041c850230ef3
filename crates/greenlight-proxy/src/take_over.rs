//! A new process takes the sockets over from an old one while traffic runs.
//!
//! ```text
//!  successor                              predecessor
//!    POST /v1/take-over, upgrade   ──▶    refuses while a hold is on; obeys no more orders
//!                                  ◀──    101
//!    hello                         ──▶
//!                                  ◀──    offer: routing, evidence, and every socket
//!    loads the routing, starts its threads
//!    ready                         ──▶
//!                                  ◀──    yours: from here on the successor leads
//!    accepts                              stops accepting, follows
//! ```
//!
//! Both have the same sockets all the while, and the kernel's queues belong to the sockets: no
//! connection is refused or reset. Until `yours` the predecessor accepts, and a successor that
//! dies or stalls before it changes nothing. After it the predecessor's remaining connections go
//! on through its gates, which follow the successor's ([`crate::admin`]); its idle keep-alive
//! connections are closed by the answer to their next request, never by surprise.

mod wire;

use crate::admin::{ErrorAnswer, EvidenceByEpoch};
use crate::counts::CountsByService;
use crate::error::ProxyError;
use crate::listener::{Bound, ListenAddr, open_all, open_private};
use crate::proxy::ProxyOptions;
use crate::state_file::State;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};
use wire::Wire;

/// What the admin connection becomes.
pub(crate) const PROTOCOL: &str = "greenlight-take-over";
/// The version of what is said then.
const VERSION: u32 = 1;
/// How long a successor asks again when it is refused: longer than a hold.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

/// What a proxy knows that its successor must know.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Legacy {
    pub(crate) state: State,
    pub(crate) evidence: EvidenceByEpoch,
    /// The counts of predecessors that have ended.
    pub(crate) departed: CountsByService,
}

/// All listening sockets of a proxy.
pub(crate) struct Sockets {
    pub(crate) admin: UnixListener,
    pub(crate) status: Option<StatusSocket>,
    pub(crate) users: Vec<Bound>,
}

/// The separate address for status, metrics and health.
pub(crate) struct StatusSocket {
    pub(crate) asked: SocketAddr,
    pub(crate) socket: TcpListener,
}

#[derive(Serialize, Deserialize)]
struct Hello {
    version: u32,
}

#[derive(Serialize, Deserialize)]
enum Offer {
    Refused(String),
    Given {
        legacy: Legacy,
        sockets: Vec<Offered>,
    },
}

/// What each of the descriptors that follow is for.
#[derive(Serialize, Deserialize)]
enum Offered {
    Admin,
    Status {
        asked: SocketAddr,
    },
    Users {
        asked: ListenAddr,
        taken: ListenAddr,
    },
}

#[derive(Serialize, Deserialize)]
struct Ready;

#[derive(Serialize, Deserialize)]
struct Yours;

impl Sockets {
    /// Opens what was not inherited.
    pub(crate) fn open(
        options: &ProxyOptions,
        inherited: Option<Self>,
    ) -> Result<Self, ProxyError> {
        let (admin, status, users) = match inherited {
            Some(inherited) => (Some(inherited.admin), inherited.status, inherited.users),
            None => (None, None, Vec::new()),
        };
        let admin = match admin {
            Some(admin) => admin,
            None => open_private(&options.admin).map_err(|source| {
                let path = options.admin.clone();
                if source.kind() == io::ErrorKind::AddrInUse {
                    return ProxyError::AdminInUse { path };
                }
                let address = path.display().to_string();
                ProxyError::Listen { address, source }
            })?,
        };
        let status = status.filter(|status| Some(status.asked) == options.status);
        let status = match (status, options.status) {
            (Some(status), _) => Some(status),
            (None, Some(asked)) => Some(StatusSocket::open(asked)?),
            (None, None) => None,
        };
        Ok(Self {
            admin,
            status,
            users: open_all(&options.listen, options.threads.max(1), users)?,
        })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let status = self.status.as_ref().map(StatusSocket::try_clone);
        let users = self.users.iter().map(Bound::try_clone);
        Ok(Self {
            admin: self.admin.try_clone()?,
            status: status.transpose()?,
            users: users.collect::<io::Result<_>>()?,
        })
    }

    fn each(&self) -> Vec<(Offered, BorrowedFd<'_>)> {
        let mut each = vec![(Offered::Admin, self.admin.as_fd())];
        if let Some(StatusSocket { asked, socket }) = &self.status {
            each.push((Offered::Status { asked: *asked }, socket.as_fd()));
        }
        for bound in &self.users {
            let (asked, taken) = (bound.asked.clone(), bound.taken.clone());
            each.push((Offered::Users { asked, taken }, bound.listener.as_fd()));
        }
        each
    }
}

impl StatusSocket {
    fn open(asked: SocketAddr) -> Result<Self, ProxyError> {
        let listening = TcpListener::bind(asked).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(Self { asked, socket })
        });
        listening.map_err(|source| ProxyError::Listen {
            address: asked.to_string(),
            source,
        })
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            asked: self.asked,
            socket: self.socket.try_clone()?,
        })
    }
}

/// The successor, as the predecessor sees it.
pub(crate) struct Successor {
    wire: Wire,
}

impl Successor {
    /// `read` is what came on the connection already.
    pub(crate) fn new(stream: UnixStream, read: Vec<u8>) -> io::Result<Self> {
        let wire = Wire::new(stream, read)?;
        Ok(Self { wire })
    }

    /// Offers everything; returns when the successor is ready. Blocks.
    pub(crate) fn offer(mut self, sockets: &Sockets, legacy: &Legacy) -> io::Result<Self> {
        let hello: Hello = self.wire.receive()?;
        if hello.version != VERSION {
            let theirs = hello.version;
            let reason = format!("it speaks version {theirs} of the take-over, not {VERSION}");
            self.wire.send(&Offer::Refused(reason.clone()))?;
            return Err(io::Error::other(reason));
        }
        let each = sockets.each();
        let (sockets, descriptors): (Vec<_>, Vec<_>) = each.into_iter().unzip();
        self.wire.send(&OfferRef::Given { legacy, sockets })?;
        for descriptor in descriptors {
            self.wire.send_descriptor(descriptor)?;
        }
        let Ready = self.wire.receive()?;
        Ok(self)
    }

    /// The successor leads from the moment that this succeeds.
    pub(crate) fn confirm(mut self) -> io::Result<()> {
        self.wire.send(&Yours)
    }
}

/// [`Offer`] as it is sent.
#[derive(Serialize)]
enum OfferRef<'a> {
    Given {
        legacy: &'a Legacy,
        sockets: Vec<Offered>,
    },
}

/// What a successor was offered, and has not yet accepted.
pub(crate) struct Inheritance {
    pub(crate) legacy: Legacy,
    pub(crate) sockets: Sockets,
    wire: Wire,
}

impl Inheritance {
    /// Asks the proxy that runs for everything; `None` if none runs. Asks again while refused.
    pub(crate) fn seek(admin: &Path) -> Result<Option<Self>, ProxyError> {
        let since = Instant::now();
        loop {
            let reason = match Self::ask(admin) {
                Ok(inheritance) => return Ok(Some(inheritance)),
                Err(Unsought::NobodyThere) => return Ok(None),
                Err(Unsought::Refused(reason)) => reason,
                Err(Unsought::Failed(error)) => error.to_string(),
            };
            if since.elapsed() >= PATIENCE {
                let path = admin.to_owned();
                return Err(ProxyError::TakeOver { path, reason });
            }
            tracing::info!(reason, "the proxy that runs cannot be taken over yet");
            std::thread::sleep(PAUSE);
        }
    }

    fn ask(admin: &Path) -> Result<Self, Unsought> {
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
        let (legacy, offered) = match wire.receive()? {
            Offer::Given { legacy, sockets } => (legacy, sockets),
            Offer::Refused(reason) => return Err(Unsought::Refused(reason)),
        };
        let (mut admin, mut status, mut users) = (None, None, Vec::new());
        for socket in offered {
            let descriptor = wire.receive_descriptor()?;
            match socket {
                Offered::Admin => admin = Some(UnixListener::from(descriptor)),
                Offered::Status { asked } => {
                    let socket = TcpListener::from(descriptor);
                    status = Some(StatusSocket { asked, socket });
                }
                Offered::Users { asked, taken } => {
                    users.push(Bound::received(asked, taken, descriptor));
                }
            }
        }
        let admin = admin.ok_or_else(|| io::Error::other("no admin socket was offered"))?;
        Ok(Self {
            legacy,
            sockets: Sockets {
                admin,
                status,
                users,
            },
            wire,
        })
    }

    /// Splits what is used from what says that it is used.
    pub(crate) fn accept(self) -> (Legacy, Sockets, Acceptance) {
        (self.legacy, self.sockets, Acceptance { wire: self.wire })
    }
}

/// The word that is still owed to the predecessor.
pub(crate) struct Acceptance {
    wire: Wire,
}

impl Acceptance {
    /// Says that everything is ready. When this succeeds, the predecessor has stopped accepting.
    pub(crate) fn confirm(mut self) -> io::Result<()> {
        self.wire.send(&Ready)?;
        // Giving up now could leave nobody who leads: only the predecessor may still decide.
        self.wire.wait_without_limit()?;
        let Yours = self.wire.receive()?;
        Ok(())
    }
}

enum Unsought {
    NobodyThere,
    Refused(String),
    Failed(io::Error),
}

impl From<io::Error> for Unsought {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Turns an admin connection into the take-over's. Nothing is read past the answer's head: the
/// predecessor says nothing before it has heard the successor's hello.
async fn upgrade(admin: &Path) -> Result<UnixStream, Unsought> {
    let stream = match tokio::net::UnixStream::connect(admin).await {
        Ok(stream) => stream,
        Err(error) => {
            let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
            if nobody.contains(&error.kind()) {
                return Err(Unsought::NobodyThere);
            }
            return Err(Unsought::Failed(error));
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let driving = tokio::spawn(connection.with_upgrades());
    let request = Request::post("/v1/take-over")
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
        return Err(Unsought::Refused(reason));
    }
    let upgraded = hyper::upgrade::on(&mut response).await;
    let upgraded = upgraded.map_err(io::Error::other)?;
    driving.abort();
    let parts = upgraded
        .downcast::<TokioIo<tokio::net::UnixStream>>()
        .map_err(|_| io::Error::other("the connection is not a unix socket's"))?;
    Ok(parts.io.into_inner().into_std()?)
}
