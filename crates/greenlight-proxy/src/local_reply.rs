//! Responses that the proxy generates itself.

use hyper::StatusCode;

pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";

/// The application may have seen the request, or a part of it.
pub(crate) const UPSTREAM_GONE: LocalReply = LocalReply::new(
    StatusCode::BAD_GATEWAY,
    "the application closed the connection before it answered\n",
);
/// It accepted the request and sent nothing for too long.
pub(crate) const UPSTREAM_TIMED_OUT: LocalReply = LocalReply::new(
    StatusCode::GATEWAY_TIMEOUT,
    "the application did not answer in time\n",
);
pub(crate) const NO_SERVICE: LocalReply = LocalReply::new(
    StatusCode::NOT_FOUND,
    "no service is routed for this host and path\n",
);

/// Passing it on like a response would give the client a connection that is not HTTP.
pub(crate) const UNREQUESTED_UPGRADE: LocalReply = LocalReply::new(
    StatusCode::BAD_GATEWAY,
    "the application switched protocols without being asked\n",
);

/// A response that the proxy generates itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalReply {
    pub(crate) status: StatusCode,
    pub(crate) text: &'static str,
    /// Whether the reply has `Retry-After: 1`.
    pub(crate) retry_after: bool,
}

impl LocalReply {
    pub(crate) const fn new(status: StatusCode, text: &'static str) -> Self {
        Self {
            status,
            text,
            retry_after: false,
        }
    }

    pub(crate) const fn unavailable(text: &'static str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            text,
            retry_after: true,
        }
    }
}
