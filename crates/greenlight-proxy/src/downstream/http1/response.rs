//! The head of an application's response, and how it is written for the client.

use super::field::{Field, members, number};
use super::framing::{Chunk, Framing};
use crate::buffer::Buffer;
use crate::date::Date;
use crate::http_rules::is_event_stream;
use httparse::{Header, Status};
use std::mem::MaybeUninit;

/// The same limit as on hyper's path.
const MAX_FIELDS: usize = 100;

/// What of the request and its connection the response depends on.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) is_head: bool,
    /// The client's connection ends with this response.
    pub(super) closes: bool,
    /// For an application that does not say when it answered.
    pub(super) date: &'a Date,
}

/// What the start of an application's bytes is.
pub(super) enum Parsed {
    /// The head is not complete.
    Partial,
    /// Not final, and nothing that a client who asked for nothing needs to know.
    Continue,
    /// Not final, and for the client.
    Interim,
    Final(Head),
    /// Another protocol, which was not requested.
    Switched,
    Malformed,
}

/// A final head.
pub(super) struct Head {
    pub(super) framing: Framing,
    /// It has no foreseeable end.
    pub(super) is_stream: bool,
    /// The application takes another request on this connection.
    pub(super) keeps_alive: bool,
}

/// Takes the next head out of the buffer and writes it, in the client's form, to `out`.
pub(super) fn parse(buffer: &mut Buffer, context: Context<'_>, out: &mut Vec<u8>) -> Parsed {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed =
        config.parse_response_with_uninit_headers(&mut response, buffer.bytes(), &mut fields);
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if !buffer.is_full() => return Parsed::Partial,
        Ok(Status::Partial) | Err(_) => return Parsed::Malformed,
    };
    out.clear();
    let parsed = rewrite(&response, context, out).unwrap_or(Parsed::Malformed);
    buffer.cut(length);
    parsed
}

fn rewrite(
    response: &httparse::Response<'_, '_>,
    context: Context<'_>,
    out: &mut Vec<u8>,
) -> Option<Parsed> {
    let (version, code) = (response.version?, response.code?);
    match code {
        100 => return Some(Parsed::Continue),
        101 => return Some(Parsed::Switched),
        ..100 => return None,
        _ => {}
    }
    for part in [
        b"HTTP/1.1 ",
        digits(code).as_slice(),
        b" ",
        response.reason?.as_bytes(),
        b"\r\n",
    ] {
        out.extend_from_slice(part);
    }
    let status_line = out.len();
    let mut seen = copy(response.headers, out, |_| false)?;
    if seen.nominates {
        out.truncate(status_line);
        seen = copy(response.headers, out, |name| {
            is_nominated(name, response.headers)
        })?;
    }
    if code < 200 {
        out.extend_from_slice(b"\r\n");
        return Some(Parsed::Interim);
    }
    let framing = framing(version, code, context, &seen, out)?;
    if !seen.date {
        out.extend_from_slice(b"date: ");
        context.date.write(out);
        out.extend_from_slice(b"\r\n");
    }
    if context.closes {
        write(out, b"connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    let keeps_alive = match version {
        0 => seen.keeps_alive,
        _ => !seen.closes,
    };
    Some(Parsed::Final(Head {
        framing,
        is_stream: seen.is_stream,
        keeps_alive,
    }))
}

/// The framing fields of a head: for its body and its connection.
#[expect(
    clippy::struct_excessive_bools,
    reason = "a head says these things or does not, each by itself"
)]
#[derive(Default)]
struct Seen<'a> {
    length: Option<(u64, &'a [u8])>,
    is_chunked: bool,
    is_stream: bool,
    date: bool,
    closes: bool,
    keeps_alive: bool,
    /// `Connection` names fields that are for this hop only.
    nominates: bool,
}

/// Copies the fields to pass on, without those to `skip`. `None` if the length can be read in two
/// ways.
fn copy<'a>(
    fields: &[Header<'a>],
    out: &mut Vec<u8>,
    skip: impl Fn(&str) -> bool,
) -> Option<Seen<'a>> {
    let mut seen = Seen::default();
    for field in fields {
        match Field::of(field.name) {
            Field::Connection => {
                for option in members(field.value) {
                    match option {
                        _ if option.eq_ignore_ascii_case(b"close") => seen.closes = true,
                        _ if option.eq_ignore_ascii_case(b"keep-alive") => seen.keeps_alive = true,
                        _ => seen.nominates = true,
                    }
                }
                continue;
            }
            Field::TransferEncoding => {
                let is_plain = field.value.eq_ignore_ascii_case(b"chunked");
                if !is_plain || seen.is_chunked {
                    return None;
                }
                seen.is_chunked = true;
                continue;
            }
            Field::ContentLength => {
                for member in field.value.split(|byte| *byte == b',') {
                    let member = member.trim_ascii();
                    let number = number(member)?;
                    let before = seen.length.replace((number, member));
                    if before.is_some_and(|(other, _)| other != number) {
                        return None;
                    }
                }
                continue;
            }
            Field::OneHop | Field::Negotiation => continue,
            Field::Date => seen.date = true,
            Field::ContentType => seen.is_stream |= is_event_stream(field.value),
            Field::Host
            | Field::ForwardedHost
            | Field::ForwardedProto
            | Field::Forwarded
            | Field::Other => {}
        }
        if !skip(field.name) {
            write(out, field.name.as_bytes(), field.value);
        }
    }
    Some(seen)
}

fn is_nominated(name: &str, fields: &[Header<'_>]) -> bool {
    fields
        .iter()
        .filter(|field| Field::of(field.name) == Field::Connection)
        .flat_map(|field| members(field.value))
        .any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
}

/// How the body is delimited (RFC 9112 section 6.3) for the client.
fn framing(
    version: u8,
    code: u16,
    context: Context<'_>,
    seen: &Seen<'_>,
    out: &mut Vec<u8>,
) -> Option<Framing> {
    if seen.is_chunked && version == 0 {
        return None;
    }
    let has_body = !context.is_head && !matches!(code, 204 | 304);
    let length = seen.length.filter(|_| !seen.is_chunked && code != 204);
    if let Some((_, digits)) = length {
        write(out, b"content-length", digits);
    }
    if !has_body {
        return Some(Framing::Length(0));
    }
    if let Some((length, _)) = length {
        return Some(Framing::Length(length));
    }
    write(out, b"transfer-encoding", b"chunked");
    Some(match seen.is_chunked {
        true => Framing::Chunked(Chunk::Size),
        false => Framing::UntilClose,
    })
}

fn write(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn digits(code: u16) -> [u8; 3] {
    [code / 100, code / 10, code].map(|digit| b'0' + (digit % 10) as u8)
}
