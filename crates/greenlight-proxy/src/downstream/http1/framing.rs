//! Where a response's body ends.

use crate::buffer::Buffer;
use httparse::Status;

/// A line with a chunk's size may be this long; hyper's way allows a little more.
const MAX_SIZE_LINE: usize = 1024;
const MAX_TRAILERS: usize = 64;
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How much of a body is still to come, and how one knows.
#[derive(Debug)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// In chunks, which are passed on unchanged.
    Chunked(Chunk),
    /// Until the connection ends; made into chunks for the client.
    UntilClose,
}

/// What comes next of a body in chunks.
#[derive(Debug)]
pub(super) enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

/// What can be passed on to the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// So many bytes from the start of the buffer.
    pub(super) length: usize,
    /// Nothing comes after it.
    pub(super) is_last: bool,
}

/// The body's framing contradicts its head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Framing {
    /// Parses the bytes received so far.
    pub(super) fn advance(&mut self, buffer: &mut Buffer) -> Result<Piece, Malformed> {
        match self {
            Self::Length(left) => {
                let length = usize::try_from(*left).map_or(buffer.len(), |l| l.min(buffer.len()));
                *left -= length as u64;
                Ok(Piece {
                    length,
                    is_last: *left == 0,
                })
            }
            Self::Chunked(chunk) => chunk.advance(buffer),
            Self::UntilClose => {
                if !buffer.is_empty() {
                    let size = format!("{:x}\r\n", buffer.len());
                    buffer.append(b"\r\n").ok_or(Malformed)?;
                    buffer.prepend(size.as_bytes());
                }
                Ok(Piece {
                    length: buffer.len(),
                    is_last: false,
                })
            }
        }
    }

    /// The application's connection has ended.
    pub(super) fn end(&mut self, buffer: &mut Buffer) -> Result<Piece, Malformed> {
        match self {
            Self::Length(_) | Self::Chunked(_) => Err(Malformed),
            Self::UntilClose => {
                buffer.append(LAST_CHUNK).ok_or(Malformed)?;
                Ok(Piece {
                    length: buffer.len(),
                    is_last: true,
                })
            }
        }
    }
}

impl Chunk {
    fn advance(&mut self, buffer: &mut Buffer) -> Result<Piece, Malformed> {
        let bytes = buffer.bytes_mut();
        let mut at = 0;
        let mut is_last = false;
        loop {
            let rest = &mut bytes[at..];
            match self {
                Self::Size => {
                    let Some((line, size)) = size(rest)? else {
                        break;
                    };
                    at += line;
                    *self = match size {
                        0 => Self::Trailers,
                        size => Self::Data(size),
                    };
                }
                Self::Data(left) => {
                    let taken = usize::try_from(*left).map_or(rest.len(), |l| l.min(rest.len()));
                    at += taken;
                    *left -= taken as u64;
                    if *left > 0 {
                        break;
                    }
                    *self = Self::DataEnd;
                }
                Self::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        *self = Self::Size;
                    }
                    [] | [b'\r'] => break,
                    _ => return Err(Malformed),
                },
                Self::Trailers => {
                    let mut trailers = [httparse::EMPTY_HEADER; MAX_TRAILERS];
                    match httparse::parse_headers(rest, &mut trailers) {
                        Ok(Status::Complete(_)) => {
                            // A client that wants trailers sends `TE`, and is not served by the
                            // fast path (RFC 9110 section 6.5.1): the end of the body takes their
                            // place. They stay behind it, so their connection is not used again.
                            let end = rest.get_mut(..2).ok_or(Malformed)?;
                            end.copy_from_slice(b"\r\n");
                            at += 2;
                            is_last = true;
                            break;
                        }
                        Ok(Status::Partial) => break,
                        Err(_) => return Err(Malformed),
                    }
                }
            }
        }
        Ok(Piece {
            length: at,
            is_last,
        })
    }
}

/// The length of the line and the size of the chunk; `None` if the line is not complete.
fn size(bytes: &[u8]) -> Result<Option<(usize, u64)>, Malformed> {
    match httparse::parse_chunk_size(bytes) {
        Ok(Status::Complete((length, size))) => {
            // The line is passed on unchanged, so it must have only one reading.
            let line = &bytes[..length - 2];
            let is_clear = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
            let is_good = line.first().is_some_and(u8::is_ascii_hexdigit)
                && line.iter().all(is_clear)
                && length <= MAX_SIZE_LINE;
            is_good.then_some(Some((length, size))).ok_or(Malformed)
        }
        Ok(Status::Partial) if bytes.len() < MAX_SIZE_LINE => Ok(None),
        Ok(Status::Partial) | Err(_) => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffers;
    use std::rc::Rc;

    #[test]
    fn a_body_ends_where_it_ends_however_it_is_cut() {
        let chunks = "3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n000\r\n\r\n";
        for (framing, body) in [
            (
                (|| Framing::Chunked(Chunk::Size)) as fn() -> Framing,
                chunks,
            ),
            (|| Framing::Length(7), "1234567"),
        ] {
            for cut in 0..=body.len() {
                let mut framing = framing();
                let (first, second) = body.split_at(cut);
                let (passed, is_last) = pass(&mut framing, &[first, second, "surplus"]);
                assert_eq!(passed, body, "{cut}");
                assert!(is_last, "{cut}");
            }
        }
    }

    #[test]
    fn trailers_are_left_out_and_the_end_of_the_body_is_not() {
        let body = "2\r\nok\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\n";
        for cut in 0..=body.len() {
            let (first, second) = body.split_at(cut);
            let (passed, is_last) = pass(&mut Framing::Chunked(Chunk::Size), &[first, second]);
            assert_eq!(passed, "2\r\nok\r\n0\r\n\r\n", "{cut}");
            assert!(is_last, "{cut}");
        }
    }

    /// What is passed on of consecutive pieces, until the last.
    fn pass(framing: &mut Framing, pieces: &[&str]) -> (String, bool) {
        let mut buffer = Buffer::new(&Rc::new(Buffers::new(256, 16, 8, 1)));
        let mut passed = Vec::new();
        for piece in pieces {
            buffer.append(piece.as_bytes()).expect("it is short");
            let Piece { length, is_last } = framing.advance(&mut buffer).expect("it is good");
            passed.extend_from_slice(&buffer.bytes()[..length]);
            buffer.consume(length);
            if is_last {
                return (String::from_utf8(passed).expect("text"), true);
            }
        }
        (String::from_utf8(passed).expect("text"), false)
    }
}
