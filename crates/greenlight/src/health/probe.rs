//! One question to one application: a new connection, a GET, a status.

use super::{HealthCheck, REFUSED};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::TcpStream;

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

    /// Checks once. `Ok` if it is healthy; either way the response as text.
    pub async fn ask(&self) -> Result<String, String> {
        let limit = self.check.timeout;
        match tokio::time::timeout(limit, self.exchange()).await {
            Ok(Ok((status, location))) => self.judge(status, location.as_deref()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        }
    }

    fn judge(&self, status: StatusCode, location: Option<&str>) -> Result<String, String> {
        let code = status.as_u16();
        let ranges = &self.check.statuses;
        if ranges
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&code))
        {
            return Ok(code.to_string());
        }
        match location {
            Some(to) => Err(format!(
                "{code} redirects to `{to}`, and redirects are not followed"
            )),
            None => Err(code.to_string()),
        }
    }

    async fn exchange(&self) -> Result<(StatusCode, Option<String>), String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| {
            if error.kind() == std::io::ErrorKind::ConnectionRefused {
                REFUSED.to_owned()
            } else {
                error.to_string()
            }
        })?;
        let broken = |error: hyper::Error| format!("no valid answer ({error})");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
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
            .map_err(|error| error.to_string())?;
        let ask = async {
            let response = sender.send_request(request).await.map_err(broken)?;
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
                ended.map_err(broken)?;
                ask.await
            }
        }
    }
}
