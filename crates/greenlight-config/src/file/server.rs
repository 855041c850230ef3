//! An entry of `servers`: an address as text, or a map with more settings.

use super::proxy::PortsSection;
use crate::located::Located;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// One instance of the fleet, in either of the two ways to write it.
#[derive(Clone, Debug)]
pub enum ServerEntry {
    /// `host` or `host:port`.
    Address(String),
    /// A map.
    Map(Box<ServerSection>),
}

/// One instance of the fleet, as a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Server")]
pub struct ServerSection {
    /// The instance's name; its host if none.
    #[schemars(extend("pattern" = "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"))]
    pub name: Option<Located<String>>,
    /// Its address: a name or an IP address.
    pub host: Located<String>,
    /// The public port of its proxy, if it differs from `proxy.port`.
    #[schemars(range(min = 1))]
    pub port: Option<Located<u16>>,
    /// Its local ports, if they differ from the service's: `{ blue: 8080, green: 8081 }`, or the
    /// same for each of several services by name.
    pub ports: Option<Located<ServerPorts>>,
}

/// The local ports of one instance: of the only service, or by service.
#[derive(Clone, Debug)]
pub enum ServerPorts {
    /// `{ blue: …, green: … }`.
    Pair {
        /// The ports.
        ports: PortsSection,
        /// A key beside them, which is an error.
        stray: Option<Located<String>>,
    },
    /// `{ shop: { blue: …, green: … }, … }`.
    ByService(BTreeMap<Located<String>, Located<PortsSection>>),
}

impl<'de> Deserialize<'de> for ServerEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ServerEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as `10.0.0.11`, or a map with `host`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ServerEntry, E> {
                Ok(ServerEntry::Address(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ServerEntry, A::Error> {
                let section = ServerSection::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ServerEntry::Map(Box::new(section)))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for ServerEntry {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("ServerEntry")
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<ServerSection>();
        json_schema!({
            "description": "One instance: an address, `host` or `host:port`, or a map.",
            "anyOf": [{ "type": "string", "minLength": 1 }, map],
        })
    }
}

impl<'de> Deserialize<'de> for ServerPorts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ServerPorts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ports such as `{ blue: 8080, green: 8081 }`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ServerPorts, A::Error> {
                let (mut blue, mut green) = (None, None);
                let mut services = BTreeMap::new();
                while let Some(key) = map.next_key::<Located<String>>()? {
                    match key.value.as_str() {
                        "blue" => blue = Some(map.next_value()?),
                        "green" => green = Some(map.next_value()?),
                        _ => {
                            services.insert(key, map.next_value()?);
                        }
                    }
                }
                match (blue, green) {
                    (None, None) => Ok(ServerPorts::ByService(services)),
                    (None, Some(_)) => Err(A::Error::missing_field("blue")),
                    (Some(_), None) => Err(A::Error::missing_field("green")),
                    (Some(blue), Some(green)) => Ok(ServerPorts::Pair {
                        ports: PortsSection { blue, green },
                        stray: services.into_keys().next(),
                    }),
                }
            }
        }

        deserializer.deserialize_map(Either)
    }
}

impl JsonSchema for ServerPorts {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("ServerPorts")
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let pair = generator.subschema_for::<PortsSection>();
        json_schema!({
            "anyOf": [pair, { "type": "object", "additionalProperties": pair }],
        })
    }
}
