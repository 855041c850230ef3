//! Keeps a process's certificate from running out, while the process runs.

use super::https::{Https, HttpsError};
use super::join::{RenewAnswer, RenewRequest};
use super::own_certificate::Identity;
use super::pki::{Authority, PkiError, Request};
use super::role::Role;
use hyper::{Method, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Clocks are set, and machines sleep: the time is read again at least this often.
const LOOK_AGAIN: Duration = Duration::from_mins(10);
/// The shortest pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the server may take to answer.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The source of a renewed certificate.
pub enum Renewal {
    /// The server at this address renews it, with the certificate that is still valid.
    OverLink(SocketAddr),
    /// The server itself, for itself.
    Own(Arc<Authority>),
}

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// A key or certificate cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The connection.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The server does not answer in time.
    #[error("the server takes too long")]
    Timeout,
    /// The server refused.
    #[error("the server answered {0}")]
    Refused(StatusCode),
    /// The answer is not what it should be.
    #[error(transparent)]
    Unreadable(#[from] serde_json::Error),
}

impl Renewal {
    /// Renews a certificate in time. Never returns.
    pub async fn keep_fresh(self, identity: Arc<Identity>) {
        let mut told = false;
        loop {
            let now = SystemTime::now();
            if let Ok(wait) = identity.renew_at().duration_since(now) {
                tokio::time::sleep(wait.min(LOOK_AGAIN).max(PAUSE)).await;
                continue;
            }
            match self.renew(&identity).await {
                Ok(()) => {
                    told = false;
                    tracing::info!("the certificate was renewed");
                }
                Err(error) => {
                    let left = identity.good_until().duration_since(now);
                    let left = left.unwrap_or_default();
                    // A server signs for itself, and can at any time.
                    let is_lost = left.is_zero() && matches!(self, Self::OverLink(_));
                    match is_lost {
                        true if told => {}
                        true => {
                            told = true;
                            tracing::error!(
                                %error,
                                "the certificate has expired, and the fleet accepts it no more: \
                                 join again with `greenlight join`, and start this process again"
                            );
                        }
                        false => {
                            tracing::warn!(%error, ?left, "the certificate could not be renewed");
                        }
                    }
                    tokio::time::sleep(pause(left, is_lost)).await;
                }
            }
        }
    }

    /// Renews now.
    pub async fn renew(&self, identity: &Arc<Identity>) -> Result<(), RenewalError> {
        let request = Request::make(&identity.key())?;
        let certificate = match self {
            Self::OverLink(server) => {
                let asked = ask(identity, *server, request);
                let answered = tokio::time::timeout(RENEWAL_TIMEOUT, asked).await;
                answered.map_err(|_| RenewalError::Timeout)??
            }
            Self::Own(authority) => authority.sign(&Role::Server, &Request::parse(&request)?)?,
        };
        Ok(identity.replace(&certificate)?)
    }
}

/// How long to wait before the next try. Where all is lost nothing but a clock that is set right
/// can help any more.
fn pause(left: Duration, is_lost: bool) -> Duration {
    match is_lost {
        true => LOOK_AGAIN,
        false => (left / 20).clamp(PAUSE, LOOK_AGAIN),
    }
}

async fn ask(
    identity: &Arc<Identity>,
    server: SocketAddr,
    request: String,
) -> Result<String, RenewalError> {
    let tls = identity.client_config()?;
    let body = serde_json::to_vec(&RenewRequest { request }).expect("text serialises");
    let mut https = Https::to_server(server, tls);
    let answer = https.exchange(Method::POST, "/v1/certificate", body).await;
    let (status, body) = answer?;
    if !status.is_success() {
        return Err(RenewalError::Refused(status));
    }
    let answer: RenewAnswer = serde_json::from_slice(&body)?;
    Ok(answer.certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_tried_more_often_the_less_time_it_has_and_seldom_when_all_is_lost() {
        assert_eq!(pause(Duration::from_hours(24), false), LOOK_AGAIN);
        assert_eq!(
            pause(Duration::from_mins(20), false),
            Duration::from_mins(1)
        );
        assert_eq!(pause(Duration::from_secs(1), false), PAUSE);
        assert_eq!(pause(Duration::ZERO, false), PAUSE);
        assert_eq!(pause(Duration::ZERO, true), LOOK_AGAIN);
    }
}
