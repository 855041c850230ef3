//! Which requests the relay takes, and how it writes them.
//!
//! It takes what is plain beyond doubt. Everything else, what is wrong included, is hyper's: so
//! what is refused, and how, is written in one place.

use super::buffer::Buffer;
use super::field::{Field, members};
use crate::headers::Asker;
use crate::request::{is_host, is_idempotent};
use crate::route_table::Service;
use crate::serve::GATE_PATH;
use crate::worker::Worker;
use httparse::{Header, Status};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Requests with more fields are hyper's.
const MAX_FIELDS: usize = 64;

/// What the start of a client's bytes is.
pub(super) enum Parsed {
    /// The head is not complete.
    Partial,
    /// A request that the relay takes.
    Plain(Plain),
    /// Something for hyper.
    Other,
}

/// A request that the relay takes, as it is sent to the application.
pub(super) struct Plain {
    pub(super) outgoing: Buffer,
    pub(super) service: Option<Arc<Service>>,
    /// How many of the client's bytes it was.
    pub(super) length: usize,
    pub(super) is_head: bool,
    pub(super) is_idempotent: bool,
    /// The client wants nothing after it.
    pub(super) closes: bool,
}

/// Looks at the first request of what a client has sent.
pub(super) fn parse(bytes: &[u8], worker: &Worker, asker: &Asker) -> Parsed {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Complete(head)) if head <= worker.limits.max_head => {
            plain(&request, bytes, head, worker, asker).map_or(Parsed::Other, Parsed::Plain)
        }
        Ok(Status::Partial) if bytes.len() < worker.limits.max_head => Parsed::Partial,
        Ok(_) | Err(_) => Parsed::Other,
    }
}

/// `None` if it is not plain.
fn plain(
    request: &httparse::Request<'_, '_>,
    bytes: &[u8],
    head: usize,
    worker: &Worker,
    asker: &Asker,
) -> Option<Plain> {
    let (method, target) = (request.method?, request.path?);
    let path = target.split('?').next()?;
    let is_plain = request.version == Some(1) && method != "CONNECT" && is_plain_target(target);
    if !is_plain || asker.is_proxy() && path == GATE_PATH {
        return None;
    }
    let framing = Framing::of(request.headers)?;
    let body = bytes.get(head..head.checked_add(framing.body)?)?;
    if worker
        .limits
        .max_body
        .is_some_and(|max| body.len() as u64 > max)
    {
        return None;
    }
    let mut outgoing = worker.small_buffers.take();
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        outgoing.append(part.as_bytes())?;
    }
    let may_speak_for_clients = asker.is_proxy();
    let (mut has_host, mut has_proto) = (false, false);
    for field in &*request.headers {
        let kind = Field::of(field.name);
        let goes_on = match kind {
            Field::Connection | Field::OneHop => false,
            Field::Forwarded | Field::ForwardedHost | Field::ForwardedProto => {
                has_host |= kind == Field::ForwardedHost && may_speak_for_clients;
                has_proto |= kind == Field::ForwardedProto && may_speak_for_clients;
                may_speak_for_clients
            }
            Field::Host
            | Field::ContentLength
            | Field::ContentType
            | Field::TransferEncoding
            | Field::Negotiation
            | Field::Date
            | Field::Other => true,
        };
        if !goes_on {
            continue;
        }
        outgoing.append_field(field.name.as_bytes(), field.value)?;
    }
    asker.introduce(framing.host, has_host, has_proto, |part| {
        outgoing.append(part.as_bytes())
    })?;
    outgoing.append(b"\r\n")?;
    outgoing.append(body)?;
    let table = worker.shared.table.load();
    Some(Plain {
        outgoing,
        service: table.find(framing.host, path).cloned(),
        length: head + body.len(),
        is_head: method == "HEAD",
        is_idempotent: is_idempotent(method),
        closes: framing.closes,
    })
}

/// What decides whom a request is for and where it ends.
struct Framing<'a> {
    host: &'a str,
    body: usize,
    closes: bool,
}

impl<'a> Framing<'a> {
    fn of(fields: &[Header<'a>]) -> Option<Self> {
        let (mut host, mut body, mut closes) = (None, None, false);
        for field in fields {
            match Field::of(field.name) {
                Field::Host => {
                    let is_good = !field.value.is_empty() && is_host(field.value);
                    if !is_good || host.is_some() {
                        return None;
                    }
                    host = Some(std::str::from_utf8(field.value).ok()?);
                }
                Field::ContentLength => {
                    let length = length(field.value)?;
                    if body.replace(length).is_some() {
                        return None;
                    }
                }
                Field::Connection => {
                    for option in members(field.value) {
                        match option {
                            _ if option.eq_ignore_ascii_case(b"close") => closes = true,
                            _ if option.eq_ignore_ascii_case(b"keep-alive") => {}
                            _ => return None,
                        }
                    }
                }
                Field::TransferEncoding | Field::Negotiation => return None,
                Field::ContentType
                | Field::OneHop
                | Field::Date
                | Field::ForwardedHost
                | Field::ForwardedProto
                | Field::Forwarded
                | Field::Other => {}
            }
        }
        Some(Self {
            host: host?,
            body: body.unwrap_or(0),
            closes,
        })
    }
}

/// A length of digits alone.
fn length(value: &[u8]) -> Option<usize> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(value).ok().filter(|_| is_number)?;
    digits.parse().ok()
}

/// Whether the target is a path, and of characters that nobody reads in two ways.
fn is_plain_target(target: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?".contains(&byte);
    target.starts_with('/') && target.bytes().all(is_plain)
}
