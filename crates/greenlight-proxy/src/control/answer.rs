//! The responses of the admin socket: JSON, or a refusal that says what to do next.

use bytes::Bytes;
use greenlight_admin::ErrorAnswer;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest order.
const MAX_COMMAND: usize = 16 * 1024 * 1024;

/// A refusal: status, what is wrong, what to do next.
pub(super) struct Refusal(
    pub(super) StatusCode,
    pub(super) String,
    pub(super) &'static str,
);

pub(super) type Answer<T> = Result<T, Refusal>;

/// Another order, done or under way, prevents this one.
pub(super) fn conflict(error: impl Into<String>) -> Refusal {
    Refusal(StatusCode::CONFLICT, error.into(), "query the status")
}

/// What the control refuses.
pub(super) fn refused(refusal: &greenlight_gate::Refusal) -> Refusal {
    use greenlight_gate::Refusal as By;
    let (status, help) = match refusal {
        By::HandingOver => (
            StatusCode::SERVICE_UNAVAILABLE,
            "ask again: the successor answers",
        ),
        By::Unknown { .. } => (
            StatusCode::NOT_FOUND,
            "define it with `PUT /v1/services/NAME`",
        ),
        By::StillInFlight { .. } => (
            StatusCode::CONFLICT,
            "try again, or allow more time for exclusive cut-overs",
        ),
        By::NotWritten { .. } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "look at the disk of this instance",
        ),
        By::FollowerSilent => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "end the processes that listen beside the admin socket",
        ),
        By::Older { .. }
        | By::AlreadyOpened { .. }
        | By::Superseded
        | By::HoldIsOn
        | By::CommandIsRunning
        | By::NotFollowing => (StatusCode::CONFLICT, "query the status"),
    };
    Refusal(status, refusal.to_string(), help)
}

pub(super) fn not_found(path: &str) -> Refusal {
    let error = format!("there is no `{path}` here");
    let help = "see the documentation of the admin socket";
    Refusal(StatusCode::NOT_FOUND, error, help)
}

pub(super) async fn read<Q: DeserializeOwned>(request: Request<Incoming>) -> Answer<Q> {
    let bad = |error: String| Refusal(StatusCode::BAD_REQUEST, error, "correct the command");
    let body = Limited::new(request.into_body(), MAX_COMMAND)
        .collect()
        .await;
    let bytes = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}

pub(super) fn json<T: Serialize>(answer: Answer<T>) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Ok(answer) => (StatusCode::OK, serde_json::to_vec(&answer)),
        Err(Refusal(status, error, help)) => {
            let help = help.to_owned();
            (status, serde_json::to_vec(&ErrorAnswer { error, help }))
        }
    };
    let body = body.expect("plain data serialises");
    typed(status, "application/json", body)
}

pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text)
}

pub(super) fn typed(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
