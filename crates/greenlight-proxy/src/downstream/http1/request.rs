//! Which requests the fast path takes, and how it writes them.
//!
//! It takes what is plain beyond doubt. Everything else, what is wrong included, is hyper's: so
//! what is refused, and how, is written in one place.

use super::field::{Field, members, number};
use crate::buffer::Buffer;
use crate::downstream::client_info::ClientInfo;
use crate::local_reply::GATE_PATH;
use crate::routing::Service;
use crate::semantics::{is_host, is_idempotent};
use crate::thread::ThreadContext;
use httparse::{Header, Status};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Requests with more fields are hyper's.
const MAX_FIELDS: usize = 64;

/// What the start of a client's bytes is.
pub(super) enum Parsed {
    /// The head is not complete.
    Partial,
    /// A request that the fast path takes.
    FastPath(FastPathRequest),
    /// Something for hyper.
    ForHyper,
}

/// A request that the fast path takes, as it is sent to the application.
pub(super) struct FastPathRequest {
    pub(super) outgoing: Buffer,
    pub(super) service: Option<Arc<Service>>,
    /// How many of the client's bytes it was.
    pub(super) length: usize,
    pub(super) is_head: bool,
    pub(super) is_idempotent: bool,
    /// The client wants nothing after it.
    pub(super) closes: bool,
}

/// Parses the first request in a client's bytes.
pub(super) fn parse(bytes: &[u8], thread: &ThreadContext, client_info: &ClientInfo) -> Parsed {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Complete(head)) if head <= thread.limits.max_head => {
            plain(&request, bytes, head, thread, client_info)
                .map_or(Parsed::ForHyper, Parsed::FastPath)
        }
        Ok(Status::Partial) if bytes.len() < thread.limits.max_head => Parsed::Partial,
        Ok(_) | Err(_) => Parsed::ForHyper,
    }
}

/// `None` if it is not plain.
fn plain(
    request: &httparse::Request<'_, '_>,
    bytes: &[u8],
    head: usize,
    thread: &ThreadContext,
    client_info: &ClientInfo,
) -> Option<FastPathRequest> {
    let (method, target) = (request.method?, request.path?);
    let path = target.split('?').next()?;
    let is_plain = request.version == Some(1) && method != "CONNECT" && is_plain_target(target);
    if !is_plain || client_info.is_proxy() && path == GATE_PATH {
        return None;
    }
    let mut outgoing = Buffer::new(&thread.small_buffers);
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        outgoing.append(part.as_bytes())?;
    }
    let seen = copy(request.headers, client_info.is_proxy(), &mut outgoing)?;
    let host = seen.host?;
    client_info.write_forwarded_headers(
        host,
        seen.forwarded_host,
        seen.forwarded_proto,
        |part| outgoing.append(part.as_bytes()),
    )?;
    outgoing.append(b"\r\n")?;
    let length = seen.length.unwrap_or(0);
    if thread.limits.max_body.is_some_and(|max| length > max) {
        return None;
    }
    let end = head.checked_add(usize::try_from(length).ok()?)?;
    outgoing.append(bytes.get(head..end)?)?;
    let table = thread.table.load();
    Some(FastPathRequest {
        outgoing,
        service: table.find(host, path).cloned(),
        length: end,
        is_head: method == "HEAD",
        is_idempotent: is_idempotent(method),
        closes: seen.closes,
    })
}

/// The fields of a head that decide its service and its length.
#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a str>,
    length: Option<u64>,
    closes: bool,
    forwarded_host: bool,
    forwarded_proto: bool,
}

/// Copies the fields to pass on. `None` if one is not plain.
fn copy<'a>(
    fields: &[Header<'a>],
    may_speak_for_clients: bool,
    outgoing: &mut Buffer,
) -> Option<Seen<'a>> {
    let mut seen = Seen::default();
    for field in fields {
        match Field::of(field.name) {
            Field::Host => {
                let host = std::str::from_utf8(field.value).ok()?;
                let is_good = !host.is_empty() && is_host(field.value);
                if !is_good || seen.host.replace(host).is_some() {
                    return None;
                }
            }
            Field::ContentLength => {
                let length = number(field.value)?;
                if seen.length.replace(length).is_some() {
                    return None;
                }
            }
            Field::Connection => {
                for option in members(field.value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        seen.closes = true;
                    } else if !option.eq_ignore_ascii_case(b"keep-alive") {
                        return None;
                    }
                }
                continue;
            }
            Field::TransferEncoding | Field::Negotiation => return None,
            Field::OneHop => continue,
            Field::Forwarded | Field::ForwardedHost | Field::ForwardedProto
                if !may_speak_for_clients =>
            {
                continue;
            }
            Field::ForwardedHost => seen.forwarded_host = true,
            Field::ForwardedProto => seen.forwarded_proto = true,
            Field::Forwarded | Field::ContentType | Field::Date | Field::Other => {}
        }
        outgoing.append_field(field.name.as_bytes(), field.value)?;
    }
    Some(seen)
}

/// Whether the target is a path of characters with only one reading.
fn is_plain_target(target: &str) -> bool {
    let is_plain = |byte| {
        matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
            | b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b':' | b'@' | b'/' | b'%' | b'?')
    };
    target.starts_with('/') && target.bytes().all(is_plain)
}
