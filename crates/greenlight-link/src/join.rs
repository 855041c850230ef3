//! How a machine gets a certificate: with a token at first, later with the certificate itself.
//!
//! ```text
//!   joins                                        server
//!     TLS: the chain must end in the authority     shows its authority beside its certificate
//!          whose fingerprint the token has
//!     secret, request ──POST /v1/join──▶           uses the token up, signs for the token's role
//!                     ◀── certificate ──           (and the fingerprint key, if that is an operator)
//!   renews
//!     request ──POST /v1/certificate──▶            signs for the role that the caller has
//! ```
//!
//! The key is made where it is used and never sent.

use super::fingerprint_verifier::FingerprintVerifier;
use super::https::{Https, HttpsError};
use super::pki::{Authority, Credentials, PkiError, Request, new_key};
use super::role::Role;
use super::token::{JoinToken, TokenError, Tokens, check_validity};
use crate::FingerprintKey;
use crate::api::ErrorAnswer;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use greenlight_protocol::InstanceId;
use hyper::Method;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The largest body: requests and tokens are small, and clients without a certificate send them.
const LARGEST: usize = 16 * 1024;
/// The file in the server's folder that names its fleet.
const FLEET: &str = "fleet.json";

/// What to do about an instance that a server does not know.
pub const UNKNOWN_HELP: &str = "add it to `servers` and run `greenlight setup`, or start the \
                                server with `--instance` for it";

/// Why a machine could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The server does not answer, or is not the one that the token is of.
    #[error(transparent)]
    Unreachable(#[from] HttpsError),
    /// The server refused.
    #[error("{error}")]
    Refused {
        error: String,
        /// What to do next.
        help: String,
    },
    /// Keys or certificates cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The answer makes no sense to this version.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct JoinRequest {
    secret: String,
    request: String,
}

