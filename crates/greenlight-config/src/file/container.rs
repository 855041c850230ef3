//! The settings of containers. The keys have the names that Kamal and Compose use.

use super::secret::SecretFrom;
use crate::located::Located;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Where a container's output goes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Logging")]
pub struct LoggingSection {
    /// Docker's log driver, such as `json-file` or `journald`; the daemon's if none.
    pub driver: Option<Located<String>>,
    /// The driver's options, such as `max-size: 10m`.
    pub options: Option<Located<BTreeMap<Located<String>, Located<String>>>>,
}

/// The registry that images are pulled from, and its credentials. Without it, each instance uses
/// the credentials of its own `docker login`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Registry")]
pub struct RegistrySection {
    /// The registry's host, such as `ghcr.io`; Docker Hub if none.
    pub server: Option<Located<String>>,
    /// The user name.
    pub username: Located<String>,
    /// Where the password comes from: `[NAME]` for an environment variable, `{ file: ... }` or
    /// `{ command: [...] }`.
    pub password: Located<SecretFrom>,
}

/// An amount of memory as the file has it, not yet parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryText(pub String);

/// A number of processors as the file has it, not yet parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpusText(pub String);

impl<'de> Deserialize<'de> for MemoryText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // If the type is text, the parser passes a number on as it is written.
        String::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for CpusText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for MemoryText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Memory")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": r"^[0-9]+(\.[0-9]+)?\s*([kmgKMG]?[bB]?|[kmgKMG]i?[bB])$|\$\{",
            "minimum": 1,
        })
    }
}

impl JsonSchema for CpusText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Cpus")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "pattern": r"^[0-9]+(\.[0-9]+)?$|\$\{",
            "exclusiveMinimum": 0,
        })
    }
}
