//! The `env` section: a plain map as in Compose, or `clear` and `secret` as in Kamal.

use super::secret::SecretFrom;
use crate::located::Located;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The environment of the application.
#[derive(Clone, Debug, Default)]
pub struct EnvSection {
    /// Variables and their values.
    pub clear: BTreeMap<Located<String>, Located<String>>,
    /// Variables whose values are secret, and where the deploy command reads them.
    pub secret: BTreeMap<Located<String>, Located<SecretFrom>>,
    /// A variable beside `clear` or `secret`, which is an error.
    pub stray: Option<Located<String>>,
}

impl<'de> Deserialize<'de> for EnvSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = EnvSection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("variables, or a map with `clear` and `secret`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EnvSection, A::Error> {
                let (mut clear, mut secret) = (None, None);
                let mut plain = BTreeMap::new();
                while let Some(key) = map.next_key::<Located<String>>()? {
                    match key.value.as_str() {
                        "clear" => clear = map.next_value()?,
                        "secret" => {
                            secret = map
                                .next_value::<Option<SecretNames>>()?
                                .map(|names| names.0);
                        }
                        _ => {
                            plain.insert(key, map.next_value()?);
                        }
                    }
                }
                let mut stray = None;
                if clear.is_none() && secret.is_none() {
                    clear = Some(plain);
                } else {
                    stray = plain.into_keys().next();
                }
                Ok(EnvSection {
                    clear: clear.unwrap_or_default(),
                    secret: secret.unwrap_or_default(),
                    stray,
                })
            }
        }

        deserializer.deserialize_map(Either)
    }
}

/// `[NAME, …]`, or `{ NAME: where it comes from, … }`.
struct SecretNames(BTreeMap<Located<String>, Located<SecretFrom>>);

impl<'de> Deserialize<'de> for SecretNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = SecretNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names of variables, or a map from names to where each comes from,")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SecretNames, A::Error> {
                let mut names = BTreeMap::new();
                while let Some(name) = list.next_element::<Located<String>>()? {
                    let from = name.with(SecretFrom::Name);
                    names.insert(name, from);
                }
                Ok(SecretNames(names))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretNames, A::Error> {
                let mut names = BTreeMap::new();
                while let Some((name, from)) = map.next_entry()? {
                    names.insert(name, from);
                }
                Ok(SecretNames(names))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for EnvSection {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Env")
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let from = generator.subschema_for::<SecretFrom>();
        let variables = json_schema!({
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        });
        json_schema!({
            "description": "Variables and their values, or `clear` and `secret`.",
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "clear": variables,
                        "secret": {
                            "description": "Names of variables whose values are taken from the \
                                            environment of whoever deploys, or by name where \
                                            each comes from.",
                            "anyOf": [
                                { "type": "array", "items": { "type": "string" } },
                                { "type": "object", "additionalProperties": from },
                            ],
                        },
                    },
                    "additionalProperties": false,
                },
                variables,
            ],
        })
    }
}
