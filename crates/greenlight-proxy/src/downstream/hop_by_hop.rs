//! Headers that are meant for one hop, which a proxy takes off (RFC 9110 section 7.6.1).

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers that belong to one hop, whether or not `Connection` names them.
pub(crate) const HOP_BY_HOP: [HeaderName; 7] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes the headers of one hop (RFC 9110 section 7.6.1), and those that `Connection` nominates.
/// Returns the protocol of an upgrade, if the message asks for one.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut upgrade = None;
    // `TE` is nominated by `Connection` itself, so this comes first.
    let wants_trailers = headers.contains_key(TE)
        && headers
            .get_all(TE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| {
                value
                    .split(',')
                    .any(|t| t.trim().eq_ignore_ascii_case("trailers"))
            });
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .collect();
        for name in nominated {
            if name == UPGRADE {
                upgrade = headers.get(UPGRADE).cloned();
            }
            // A client must not be able to take off what routing and framing rest on.
            if name != HOST && name != hyper::header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_hop_and_what_connection_nominates_is_taken_off() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Internal , content-length, te"),
            ("keep-alive", "timeout=5"),
            ("x-internal", "1"),
            ("content-length", "3"),
            ("te", "gzip, trailers"),
            ("proxy-authorization", "secret"),
            ("accept", "*/*"),
        ]);
        assert_eq!(strip_hop_by_hop(&mut headers), None);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "te"]);
        assert_eq!(headers[TE], "trailers");
    }

    #[test]
    fn an_upgrade_is_one_only_if_connection_says_so() {
        let mut asks = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(
            strip_hop_by_hop(&mut asks),
            Some(HeaderValue::from_static("websocket"))
        );
        let mut does_not = map(&[("upgrade", "websocket")]);
        assert_eq!(strip_hop_by_hop(&mut does_not), None);
        assert!(!does_not.contains_key(UPGRADE));
    }

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }
}
