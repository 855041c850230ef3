//! The fields of a head that mean something to a proxy.

use crate::downstream::client_info::is_claim;

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
    /// Names the client of a request.
    ForwardedHost,
    ForwardedProto,
    Forwarded,
    Other,
}

impl Field {
    pub(super) fn of(name: &str) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // The length is compared first, because most names are none of these.
        match name.len() {
            2 if is("te") => Self::Negotiation,
            4 if is("host") => Self::Host,
            4 if is("date") => Self::Date,
            6 if is("expect") => Self::Negotiation,
            7 if is("upgrade") => Self::Negotiation,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::OneHop,
            12 if is("content-type") => Self::ContentType,
            14 if is("content-length") => Self::ContentLength,
            16 if is("proxy-connection") => Self::OneHop,
            16 if is("x-forwarded-host") => Self::ForwardedHost,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("x-forwarded-proto") => Self::ForwardedProto,
            18 if is("proxy-authenticate") => Self::OneHop,
            19 if is("proxy-authorization") => Self::OneHop,
            9.. if is_claim(name) => Self::Forwarded,
            _ => Self::Other,
        }
    }
}

/// The members of a list, without empty ones.
pub(super) fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// A number of digits alone.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::hop_by_hop::HOP_BY_HOP;

    #[test]
    fn everything_that_hyper_s_way_takes_off_is_known_here() {
        for name in HOP_BY_HOP {
            let field = Field::of(&name.as_str().to_ascii_uppercase());
            assert!(!matches!(field, Field::Other), "{name}");
        }
        for name in [
            "x-forwarded-for",
            "X-Forwarded-Prefix",
            "Forwarded",
            "X_Forwarded_For",
            "x-real_ip",
        ] {
            assert_eq!(Field::of(name), Field::Forwarded, "{name}");
        }
        assert_eq!(Field::of("x-forwarded"), Field::Other);
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        for (digits, is) in [("0", 0), ("007", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(number(digits.as_bytes()), Some(is));
        }
        for other in ["", "+1", "-1", "0x1", "1 ", "1,1", "18446744073709551616"] {
            assert_eq!(number(other.as_bytes()), None, "{other:?}");
        }
    }
}
