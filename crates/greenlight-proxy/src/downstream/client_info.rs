//! Who the client is, and how the application is told: `X-Forwarded-*` and `Forwarded`.

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName, HeaderValue};
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whether the other side of a listener may speak for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Clients connect directly: what they say of themselves is replaced.
    Nobody,
    /// Another proxy of this machine connects, so its forwarding headers are kept.
    Peer,
}

/// The client's address as the application gets it. Made once for each connection.
#[derive(Clone, Debug)]
pub(crate) struct ClientInfo {
    trust: Trust,
    address: Option<HeaderValue>,
    /// The address as `Forwarded` wants it.
    node: String,
}

impl ClientInfo {
    /// Whether the client is another proxy, which speaks for its clients.
    pub(crate) fn is_proxy(&self) -> bool {
        self.trust == Trust::Peer
    }

    /// Writes the fields that tell the application who the client is, for what host and how, as
    /// [`set_forwarded_headers`] sets them. The client's own are already removed; of those of
    /// another proxy, these two may be missing.
    pub(crate) fn write_forwarded_headers(
        &self,
        host: &str,
        has_host: bool,
        has_proto: bool,
        mut write: impl FnMut(&str) -> Option<()>,
    ) -> Option<()> {
        let mut field = |parts: &[&str]| parts.iter().try_for_each(|part| write(part));
        if !has_host {
            field(&["x-forwarded-host: ", host, "\r\n"])?;
        }
        if !has_proto {
            field(&["x-forwarded-proto: http\r\n"])?;
        }
        if self.is_proxy() {
            return Some(());
        }
        if let Some(address) = self.address.as_ref().and_then(|a| a.to_str().ok()) {
            field(&[
                "x-forwarded-for: ",
                address,
                "\r\nx-real-ip: ",
                address,
                "\r\n",
            ])?;
        }
        let (node, end) = (&self.node, "\";proto=http\r\n");
        field(&["forwarded: for=", node, ";host=\"", host, end])
    }

    pub(crate) fn new(address: Option<IpAddr>, trust: Trust) -> Self {
        let address = address.map(|ip| ip.to_canonical());
        Self {
            trust,
            node: match address {
                Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
                Some(IpAddr::V4(ip)) => ip.to_string(),
                None => "unknown".to_owned(),
            },
            address: address.map(|ip| {
                HeaderValue::from_str(&ip.to_string()).expect("an address is plain text")
            }),
        }
    }
}

/// Sets the headers that tell the application who the client is, for what host and how.
pub(crate) fn set_forwarded_headers(headers: &mut HeaderMap, host: &str, client_info: &ClientInfo) {
    if client_info.trust == Trust::Peer {
        // The other proxy's headers are kept; missing ones are added from what this one knows.
        if !headers.contains_key(X_FORWARDED_HOST) {
            set(headers, X_FORWARDED_HOST, host);
        }
        if !headers.contains_key(X_FORWARDED_PROTO) {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        }
        return;
    }
    remove_claims(headers);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    set(headers, X_FORWARDED_HOST, host);
    if let Some(address) = &client_info.address {
        headers.insert(X_FORWARDED_FOR, address.clone());
        headers.insert(X_REAL_IP, address.clone());
    }
    let node = &client_info.node;
    if host.is_empty() {
        set(headers, FORWARDED, &format!("for={node};proto=http"));
    } else {
        let forwarded = format!("for={node};host=\"{host}\";proto=http");
        set(headers, FORWARDED, &forwarded);
    }
}

/// Removes what a client may say of itself, in all the ways that applications believe.
fn remove_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_claim(name.as_str()))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Whether a field names the client of a request. Many applications see `_` and `-` as the
/// same.
pub(crate) fn is_claim(name: &str) -> bool {
    let same = |byte: u8| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    let begins = |with: &str| {
        name.len() >= with.len() && name.bytes().zip(with.bytes()).all(|(a, b)| same(a) == b)
    };
    begins("x-forwarded-")
        || [FORWARDED, X_REAL_IP].iter().any(|claim| {
            let claim = claim.as_str();
            name.len() == claim.len() && begins(claim)
        })
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if !value.is_empty() {
        let value = HeaderValue::from_str(value).expect("hosts were looked at");
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_speak_for_another_but_a_trusted_proxy_can() {
        let lie = [
            ("x-forwarded-for", "10.9.9.9"),
            ("forwarded", "for=10.9.9.9"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "10.9.9.9"),
        ];
        let client = Some("192.0.2.1".parse().expect("an address"));
        let mut direct = map(&lie);
        set_forwarded_headers(
            &mut direct,
            "a.example",
            &ClientInfo::new(client, Trust::Nobody),
        );
        assert_eq!(direct[X_FORWARDED_FOR], "192.0.2.1");
        assert_eq!(
            direct[FORWARDED],
            "for=192.0.2.1;host=\"a.example\";proto=http"
        );
        assert_eq!(direct[X_FORWARDED_HOST], "a.example");
        assert_eq!(direct[X_FORWARDED_PROTO], "http");
        assert_eq!(direct[X_REAL_IP], "192.0.2.1");
        assert!(!direct.contains_key("x-forwarded-prefix"));
        let mut trusted = map(&lie);
        set_forwarded_headers(
            &mut trusted,
            "a.example",
            &ClientInfo::new(None, Trust::Peer),
        );
        assert_eq!(trusted[X_FORWARDED_FOR], "10.9.9.9");
        assert_eq!(trusted[X_FORWARDED_HOST], "a.example");
    }

    #[test]
    fn an_address_of_version_6_is_written_as_each_header_wants_it() {
        let mut headers = HeaderMap::new();
        let client = Some("2001:db8::1".parse().expect("an address"));
        set_forwarded_headers(&mut headers, "", &ClientInfo::new(client, Trust::Nobody));
        assert_eq!(headers[X_FORWARDED_FOR], "2001:db8::1");
        assert_eq!(headers[FORWARDED], "for=\"[2001:db8::1]\";proto=http");
        assert!(!headers.contains_key(X_FORWARDED_HOST));
        let mapped = Some("::ffff:192.0.2.1".parse().expect("an address"));
        set_forwarded_headers(&mut headers, "", &ClientInfo::new(mapped, Trust::Nobody));
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.1");
    }

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }
}
