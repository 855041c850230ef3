//! A map of the file. Converters take its keys; the keys left at the end are listed as unsupported.

use super::unsupported::UnsupportedKeys;
use serde_json::{Map, Value};

/// Why a value of an odd shape is left out.
const ODD: &str = "its shape is not supported; write it by hand";
/// The reason for an unknown key.
const UNKNOWN: &str = "greenlight has no counterpart";

/// A map of the file and its position.
#[derive(Clone, Debug)]
pub(super) struct Section {
    path: String,
    map: Map<String, Value>,
}

impl Section {
    /// The map that is the whole file; an empty one if it is no map.
    pub(super) fn whole(value: &Value) -> Self {
        Self::at("", value.clone()).unwrap_or(Self {
            path: String::new(),
            map: Map::new(),
        })
    }

    /// A map at this place; nothing if it is no map.
    pub(super) fn at(path: &str, value: Value) -> Option<Self> {
        let path = path.to_owned();
        match value {
            Value::Object(map) => Some(Self { path, map }),
            Value::Null => Some(Self {
                path,
                map: Map::new(),
            }),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
        }
    }

    /// A role of Kamal that is nothing but its machines.
    pub(super) fn of_role(path: &str, hosts: Value) -> Option<Self> {
        let map = std::iter::once(("hosts".to_owned(), hosts)).collect();
        Self::at(path, Value::Object(map))
    }

    /// The position of a key of this map.
    pub(super) fn path(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// The position of this map.
    pub(super) fn own_path(&self) -> &str {
        &self.path
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// Takes a key; nothing if it is not there or empty.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// Takes a text, a number or a word.
    pub(super) fn text(&mut self, key: &str, unsupported: &mut UnsupportedKeys) -> Option<String> {
        let value = self.take(key)?;
        let text = text_of(&value);
        if text.is_none() {
            unsupported.add(self.path(key), ODD);
        }
        text
    }

    /// Takes a count.
    pub(super) fn count(&mut self, key: &str, unsupported: &mut UnsupportedKeys) -> Option<u32> {
        let count = self.text(key, unsupported)?.parse();
        if count.is_err() {
            unsupported.add(self.path(key), ODD);
        }
        count.ok()
    }

    /// Takes `true` or `false`; any other value stays.
    pub(super) fn word(&mut self, key: &str) -> Option<bool> {
        let word = self.map.get(key)?.as_bool()?;
        self.map.remove(key);
        Some(word)
    }

    /// Takes a map.
    pub(super) fn section(&mut self, key: &str, unsupported: &mut UnsupportedKeys) -> Option<Self> {
        let path = self.path(key);
        let section = Self::at(&path, self.take(key)?);
        if section.is_none() {
            unsupported.add(path, ODD);
        }
        section
    }

    /// Takes every map in this one, by key; any other value stays.
    pub(super) fn sections(&mut self) -> Vec<(String, Self)> {
        let keys: Vec<_> = self.map.keys().cloned().collect();
        let section = |key: String| {
            let section = Self::at(&self.path(&key), self.map[&key].clone())?;
            Some((key, section))
        };
        let found: Vec<_> = keys.into_iter().filter_map(section).collect();
        for (key, _) in &found {
            self.map.remove(key);
        }
        found
    }

    /// Takes a list of texts; one text alone is a list of one.
    pub(super) fn texts(&mut self, key: &str, unsupported: &mut UnsupportedKeys) -> Vec<String> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let mut texts = Vec::new();
        for value in listed(value) {
            match text_of(&value) {
                Some(text) => texts.push(text),
                None => unsupported.add(self.path(key), ODD),
            }
        }
        texts
    }

    /// Takes names with values: a map, or a list of `name=value`. A name alone has no value.
    pub(super) fn pairs(
        &mut self,
        key: &str,
        unsupported: &mut UnsupportedKeys,
    ) -> Vec<(String, Option<String>)> {
        let mut pairs = Vec::new();
        let value = self.take(key);
        let Some(Value::Object(map)) = value else {
            if let Some(value) = value {
                self.map.insert(key.to_owned(), value);
            }
            for text in self.texts(key, unsupported) {
                pairs.push(match text.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (text, None),
                });
            }
            return pairs;
        };
        for (name, value) in map {
            match (text_of(&value), value.is_null()) {
                (Some(text), _) => pairs.push((name, Some(text))),
                (None, true) => pairs.push((name, None)),
                (None, false) => unsupported.add(format!("{}.{name}", self.path(key)), ODD),
            }
        }
        pairs
    }

    /// Lists the keys that were not taken, with the reason from a table. An empty reason passes a
    /// key over, as `x-` does: there is nothing to lose.
    pub(super) fn leave(self, reasons: &[(&str, &str)], unsupported: &mut UnsupportedKeys) {
        for key in self.map.keys().filter(|key| !key.starts_with("x-")) {
            let reason = reasons.iter().find(|(known, _)| known == key);
            match reason {
                Some((_, "")) => {}
                Some((_, why)) => unsupported.add(self.path(key), *why),
                None => unsupported.add(self.path(key), UNKNOWN),
            }
        }
    }
}

/// A list as it is; anything else is a list of one.
pub(super) fn listed(value: Value) -> Vec<Value> {
    if let Value::Array(values) = value {
        return values;
    }
    vec![value]
}

/// A text, a number or a word as the text that it stands for.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(word) => Some(word.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
