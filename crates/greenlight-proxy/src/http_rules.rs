//! Facts of HTTP that both ways of serving a request rest on.

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// RFC 9110 section 9.2.2.
pub(crate) fn is_idempotent(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE"
    )
}

/// Whether this can be a host, with or without a port.
pub(crate) fn is_host(bytes: &[u8]) -> bool {
    let is_in_hosts = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
    };
    bytes.iter().all(is_in_hosts)
}

/// Whether this type of content has no foreseeable end.
pub(crate) fn is_event_stream(kind: &[u8]) -> bool {
    let start = kind.get(..EVENT_STREAM.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
}
