//! `docs/reference/configuration.md` against the schema: the same keys, the same defaults, good
//! examples.

use super::{parse, report};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn the_page_has_every_key_of_the_schema_with_its_default_and_no_other() {
    let schema = serde_json::to_value(crate::schema()).expect("a schema is plain data");
    let mut known = BTreeMap::new();
    keys_of(&schema, &schema, "", &mut known);
    let told = keys_of_the_page();

    let untold: Vec<_> = known
        .keys()
        .filter(|key| !told.contains_key(*key))
        .collect();
    let unknown: Vec<_> = told
        .keys()
        .filter(|key| !known.contains_key(*key))
        .collect();
    assert_eq!(
        (untold.len(), unknown.len()),
        (0, 0),
        "{untold:?}, {unknown:?}"
    );
    for (key, default) in known {
        // A server's ports are the service's unless it has its own.
        if !default.is_empty() && !key.contains("[]") {
            assert_eq!(told[&key], format!("`{default}`"), "the default of `{key}`");
        }
    }
}

#[test]
fn the_examples_of_the_page_are_good() {
    let page = page();
    let mut examples = 0;
    for example in page.split("```yaml\n").skip(1) {
        let example = example.split("```").next().unwrap_or_default();
        let has = |key: &str| example.lines().any(|line| line.starts_with(key));
        let mut text = String::new();
        for (keys, line) in [
            (["service:", "services:"], "service: shop\n"),
            (["image:", "services:"], "image: shop\n"),
            (["servers:", "servers:"], "servers: [10.0.0.11]\n"),
        ] {
            if !keys.into_iter().any(has) {
                text += line;
            }
        }
        text += example;
        if let Err(error) = parse(&text) {
            panic!("{text}\n{}", report(&error));
        }
        examples += 1;
    }
    assert!(examples >= 8, "only {examples} examples");
}

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join("docs/reference/configuration.md"))
        .expect("it is part of the repository")
}

/// By path, the keys that a part of the schema has, each with its default: `[]` stands for an
/// entry of a list, `*` for a name of the user's.
fn keys_of(whole: &Value, part: &Value, path: &str, keys: &mut BTreeMap<String, String>) {
    if let Some(reference) = part["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        let definition = whole.pointer(pointer).expect("it is defined");
        keys_of(whole, definition, path, keys);
    }
    for of in ["anyOf", "allOf", "oneOf"] {
        for either in part[of].as_array().into_iter().flatten() {
            keys_of(whole, either, path, keys);
        }
    }
    let joint = if path.is_empty() { "" } else { "." };
    for (name, value) in part["properties"].as_object().into_iter().flatten() {
        let key = format!("{path}{joint}{name}");
        let default = value.get("default").map(|default| match default.as_str() {
            Some(text) => text.to_owned(),
            None => default.to_string(),
        });
        keys.insert(key.clone(), default.unwrap_or_default());
        keys_of(whole, value, &key, keys);
    }
    for pattern in part["patternProperties"].as_object().into_iter().flatten() {
        let begins = pattern.0.trim_start_matches('^');
        keys.insert(format!("{path}{joint}{begins}*"), String::new());
    }
    keys_of_entries(whole, &part["items"], &format!("{path}[]"), keys);
    // The keys of one of several services are documented where the only service has them.
    let named = match path {
        "services" => String::new(),
        _ => format!("{path}.*"),
    };
    keys_of_entries(whole, &part["additionalProperties"], &named, keys);
}

fn keys_of_entries(whole: &Value, part: &Value, path: &str, keys: &mut BTreeMap<String, String>) {
    if part.is_object() {
        keys_of(whole, part, path, keys);
    }
}

/// The keys in the tables of the page, each with its documented default.
fn keys_of_the_page() -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let mut is_of_keys = false;
    for line in page().lines() {
        is_of_keys = line.starts_with("| Key |") || is_of_keys && line.starts_with('|');
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ([_, key, _, default, ..], true) = (&cells[..], is_of_keys)
            && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
        {
            let twice = keys.insert(key.to_owned(), (*default).to_owned());
            assert_eq!(twice, None, "`{key}` is there twice");
        }
    }
    keys
}
