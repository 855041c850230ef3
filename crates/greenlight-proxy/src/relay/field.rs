//! The fields of a head that mean something to a proxy.

/// What a field is to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Host,
    Connection,
    ContentLength,
    ContentType,
    TransferEncoding,
    /// The client waits for something, or wants another protocol.
    Negotiation,
    /// Belongs to one hop (RFC 9110 section 7.6.1).
    OneHop,
    Date,
    /// Says for whom a request is sent.
    ForwardedHost,
    ForwardedProto,
    Forwarded,
    Other,
}

const KNOWN: [(&str, Field); 16] = [
    ("host", Field::Host),
    ("connection", Field::Connection),
    ("content-length", Field::ContentLength),
    ("content-type", Field::ContentType),
    ("transfer-encoding", Field::TransferEncoding),
    ("expect", Field::Negotiation),
    ("te", Field::Negotiation),
    ("upgrade", Field::Negotiation),
    ("keep-alive", Field::OneHop),
    ("proxy-connection", Field::OneHop),
    ("proxy-authenticate", Field::OneHop),
    ("proxy-authorization", Field::OneHop),
    ("date", Field::Date),
    ("x-forwarded-host", Field::ForwardedHost),
    ("x-forwarded-proto", Field::ForwardedProto),
    ("x-real-ip", Field::Forwarded),
];

impl Field {
    pub(super) fn of(name: &str) -> Self {
        let known = KNOWN.iter().find(|(known, _)| {
            // Most names differ in their length already.
            known.len() == name.len() && known.eq_ignore_ascii_case(name)
        });
        match known {
            Some((_, field)) => *field,
            None if is_forwarded(name) => Self::Forwarded,
            None => Self::Other,
        }
    }
}

fn is_forwarded(name: &str) -> bool {
    const PREFIX: &str = "x-forwarded-";
    let start = name.get(..PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        || name.eq_ignore_ascii_case("forwarded")
}

/// The members of a list, without empty ones.
pub(super) fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::HOP_BY_HOP;

    #[test]
    fn everything_that_hyper_s_way_takes_off_is_known_here() {
        for name in HOP_BY_HOP {
            let field = Field::of(&name.as_str().to_ascii_uppercase());
            assert!(!matches!(field, Field::Other), "{name}");
        }
        for name in ["x-forwarded-for", "X-Forwarded-Prefix", "Forwarded"] {
            assert_eq!(Field::of(name), Field::Forwarded, "{name}");
        }
        assert_eq!(Field::of("x-forwarded"), Field::Other);
    }
}
