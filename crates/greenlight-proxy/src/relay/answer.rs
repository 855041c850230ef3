//! The head of an application's answer, and how it is written for the client.

use super::buffer::Buffer;
use super::date::Date;
use super::field::{Field, members};
use super::framing::{Chunk, Framing};
use crate::answer::is_event_stream;
use httparse::{Header, Status};
use std::mem::MaybeUninit;

/// As many as hyper's way takes.
const MAX_FIELDS: usize = 100;

/// What of the request and its connection the answer depends on.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) is_head: bool,
    /// The client's connection ends with this answer.
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
    /// Another protocol, which nobody asked for.
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

/// Takes the next head out of the buffer and writes it, as it is for the client, to `out`.
pub(super) fn parse(buffer: &mut Buffer, context: Context<'_>, out: &mut Vec<u8>) -> Parsed {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed =
        config.parse_response_with_uninit_headers(&mut answer, buffer.bytes(), &mut fields);
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if !buffer.is_full() => return Parsed::Partial,
        Ok(Status::Partial) | Err(_) => return Parsed::Malformed,
    };
    out.clear();
    let parsed = rewrite(&answer, context, out).unwrap_or(Parsed::Malformed);
    buffer.consume(length);
    parsed
}

fn rewrite(
    answer: &httparse::Response<'_, '_>,
    context: Context<'_>,
    out: &mut Vec<u8>,
) -> Option<Parsed> {
    let (version, code) = (answer.version?, answer.code?);
    match code {
        100 => return Some(Parsed::Continue),
        101 => return Some(Parsed::Switched),
        ..100 => return None,
        _ => {}
    }
    let hop = Hop::of(answer.headers);
    for part in [
        b"HTTP/1.1 ",
        itoa(code).as_slice(),
        b" ",
        answer.reason?.as_bytes(),
        b"\r\n",
    ] {
        out.extend_from_slice(part);
    }
    let (mut has_date, mut is_stream) = (false, false);
    for field in &*answer.headers {
        match Field::of(field.name) {
            Field::Connection
            | Field::OneHop
            | Field::Negotiation
            | Field::TransferEncoding
            | Field::ContentLength => continue,
            Field::Date => has_date = true,
            Field::ContentType => is_stream |= is_event_stream(field.value),
            Field::Host
            | Field::ForwardedHost
            | Field::ForwardedProto
            | Field::Forwarded
            | Field::Other => {}
        }
        if hop.nominates && is_nominated(field.name, answer.headers) {
            continue;
        }
        write(out, field.name.as_bytes(), field.value);
    }
    if code < 200 {
        out.extend_from_slice(b"\r\n");
        return Some(Parsed::Interim);
    }
    let framing = framing(version, code, context, answer.headers, out)?;
    if !has_date {
        out.extend_from_slice(b"date: ");
        context.date.write(out);
        out.extend_from_slice(b"\r\n");
    }
    if context.closes {
        write(out, b"connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    let keeps_alive = match version {
        0 => hop.keeps_alive,
        _ => !hop.closes,
    };
    Some(Parsed::Final(Head {
        framing,
        is_stream,
        keeps_alive,
    }))
}

/// How the body is delimited (RFC 9112 section 6.3), which is said to the client. `None` if that
/// can be read in two ways.
fn framing(
    version: u8,
    code: u16,
    context: Context<'_>,
    fields: &[Header<'_>],
    out: &mut Vec<u8>,
) -> Option<Framing> {
    let (mut is_chunked, mut length) = (false, None);
    for field in fields {
        let kind = Field::of(field.name);
        if kind == Field::TransferEncoding {
            let is_plain = field.value.eq_ignore_ascii_case(b"chunked");
            if !is_plain || is_chunked || version == 0 {
                return None;
            }
            is_chunked = true;
        } else if kind == Field::ContentLength {
            for member in field.value.split(|byte| *byte == b',') {
                let same = number(member.trim_ascii())?;
                if length.replace(same).is_some_and(|other| other != same) {
                    return None;
                }
            }
        }
    }
    let has_body = !context.is_head && !matches!(code, 204 | 304);
    let length = length.filter(|_| !is_chunked && code != 204);
    if let Some(length) = length {
        write(out, b"content-length", length.to_string().as_bytes());
    }
    if !has_body {
        return Some(Framing::Length(0));
    }
    if let Some(length) = length {
        return Some(Framing::Length(length));
    }
    write(out, b"transfer-encoding", b"chunked");
    Some(match is_chunked {
        true => Framing::Chunked(Chunk::Size),
        false => Framing::UntilClose,
    })
}

/// What an answer says of the connection it came on.
#[derive(Default)]
struct Hop {
    closes: bool,
    keeps_alive: bool,
    /// Names fields that are for this hop only.
    nominates: bool,
}

impl Hop {
    fn of(fields: &[Header<'_>]) -> Self {
        let mut hop = Self::default();
        for option in connection_options(fields) {
            match option {
                _ if option.eq_ignore_ascii_case(b"close") => hop.closes = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => hop.keeps_alive = true,
                _ => hop.nominates = true,
            }
        }
        hop
    }
}

fn is_nominated(name: &str, fields: &[Header<'_>]) -> bool {
    connection_options(fields).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
}

fn connection_options<'a>(fields: &'a [Header<'_>]) -> impl Iterator<Item = &'a [u8]> {
    let connection = |field: &&Header<'_>| Field::of(field.name) == Field::Connection;
    fields
        .iter()
        .filter(connection)
        .flat_map(|field| members(field.value))
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    digits.parse().ok()
}

fn write(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Three digits.
fn itoa(code: u16) -> [u8; 3] {
    [code / 100, code / 10 % 10, code % 10].map(|digit| b'0' + (digit % 10) as u8)
}
