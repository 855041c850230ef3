//! What the client is answered through hyper: the application's response, made fit for the next
//! hop.

use super::body::{Exchange, Forwarded, ResponseBody};
use super::upgrade::tunnel;
use crate::downstream::hop_by_hop::strip_hop_by_hop;
use crate::gate::Kind;
use crate::http_rules::is_event_stream;
use crate::idle::Idle;
use crate::local_reply::UNREQUESTED_UPGRADE;
use crate::upstream::Upload;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode, Version};

/// Brings an application's response to the client. The exchange is over when its body is.
pub(crate) fn forward_response(
    mut response: Response<Incoming>,
    mut exchange: Exchange,
    upgrade: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    // What the application speaks ends here.
    *response.version_mut() = Version::HTTP_11;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch_protocols(response, exchange, upgrade);
    }
    let headers = response.headers_mut();
    if headers.contains_key(TRANSFER_ENCODING) {
        // The body was not read by this length (RFC 9112 section 6.3), so it must not be passed on.
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    if exchange.upload.as_ref().is_some_and(Upload::is_unasked) {
        // Whether the body will come now is anyone's guess, so nothing can come after it.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let idle = if is_stream(headers) {
        exchange.claim.reclassify(Kind::Stream);
        Idle::never()
    } else {
        Idle::new(exchange.thread.limits.idle_timeout)
    };
    response.map(|inner| {
        if inner.is_end_stream() {
            exchange.complete();
            return ResponseBody::Local(None);
        }
        ResponseBody::Forwarded(Box::new(Forwarded {
            inner,
            idle,
            exchange: Some(exchange),
        }))
    })
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| is_event_stream(kind.as_bytes()))
}

fn switch_protocols(
    mut response: Response<Incoming>,
    exchange: Exchange,
    client: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    let Some(client) = client else {
        exchange.claim.gate().note_failed();
        return UNREQUESTED_UPGRADE.into();
    };
    let application = hyper::upgrade::on(&mut response);
    let protocol = strip_hop_by_hop(response.headers_mut());
    if let Some(protocol) = protocol {
        response.headers_mut().insert(UPGRADE, protocol);
    }
    let upgrade = HeaderValue::from_static("upgrade");
    response.headers_mut().insert(CONNECTION, upgrade);
    tunnel(&exchange.thread, client, application, exchange.claim);
    response.map(|_| ResponseBody::Local(None))
}
