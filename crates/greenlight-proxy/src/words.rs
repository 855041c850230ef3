//! What the proxy answers in its own words.

use crate::body::ResponseBody;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";

/// An answer in the proxy's own words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    pub(crate) status: StatusCode,
    pub(crate) text: &'static str,
    /// A refusal that will pass: try again after a second.
    pub(crate) will_pass: bool,
}

impl Words {
    pub(crate) const fn new(status: StatusCode, text: &'static str) -> Self {
        Self {
            status,
            text,
            will_pass: false,
        }
    }

    pub(crate) const fn unavailable(text: &'static str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            text,
            will_pass: true,
        }
    }
}

impl From<Words> for Response<ResponseBody> {
    fn from(words: Words) -> Self {
        let body = Bytes::from_static(words.text.as_bytes());
        let mut response = Self::new(ResponseBody::Own(Some(body)));
        *response.status_mut() = words.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN));
        if words.will_pass {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
