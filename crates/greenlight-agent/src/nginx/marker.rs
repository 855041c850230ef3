//! The generation that a worker serves, queried through Nginx itself.
//!
//! Each question comes over a new connection, so any worker that accepts may answer it: during a
//! reload that is old ones and new ones in turns.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a worker may take to answer.
const MARKER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const LONGEST: usize = 64 * 1024;

/// Why a worker did not say what it serves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkerError {
    /// Nothing answers.
    #[error("nginx does not answer at {0} ({1}); run `greenlight attach nginx`")]
    Silent(SocketAddr, String),
    /// Something else answers.
    #[error(
        "what answers at {0} is not greenlight's include in nginx (status {1}); give \
         `proxy.nginx.verify_port` a free port"
    )]
    Somebody(SocketAddr, u16),
}

/// Queries the workers on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Marker {
    address: SocketAddr,
}

impl Marker {
    /// The marker on this loopback port.
    pub fn new(port: u16) -> Self {
        Self {
            address: ([127, 0, 0, 1], port).into(),
        }
    }

    /// What one worker serves.
    pub async fn ask(self) -> Result<String, MarkerError> {
        let (status, text) = self.get("/.greenlight/generation").await?;
        match status {
            StatusCode::OK => Ok(text),
            other => Err(MarkerError::Somebody(self.address, other.as_u16())),
        }
    }

    /// The response to a request for a path.
    pub async fn get(self, path: &str) -> Result<(StatusCode, String), MarkerError> {
        let answer = match tokio::time::timeout(MARKER_TIMEOUT, self.exchange(path)).await {
            Ok(answer) => answer,
            Err(_) => Err(ExchangeError::TimedOut),
        };
        answer.map_err(|error| MarkerError::Silent(self.address, error.to_string()))
    }

    async fn exchange(self, path: &str) -> Result<(StatusCode, String), ExchangeError> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path)
            .header("host", self.address.to_string())
            .header("connection", "close")
            .body(Empty::<Bytes>::new())?;
        let ask = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(ExchangeError::Body)?.to_bytes();
            Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::pin!(ask, connection);
        tokio::select! {
            answer = &mut ask => answer,
            ended = &mut connection => {
                ended?;
                ask.await
            }
        }
    }
}

/// Why a worker's response did not come.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error(transparent)]
    Connect(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error(transparent)]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("nothing within {} s", MARKER_TIMEOUT.as_secs())]
    TimedOut,
}
