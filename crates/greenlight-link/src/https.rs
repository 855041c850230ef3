//! One HTTP connection over mutual TLS, kept open between requests and opened again when lost.

use super::role::SERVER_NAME;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// No process listens there.
    #[error("nothing answers at {0}")]
    Refused(SocketAddr),
    /// The other side is not who it should be, or the connection broke.
    #[error("the connection to {address} failed: {reason}")]
    Broken {
        /// The other side.
        address: SocketAddr,
        /// The problem.
        reason: String,
    },
}

/// A connection to one address.
pub struct Https {
    address: SocketAddr,
    name: String,
    tls: Arc<ClientConfig>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Https {
    /// A connection to the server; opened with the first request.
    pub fn to_server(address: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        Self::new(address, SERVER_NAME.to_owned(), tls)
    }

    /// A connection to the peer that has this name in its certificate.
    pub fn new(address: SocketAddr, name: String, tls: Arc<ClientConfig>) -> Self {
        Self {
            address,
            name,
            tls,
            sender: None,
        }
    }

    /// Sends a request and reads the whole answer.
    pub async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), HttpsError> {
        let response = self.send(method, path, &[], body).await?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| self.broken(&error))?.to_bytes();
        Ok((status, body))
    }

    /// Sends a request; the answer's body is still to be read.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, HttpsError> {
        let mut kept = self.sender.take();
        if let Some(sender) = &mut kept
            && (sender.is_closed() || sender.ready().await.is_err())
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.open().await?,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.name)
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(&error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.broken(&error))?;
        self.sender = Some(sender);
        Ok(response)
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, HttpsError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(opened) => opened,
            Err(elapsed) => Err(self.broken(&elapsed)),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, HttpsError> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| {
            if error.kind() == std::io::ErrorKind::ConnectionRefused {
                HttpsError::Refused(self.address)
            } else {
                self.broken(&error)
            }
        })?;
        stream
            .set_nodelay(true)
            .map_err(|error| self.broken(&error))?;
        let name = ServerName::try_from(self.name.clone()).map_err(|error| self.broken(&error))?;
        let tls = TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .map_err(|error| self.broken(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| self.broken(&error))?;
        tokio::spawn(async move {
            // Its error reaches the task that waits for the response.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> HttpsError {
        HttpsError::Broken {
            address: self.address,
            reason: error.to_string(),
        }
    }
}