#[derive(Serialize, Deserialize)]
struct JoinAnswer {
    authority: String,
    certificate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint_key: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RenewRequest {
    pub(super) request: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RenewAnswer {
    pub(super) certificate: String,
}

/// `POST /v1/tokens`.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenRequest {
    /// The instance that may join; an operator if none.
    pub instance: Option<InstanceId>,
    /// For how long, in milliseconds.
    pub valid_ms: u64,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenAnswer {
    pub token: String,
}

/// Joins with a token.
pub async fn join(server: SocketAddr, token: &JoinToken) -> Result<Credentials, JoinError> {
    let key = new_key()?;
    let question = JoinRequest {
        secret: token.secret().to_owned(),
        request: Request::make(&key)?,
    };
    let mut https = Https::to_server(
        server,
        FingerprintVerifier::client_config(&token.authority)?,
    );
    let body = serde_json::to_vec(&question)?;
    let (status, body) = https.exchange(Method::POST, "/v1/join", body).await?;
    if !status.is_success() {
        let refusal = serde_json::from_slice(&body).unwrap_or_else(|_| ErrorAnswer {
            error: format!("the server answered {status}"),
            help: "use the same version of `greenlight` here and on the server".to_owned(),
        });
        let ErrorAnswer { error, help } = refusal;
        return Err(JoinError::Refused { error, help });
    }
    let answer: JoinAnswer = serde_json::from_slice(&body)?;
    Ok(Credentials {
        authority: answer.authority,
        certificate: answer.certificate,
        key,
        fingerprint_key: answer
            .fingerprint_key
            .as_deref()
            .and_then(FingerprintKey::from_text),
    })
}

/// The server's side.
#[derive(Clone)]
pub struct Enrollment {
    authority: Arc<Authority>,
    tokens: Tokens,
    fleet: Arc<BTreeSet<InstanceId>>,
}

impl Enrollment {
    /// The enrollment of the instances of a fleet.
    pub fn new(authority: Arc<Authority>, tokens: Tokens, fleet: BTreeSet<InstanceId>) -> Self {
        Self {
            authority,
            tokens,
            fleet: Arc::new(fleet),
        }
    }

    /// What a client without a certificate may ask.
    pub fn public_routes(&self) -> Router {
        Router::new()
            .route("/v1/join", post(admit))
            .layer(DefaultBodyLimit::max(LARGEST))
            .with_state(self.clone())
    }

    /// What everyone of the fleet may ask.
    pub fn members(&self) -> Router {
        Router::new()
            .route("/v1/certificate", post(renew))
            .layer(DefaultBodyLimit::max(LARGEST))
            .with_state(self.clone())
    }

    /// What operators may ask.
    pub fn operators(&self) -> Router {
        Router::new()
            .route("/v1/tokens", post(make_token))
            .with_state(self.clone())
    }

    fn knows(&self, role: &Role) -> bool {
        match role {
            Role::Agent(name) => self.fleet.contains(&InstanceId(name.clone())),
            Role::Operator | Role::Server => true,
        }
    }
}

async fn admit(State(enrollment): State<Enrollment>, Json(asked): Json<JoinRequest>) -> Response {
    // Checked before the token is used up.
    let request = match Request::parse(&asked.request) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error, "use the same version"),
    };
    let role = match enrollment.tokens.redeem(&asked.secret) {
        Ok(role) => role,
        Err(error) => {
            tracing::warn!(%error, "a client could not join");
            let status = match error {
                TokenError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
                TokenError::Unknown | TokenError::Used | TokenError::Expired => {
                    StatusCode::FORBIDDEN
                }
            };
            let help = "make a new one with `greenlight token`, and use it in time";
            return refuse(status, &error, help);
        }
    };
    if !enrollment.knows(&role) {
        return unknown(&role);
    }
    match enrollment.authority.sign(&role, &request) {
        Ok(certificate) => {
            tracing::info!(role = role.dns_name(), "joined");
            let fingerprint_key = match role {
                Role::Operator => Some(enrollment.authority.fingerprint_key().to_text()),
                Role::Server | Role::Agent(_) => None,
            };
            Json(JoinAnswer {
                authority: enrollment.authority.certificate().to_owned(),
                certificate,
                fingerprint_key,
            })
            .into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn renew(
    State(enrollment): State<Enrollment>,
    Extension(role): Extension<Role>,
    Json(asked): Json<RenewRequest>,
) -> Response {
    if !enrollment.knows(&role) {
        return unknown(&role);
    }
    let signed = Request::parse(&asked.request)
        .and_then(|request| enrollment.authority.sign(&role, &request));
    match signed {
        Ok(certificate) => {
            tracing::info!(role = role.dns_name(), "renewed a certificate");
            Json(RenewAnswer { certificate }).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn make_token(
    State(enrollment): State<Enrollment>,
    Json(asked): Json<TokenRequest>,
) -> Response {
    let role = match asked.instance {
        Some(name) => Role::Agent(name.0),
        None => Role::Operator,
    };
    if !enrollment.knows(&role) {
        return unknown(&role);
    }
    let valid = match check_validity(Duration::from_millis(asked.valid_ms)) {
        Ok(valid) => valid,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error, "ask for another time"),
    };
    match enrollment.tokens.make(&enrollment.authority, &role, valid) {
        Ok(token) => Json(TokenAnswer {
            token: token.to_string(),
        })
        .into_response(),
        Err(error) => failed(&error),
    }
}

/// Notes beside a server's authority which instances it knows: a token that is made there without
/// asking it must be for one of them.
pub fn note_fleet(state: &Path, fleet: &BTreeSet<InstanceId>) -> io::Result<()> {
    std::fs::write(state.join(FLEET), serde_json::to_vec(fleet)?)
}

/// The instances that the server of this folder knew when it was started last; `None` if it did
/// not say.
pub fn noted_fleet(state: &Path) -> Option<BTreeSet<InstanceId>> {
    let noted = std::fs::read(state.join(FLEET)).ok()?;
    serde_json::from_slice(&noted).ok()
}

fn unknown(role: &Role) -> Response {
    let name = match role {
        Role::Agent(name) => name.as_str(),
        Role::Operator | Role::Server => "",
    };
    let error = format!("the server knows no instance `{name}`");
    refuse(StatusCode::FORBIDDEN, &error, UNKNOWN_HELP)
}

fn failed(error: &PkiError) -> Response {
    let help = "look at the server's log and its folder";
    refuse(StatusCode::INTERNAL_SERVER_ERROR, error, help)
}

fn refuse(status: StatusCode, error: &dyn std::fmt::Display, help: &str) -> Response {
    let answer = ErrorAnswer {
        error: error.to_string(),
        help: help.to_owned(),
    };
    (status, Json(answer)).into_response()
}
