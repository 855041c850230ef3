//! Published ports: which one is for the web, on both sides.

use super::variable::known_now;
use crate::import::section::text_of;
use serde_json::Value;

/// A published port: inside the container, and outside if that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) inside: u16,
    pub(super) outside: Option<u16>,
}

/// Whether a port is one that the web is usually served on.
pub(super) fn is_usual(port: u16) -> bool {
    matches!(port, 80 | 3000 | 8000 | 8080)
}

/// One entry of `ports`, or nothing if it is no single TCP port.
pub(super) fn published(entry: &Value) -> Option<Published> {
    if let Value::Object(map) = entry {
        let number = |key: &str| {
            let text = map.get(key).and_then(text_of)?;
            known_now(&text)?.parse().ok()
        };
        let tcp = map.get("protocol").is_none_or(|protocol| protocol == "tcp");
        return tcp.then_some(Published {
            inside: number("target")?,
            outside: number("published"),
        });
    }
    let text = text_of(entry)?;
    let (text, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let Some((outside, inside)) = text.rsplit_once(':') else {
        let inside = known_now(text)?.parse().ok()?;
        return Some(Published {
            inside,
            outside: None,
        });
    };
    // The inner port may have a default of its own: `${OUT:-80}:${IN:-3000}`.
    let number = |text: &str| known_now(text)?.parse::<u16>().ok();
    let (outside, inside) = if let Some(port) = number(inside) {
        (outside, port)
    } else {
        let (outside, inside) = text.split_once("}:")?;
        (outside, number(inside)?)
    };
    let outside = known_now(outside).or_else(|| known_now(&format!("{outside}}}")));
    let outside = outside.and_then(|text| text.rsplit(':').next()?.parse().ok());
    (protocol == "tcp").then_some(Published { inside, outside })
}

#[cfg(test)]
mod tests {
    use super::{Published, published};
    use serde_json::json;

    #[test]
    fn every_way_to_publish_a_port_is_read() {
        let port = |inside, outside| Some(Published { inside, outside });
        for (entry, expected) in [
            (json!("80:3000"), port(3000, Some(80))),
            (json!("127.0.0.1:8080:3000"), port(3000, Some(8080))),
            (json!("3000"), port(3000, None)),
            (json!(3000), port(3000, None)),
            (json!("${OUT:-80}:3000"), port(3000, Some(80))),
            (json!("${OUT}:3000"), port(3000, None)),
            (json!("${OUT:-80}:${IN:-3000}"), port(3000, Some(80))),
            (json!("[::1]:80:3000/tcp"), port(3000, Some(80))),
            (
                json!({ "target": 3000, "published": "80" }),
                port(3000, Some(80)),
            ),
            (json!("53:53/udp"), None),
            (json!("8000-8010:8000-8010"), None),
        ] {
            assert_eq!(published(&entry), expected, "{entry}");
        }
    }
}
