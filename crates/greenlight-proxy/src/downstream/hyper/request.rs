//! A client's request as it will be sent to the application, perhaps more than once.
//!
//! Everything that makes a request unacceptable is decided here, before the gate.

use super::client_io::InterimResponses;
use crate::downstream::client_info::{ClientInfo, set_forwarded_headers};
use crate::downstream::hop_by_hop::strip_hop_by_hop;
use crate::http_rules::{is_host, is_idempotent};
use crate::limits::Limits;
use crate::local_reply::LocalReply;
use crate::upstream::{FirstByteTracker, RequestBody, Upload};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, StatusCode, Version};
use std::sync::Arc;
use std::task::Context;

/// The host for an HTTP/1.0 request without one: HTTP/1.1 needs a host.
const NO_HOST: &str = "localhost";

/// The client of one connection.
pub(crate) struct Client {
    pub(crate) info: ClientInfo,
    pub(crate) interim: Arc<InterimResponses>,
}

/// A request as it will be sent.
pub(crate) struct Outgoing {
    parts: Parts,
    pub(crate) host: String,
    pub(crate) upload: Option<Upload>,
    pub(crate) upgrade: Option<OnUpgrade>,
    interim: Arc<InterimResponses>,
    takes_interim: bool,
}

impl Outgoing {
    /// Prepares a request, or refuses it.
    pub(crate) fn new(
        request: Request<Incoming>,
        client: &Client,
        limits: &Limits,
    ) -> Result<Self, LocalReply> {
        let (mut parts, body) = request.into_parts();
        let is_http_11 = parts.version == Version::HTTP_11;
        let expects = is_http_11 && expects_continue(&parts.headers);
        let upload = Upload::new(body, limits, is_idempotent(parts.method.as_str()), expects);
        let host = host_of(&parts)?;
        let length = upload.as_ref().and_then(Upload::length);
        if length
            .zip(limits.max_body)
            .is_some_and(|(is, max)| is > max)
        {
            let text = "the request's body is too large\n";
            return Err(LocalReply::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        if !is_plainly_chunked(&parts.headers) {
            let text = "the only supported transfer coding is `chunked`\n";
            return Err(LocalReply::new(StatusCode::NOT_IMPLEMENTED, text));
        }
        let protocol = strip_hop_by_hop(&mut parts.headers);
        // HTTP/1.0 has no upgrades, and an HTTP/2 that begins inside a tunnel would be past all
        // routing and header rules of this proxy.
        let protocol = protocol.filter(|protocol| is_http_11 && !is_http(protocol));
        let on_upgrade = parts.extensions.remove::<OnUpgrade>();
        set_forwarded_headers(&mut parts.headers, &host, &client.info);
        if let Some(protocol) = &protocol {
            let upgrade = HeaderValue::from_static("upgrade");
            parts.headers.insert(UPGRADE, protocol.clone());
            parts.headers.insert(CONNECTION, upgrade);
        }
        if !expects || upload.is_none() {
            parts.headers.remove(EXPECT);
        }
        if upload.is_some() && length.is_none() {
            // hyper would send a GET without a length as one without a body.
            let chunked = HeaderValue::from_static("chunked");
            parts.headers.insert(TRANSFER_ENCODING, chunked);
        }
        name_host(&mut parts, &host);
        parts.version = Version::HTTP_11;
        Ok(Self {
            parts,
            host,
            upload,
            upgrade: on_upgrade.filter(|_| protocol.is_some()),
            interim: client.interim.clone(),
            takes_interim: is_http_11,
        })
    }

    pub(crate) fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The request to send now.
    pub(crate) fn request(&self, tracker: &Arc<FirstByteTracker>) -> Request<RequestBody> {
        let body = match &self.upload {
            Some(upload) => RequestBody::of(upload, tracker),
            None => RequestBody::empty(),
        };
        let mut request = Request::from_parts(self.parts.clone(), body);
        if self.takes_interim {
            let interim = self.interim.clone();
            let upload = self.upload.clone();
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() != StatusCode::CONTINUE {
                    interim.push(&interim_head(response.status(), response.headers()));
                } else if let Some(upload) = &upload {
                    upload.go_ahead();
                }
            });
        }
        request
    }

    /// Wakes the task when there is an interim response to pass on.
    pub(crate) fn register_for_interim(&self, cx: &Context<'_>) {
        if self.takes_interim {
            self.interim.register(cx);
        }
    }

    pub(crate) fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    pub(crate) fn is_idempotent(&self) -> bool {
        is_idempotent(self.parts.method.as_str())
    }

    /// Goes back to the start of its body. False if a part of it is gone.
    pub(crate) fn rewind(&self) -> bool {
        self.upload.as_ref().is_none_or(Upload::rewind)
    }
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether the body, if it is coded for this hop, is so in no way that would be lost on the next.
fn is_plainly_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// Whether an upgrade would lead to another HTTP.
fn is_http(protocol: &HeaderValue) -> bool {
    let protocol = protocol.as_bytes();
    protocol.split(|byte| *byte == b',').any(|token| {
        let token = token.trim_ascii();
        [&b"h2c"[..], b"h2", b"http/"].iter().any(|name| {
            token
                .get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        })
    })
}

fn host_of(parts: &Parts) -> Result<String, LocalReply> {
    let bad = |text| Err(LocalReply::new(StatusCode::BAD_REQUEST, text));
    if parts.method == Method::CONNECT {
        let text = "this is not a forward proxy\n";
        return Err(LocalReply::new(StatusCode::METHOD_NOT_ALLOWED, text));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return bad("more than one host\n"),
        (Some(host), None) => host.as_bytes(),
        (None, _) if parts.version == Version::HTTP_10 => b"",
        (None, _) => return bad("no host\n"),
    };
    // The target names the host if it is absolute (RFC 9112 section 3.2.2).
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => host,
    };
    match std::str::from_utf8(host) {
        Ok(text) if is_host(host) => Ok(text.to_owned()),
        Ok(_) | Err(_) => bad("the host is not valid\n"),
    }
}

/// Makes the target relative, with the host where HTTP/1.1 wants it.
fn name_host(parts: &mut Parts, host: &str) {
    let is_absolute = parts.uri.authority().is_some();
    if is_absolute {
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        parts.uri = path.parse().expect("a part of a valid target is valid");
    }
    if is_absolute || !parts.headers.contains_key(HOST) {
        let host = if host.is_empty() { NO_HOST } else { host };
        let host = HeaderValue::from_str(host).expect("its bytes were looked at");
        parts.headers.insert(HOST, host);
    }
}

/// An interim response in its wire form.
fn interim_head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut headers = headers.clone();
    strip_hop_by_hop(&mut headers);
    let reason = status.canonical_reason().unwrap_or("Interim");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
