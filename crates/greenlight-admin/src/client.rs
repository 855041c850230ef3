//! A client of the admin socket.

use crate::evidence_request::EvidenceRequest;
use crate::service_settings::ServiceSettings;
use crate::status::StatusAnswer;
use bytes::Bytes;
use greenlight_gate::{
    DrainAnswer, DrainRequest, EvidenceAnswer, HoldAnswer, HoldRequest, OpenAnswer, OpenRequest,
    ServicesRequest,
};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tokio::net::UnixStream;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The proxy does not answer on its socket.
    #[error("the proxy does not answer on `{path}`: {reason}")]
    Unreachable {
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// The proxy refused.
    #[error("{error}")]
    Refused {
        error: String,
        /// What to do next.
        help: String,
    },
}

/// Every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What is wrong.
    pub error: String,
    /// What to do next.
    pub help: String,
}

/// A client of the admin socket. Each call has a connection of its own, so that a hold that
/// waits does not keep what comes after it waiting too.
#[derive(Clone, Debug)]
pub struct AdminClient {
    path: PathBuf,
}

impl AdminClient {
    /// A client for the socket at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Defines a service or changes its settings; its routing stays as it is.
    pub async fn define(&self, name: &str, settings: &ServiceSettings) -> Result<(), AdminError> {
        self.call(Method::PUT, &format!("/v1/services/{name}"), Some(settings))
            .await
    }

    /// Forgets a service.
    pub async fn remove(&self, name: &str) -> Result<(), AdminError> {
        self.call(Method::DELETE, &format!("/v1/services/{name}"), None::<&()>)
            .await
    }

    /// Stops admitting; returns when nothing more reaches the old color.
    pub async fn hold(&self, request: &HoldRequest) -> Result<HoldAnswer, AdminError> {
        self.call(Method::POST, "/v1/hold", Some(request)).await
    }

    /// Flips and releases; returns when that is on disk.
    pub async fn open(&self, request: &OpenRequest) -> Result<OpenAnswer, AdminError> {
        self.call(Method::POST, "/v1/open", Some(request)).await
    }

    /// Lets requests wait without a deadline of the gate.
    pub async fn park(&self, request: &ServicesRequest) -> Result<(), AdminError> {
        self.call(Method::POST, "/v1/park", Some(request)).await
    }

    /// Refuses requests with 503.
    pub async fn shed(&self, request: &ServicesRequest) -> Result<(), AdminError> {
        self.call(Method::POST, "/v1/shed", Some(request)).await
    }

    /// Waits until nothing is in flight to a color.
    pub async fn drain(&self, request: &DrainRequest) -> Result<DrainAnswer, AdminError> {
        self.call(Method::POST, "/v1/drain", Some(request)).await
    }

    /// What the gates saw of a cut-over.
    pub async fn evidence(&self, epoch: u64) -> Result<EvidenceAnswer, AdminError> {
        self.call(Method::GET, &format!("/v1/evidence/{epoch}"), None::<&()>)
            .await
    }

    /// The same, as soon as each gate has admitted a request to the new release, or at the
    /// deadline.
    pub async fn evidence_after_first_requests(
        &self,
        request: &EvidenceRequest,
    ) -> Result<EvidenceAnswer, AdminError> {
        self.call(Method::POST, "/v1/evidence", Some(request)).await
    }

    /// The status of the proxy.
    pub async fn status(&self) -> Result<StatusAnswer, AdminError> {
        self.call(Method::GET, "/v1/status", None::<&()>).await
    }

    /// Any other request, for a proxy that speaks to another one.
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        question: Option<&Q>,
    ) -> Result<A, AdminError> {
        let (status, body) = self
            .exchange(method, path, question)
            .await
            .map_err(|reason| self.unreachable(&*reason))?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| self.unreachable(&error));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(self.unreachable(&"it is being taken over"));
        }
        let refusal = serde_json::from_slice(&body).unwrap_or_else(|_| ErrorAnswer {
            error: format!("the proxy answered {status}"),
            help: "look at the proxy's log".to_owned(),
        });
        Err(AdminError::Refused {
            error: refusal.error,
            help: refusal.help,
        })
    }

    async fn exchange<Q: Serialize>(
        &self,
        method: Method,
        path: &str,
        question: Option<&Q>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = UnixStream::connect(&self.path).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let body = match question {
            Some(question) => serde_json::to_vec(question)?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "greenlight-proxy")
            .body(Full::new(Bytes::from(body)))?;
        let talk = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        tokio::pin!(talk, connection);
        tokio::select! {
            answer = &mut talk => Ok(answer?),
            ended = &mut connection => {
                ended?;
                Ok(talk.await?)
            }
        }
    }

    fn unreachable(&self, reason: &dyn std::fmt::Display) -> AdminError {
        AdminError::Unreachable {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}
