//! Responses that the proxy generates itself.

use crate::body::ResponseBody;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";

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

impl From<LocalReply> for Response<ResponseBody> {
    fn from(reply: LocalReply) -> Self {
        let body = Bytes::from_static(reply.text.as_bytes());
        let mut response = Self::new(ResponseBody::Local(Some(body)));
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN));
        if reply.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
