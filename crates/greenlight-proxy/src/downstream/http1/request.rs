//! Which requests the fast path takes, and how it writes them: parse, route, rewrite.
//!
//! It takes what can be read in one way only. Everything else, what is wrong included, is hyper's:
//! so what is refused, and how, is written in one place.

use super::field::{Field, members, number};
use crate::buffer::{Buffer, Buffers};
use crate::downstream::client_info::ClientInfo;
use crate::http_rules::{is_host, is_idempotent};
use crate::limits::Limits;
use crate::routing::{Service, SharedTable};
use crate::thread::ThreadContext;
use greenlight_admin::GATE_PATH;
use httparse::{Header, Status};
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::sync::Arc;

/// Requests with more fields are hyper's.
const MAX_FIELDS: usize = 64;

/// Why the fast path takes no request from a client's bytes.
pub(super) enum NotTaken {
    /// The head is not complete.
    Partial,
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

/// Takes the first request in a client's bytes.
pub(super) fn take(
    bytes: &[u8],
    thread: &ThreadContext,
    client_info: &ClientInfo,
) -> Result<FastPathRequest, NotTaken> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let head = parse(bytes, &mut fields, &thread.limits, client_info)?;
    let service = route(&head, &thread.table);
    let outgoing = rewrite(&head, &thread.small_buffers, client_info);
    Ok(FastPathRequest {
        outgoing: outgoing.ok_or(NotTaken::ForHyper)?,
        service,
        length: head.length + head.body.len(),
        is_head: head.method == "HEAD",
        is_idempotent: is_idempotent(head.method),
        closes: head.closes,
    })
}

fn parse<'h, 'b: 'h>(
    bytes: &'b [u8],
    fields: &'h mut [MaybeUninit<Header<'b>>; MAX_FIELDS],
    limits: &Limits,
    client_info: &ClientInfo,
) -> Result<Head<'h>, NotTaken> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, fields) {
        Ok(Status::Complete(length)) if length <= limits.max_head => {
            let head = Head::of(request, bytes, length, limits, client_info);
            head.ok_or(NotTaken::ForHyper)
        }
        Ok(Status::Partial) if bytes.len() < limits.max_head => Err(NotTaken::Partial),
        Ok(_) | Err(_) => Err(NotTaken::ForHyper),
    }
}

fn route(head: &Head<'_>, table: &SharedTable) -> Option<Arc<Service>> {
    table.load().find(head.host, head.path).cloned()
}

/// The request as the application gets it. `None` if there is no room for it.
fn rewrite(head: &Head<'_>, buffers: &Rc<Buffers>, client_info: &ClientInfo) -> Option<Buffer> {
    let mut outgoing = Buffer::new(buffers);
    for part in [head.method, " ", head.target, " HTTP/1.1\r\n"] {
        outgoing.append(part.as_bytes())?;
    }
    for (field, kind) in head.fields.iter().zip(head.kinds) {
        if is_passed_on(kind, client_info) {
            outgoing.append_field(field.name.as_bytes(), field.value)?;
        }
    }
    client_info.write_forwarded_headers(
        head.host,
        head.forwarded_host,
        head.forwarded_proto,
        |part| outgoing.append(part.as_bytes()),
    )?;
    outgoing.append(b"\r\n")?;
    outgoing.append(head.body)?;
    Some(outgoing)
}

fn is_passed_on(kind: Field, client_info: &ClientInfo) -> bool {
    match kind {
        Field::Connection | Field::OneHop | Field::TransferEncoding | Field::Negotiation => false,
        Field::Forwarded | Field::ForwardedHost | Field::ForwardedProto => client_info.is_proxy(),
        Field::Host | Field::ContentLength | Field::ContentType | Field::Date | Field::Other => {
            true
        }
    }
}

/// A request that can be read in one way only, with the body that belongs to it.
struct Head<'a> {
    method: &'a str,
    target: &'a str,
    path: &'a str,
    host: &'a str,
    fields: &'a [Header<'a>],
    /// What each of the fields is.
    kinds: [Field; MAX_FIELDS],
    length: usize,
    body: &'a [u8],
    closes: bool,
    /// Another proxy has said for which host the request was.
    forwarded_host: bool,
    /// Another proxy has said by which protocol it came.
    forwarded_proto: bool,
}

impl<'a> Head<'a> {
    /// `None` if it is for hyper.
    fn of<'b: 'a>(
        request: httparse::Request<'a, 'b>,
        bytes: &'b [u8],
        length: usize,
        limits: &Limits,
        client_info: &ClientInfo,
    ) -> Option<Self> {
        let httparse::Request {
            method,
            path: target,
            version,
            headers,
        } = request;
        let (method, target) = (method?, target?);
        let path = target.split('?').next()?;
        let is_plain = version == Some(1) && method != "CONNECT" && is_plain_target(target);
        if !is_plain || client_info.is_proxy() && path == GATE_PATH {
            return None;
        }
        let mut head = Self {
            method,
            target,
            path,
            host: "",
            fields: headers,
            kinds: [Field::Other; MAX_FIELDS],
            length,
            body: &[],
            closes: false,
            forwarded_host: false,
            forwarded_proto: false,
        };
        let body = head.read_fields(client_info.is_proxy())?;
        if limits.max_body.is_some_and(|max| body > max) {
            return None;
        }
        let end = length.checked_add(usize::try_from(body).ok()?)?;
        head.body = bytes.get(length..end)?;
        Some(head)
    }

    /// Reads what the fields say about this request. Returns the length of its body; `None` if a
    /// field can be read in two ways, or is hyper's.
    fn read_fields(&mut self, may_speak_for_clients: bool) -> Option<u64> {
        let (mut host, mut length) = (None, None);
        for (field, kind) in self.fields.iter().zip(&mut self.kinds) {
            *kind = Field::of(field.name);
            match *kind {
                Field::Host => {
                    let name = std::str::from_utf8(field.value).ok()?;
                    let is_good = !name.is_empty() && is_host(field.value);
                    if !is_good || host.replace(name).is_some() {
                        return None;
                    }
                }
                Field::ContentLength => {
                    if length.replace(number(field.value)?).is_some() {
                        return None;
                    }
                }
                Field::Connection => {
                    for option in members(field.value) {
                        if option.eq_ignore_ascii_case(b"close") {
                            self.closes = true;
                        } else if !option.eq_ignore_ascii_case(b"keep-alive") {
                            return None;
                        }
                    }
                }
                Field::TransferEncoding | Field::Negotiation => return None,
                Field::ForwardedHost => self.forwarded_host = may_speak_for_clients,
                Field::ForwardedProto => self.forwarded_proto = may_speak_for_clients,
                Field::OneHop
                | Field::Forwarded
                | Field::ContentType
                | Field::Date
                | Field::Other => {}
            }
        }
        self.host = host?;
        Some(length.unwrap_or(0))
    }
}

/// Whether the target is a path of characters with only one reading.
fn is_plain_target(target: &str) -> bool {
    let is_plain = |byte| {
        matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
            | b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b':' | b'@' | b'/' | b'%' | b'?')
    };
    target.starts_with('/') && target.bytes().all(is_plain)
}
