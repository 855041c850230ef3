//! The source of a secret, as written in the file. The value itself is never in the file.

use crate::located::Located;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// Where a secret comes from.
#[derive(Clone, Debug)]
pub enum SecretFrom {
    /// No source is given: the environment variable of the secret's own name.
    Name,
    /// `[NAME]` or `{ env: NAME }`.
    Environment(Located<String>),
    /// `{ file: path }`.
    File(Located<String>),
    /// `{ command: [program, argument] }`.
    Command(Located<Vec<Located<String>>>),
}

impl<'de> Deserialize<'de> for SecretFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        const KEYS: &[&str] = &["env", "file", "command"];

        impl<'de> Visitor<'de> for Any {
            type Value = SecretFrom;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "where the secret comes from, `[NAME]`, `{ file: ... }` or `{ command: [...] }`,",
                )
            }

            fn visit_unit<E: Error>(self) -> Result<SecretFrom, E> {
                Ok(SecretFrom::Name)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SecretFrom, A::Error> {
                let Some(name) = list.next_element()? else {
                    return Err(A::Error::invalid_length(0, &self));
                };
                match list.next_element::<Located<String>>()? {
                    None => Ok(SecretFrom::Environment(name)),
                    Some(_) => Err(A::Error::invalid_length(2, &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretFrom, A::Error> {
                let Some(key) = map.next_key::<String>()? else {
                    return Err(A::Error::invalid_length(0, &self));
                };
                let from = match key.as_str() {
                    "env" => SecretFrom::Environment(map.next_value()?),
                    "file" => SecretFrom::File(map.next_value()?),
                    "command" => SecretFrom::Command(map.next_value()?),
                    other => return Err(A::Error::unknown_field(other, KEYS)),
                };
                match map.next_key::<String>()? {
                    None => Ok(from),
                    Some(_) => Err(A::Error::invalid_length(2, &self)),
                }
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl JsonSchema for SecretFrom {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("SecretFrom")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let only = |key: &str, value: Schema| {
            json_schema!({
                "type": "object",
                "properties": { key: value },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "description": "Where a secret comes from when a release is deployed.",
            "anyOf": [
                { "type": "null" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": 1 },
                only("env", json_schema!({ "type": "string" })),
                only("file", json_schema!({ "type": "string" })),
                only("command", json_schema!({
                    "type": "array", "items": { "type": "string" }, "minItems": 1,
                })),
            ],
        })
    }
}
