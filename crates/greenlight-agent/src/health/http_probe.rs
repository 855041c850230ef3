//! One question to one application: a new connection, a GET, a status.

use super::HealthCheck;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Why an application is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No process listens on its port.
    #[error("connection refused")]
    Refused,
    /// No connection came about.
    #[error(transparent)]
    Connect(std::io::Error),
    /// It did not answer in HTTP.
    #[error("no valid answer ({0})")]
    Broken(#[source] hyper::Error),
    /// The path or host of the check cannot be asked for.
    #[error(transparent)]
    Request(hyper::http::Error),
    /// It took longer than the check allows.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// It redirects.
    #[error("{status} redirects to `{location}`, and redirects are not followed")]
    Redirect { status: u16, location: String },
    /// Its status is not one of those that the check accepts.
    #[error("{0}")]
    Status(u16),
    /// Its response is good, but its runtime reports it unhealthy.
    #[error("{0}")]
    Objection(String),
}

/// Asks one application.
#[derive(Clone, Debug)]
pub struct Probe {
    address: SocketAddr,
    check: HealthCheck,
}

impl Probe {
    /// A probe for the application at `address`.
    pub fn new(address: SocketAddr, check: HealthCheck) -> Self {
        Self { address, check }
    }

    /// Checks once. Returns the status if it is healthy.
    pub async fn ask(&self) -> Result<u16, ProbeError> {
        let limit = self.check.timeout;
        match tokio::time::timeout(limit, self.exchange()).await {
            Ok(answer) => {
                let (status, location) = answer?;
                self.judge(status.as_u16(), location)
            }
            Err(_) => Err(ProbeError::Timeout(limit)),
        }
    }

    fn judge(&self, status: u16, location: Option<String>) -> Result<u16, ProbeError> {
        let mut ranges = self.check.statuses.iter();
        if ranges.any(|(from, to)| (*from..=*to).contains(&status)) {
            return Ok(status);
        }
        Err(match location {
            Some(location) => ProbeError::Redirect { status, location },
            None => ProbeError::Status(status),
        })
    }

    async fn exchange(&self) -> Result<(StatusCode, Option<String>), ProbeError> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| {
            if error.kind() == std::io::ErrorKind::ConnectionRefused {
                ProbeError::Refused
            } else {
                ProbeError::Connect(error)
            }
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ProbeError::Broken)?;
        let host = self
            .check
            .host
            .clone()
            .unwrap_or_else(|| self.address.to_string());
        let request = Request::get(&self.check.path)
            .header("host", host)
            .header("user-agent", "greenlight")
            .header("connection", "close")
            .body(Empty::<Bytes>::new())
            .map_err(ProbeError::Request)?;
        let ask = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(ProbeError::Broken)?;
            let location = response.headers().get("location");
            let location = location
                .and_then(|to| to.to_str().ok())
                .map(ToOwned::to_owned);
            Ok((response.status(), location))
        };
        tokio::pin!(ask, connection);
        tokio::select! {
            answer = &mut ask => answer,
            ended = &mut connection => {
                ended.map_err(ProbeError::Broken)?;
                ask.await
            }
        }
    }
}
