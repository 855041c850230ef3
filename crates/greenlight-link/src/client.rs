//! The operators' client of the server's API.

use super::https::{Https, HttpsError};
use super::pki::{Credentials, PkiError};
use crate::FingerprintKey;
use crate::api::{ErrorAnswer, NumberedEvent};
use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sse_stream::SseStream;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the API did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There are no credentials here.
    #[error("there are no credentials in `{0}`")]
    NoCredentials(PathBuf),
    /// Credentials exist and cannot be used.
    #[error(transparent)]
    Credentials(#[from] PkiError),
    /// The server does not answer.
    #[error(transparent)]
    Unreachable(#[from] HttpsError),
    /// The server refused.
    #[error("{error}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        error: String,
        /// What to do next.
        help: String,
    },
    /// The server's answer makes no sense to this version.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// A client of the API.
#[derive(Clone)]
pub struct ApiClient {
    server: SocketAddr,
    tls: Arc<ClientConfig>,
    fingerprint_key: Option<FingerprintKey>,
}

impl ApiClient {
    /// A client with the credentials in `dir`; the file `server` there has the server's address.
    pub fn from_dir(dir: &Path) -> Result<Self, ApiError> {
        let server = std::fs::read_to_string(dir.join("server")).ok();
        let Some(server) = server.and_then(|text| text.trim().parse().ok()) else {
            return Err(ApiError::NoCredentials(dir.to_owned()));
        };
        let credentials = Credentials::load(dir)?;
        let tls = credentials.client_config()?;
        let fingerprint_key = credentials.fingerprint_key;
        Ok(Self {
            server,
            tls,
            fingerprint_key,
        })
    }

    /// What this operator fingerprints secrets with.
    pub fn fingerprint_key(&self) -> Option<&FingerprintKey> {
        self.fingerprint_key.as_ref()
    }

    /// Asks for something.
    pub async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ApiError> {
        self.call(Method::GET, path, Vec::new()).await
    }

    /// Asks that something be done.
    pub async fn post<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
    ) -> Result<A, ApiError> {
        self.call(Method::POST, path, serde_json::to_vec(question)?)
            .await
    }

    async fn call<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<A, ApiError> {
        let mut https = Https::to_server(self.server, self.tls.clone());
        let (status, body) = https.exchange(method, path, body).await?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        let refusal = serde_json::from_slice(&body).unwrap_or_else(|_| ErrorAnswer {
            error: format!("the server answered {status}"),
            help: "look at the server's log".to_owned(),
        });
        Err(ApiError::Refused {
            status,
            error: refusal.error,
            help: refusal.help,
        })
    }

    /// Follows the progress of the latest deployment until `each` has seen enough, or the stream
    /// ends.
    pub async fn follow(
        &self,
        mut each: impl FnMut(NumberedEvent) -> Follow,
    ) -> Result<(), ApiError> {
        let mut https = Https::to_server(self.server, self.tls.clone());
        let response = https
            .send(Method::GET, "/v1/events", &[], Vec::new())
            .await?;
        let mut stream = SseStream::new(response.into_body());
        loop {
            let next = futures_util::future::poll_fn(|cx| {
                futures_util::Stream::poll_next(std::pin::Pin::new(&mut stream), cx)
            });
            let Some(Ok(event)) = next.await else {
                return Ok(());
            };
            let Some(data) = event.data else { continue };
            if each(serde_json::from_str(&data)?) == Follow::Enough {
                return Ok(());
            }
        }
    }
}

/// Whether to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// More.
    On,
    /// No more.
    Enough,
}
