//! The rules of the house that a compiler does not know: which rooms may know each other,
//! how a file looks, and that the map of them is true.

#[path = "house/circles.rs"]
mod circles;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_rooms_know_only_what_the_architecture_lets_them_know() {
    let rooms = dependencies();
    let of = |room: &str| rooms[room].iter().map(String::as_str).collect::<Vec<_>>();

    // Gate and protocol decide and do nothing else: nothing of them can do I/O.
    assert_eq!(of("greenlight-gate"), ["serde"]);
    let of_protocol = ["greenlight-gate", "serde", "thiserror"];
    assert_eq!(of("greenlight-protocol"), of_protocol);
    // The proxy knows no fleet.
    assert!(!of("greenlight-proxy").contains(&"greenlight-protocol"));
    assert!(!of("greenlight-proxy").contains(&"greenlight"));
    // A change of the agent compiles neither the proxy nor the file format.
    for other in ["greenlight-proxy", "greenlight-config"] {
        assert!(!of("greenlight-agent").contains(&other), "{other}");
    }
    // What measures is not part of what is shipped.
    assert!(!of("greenlight").contains(&"greenlight-bench"));
}

#[test]
fn every_dependency_is_in_the_architecture_and_goes_to_a_lower_floor() {
    let map = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("it is text");
    let (mut drawn, mut floors, mut floor_of) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for line in map.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, floor, name, _, needed, _] = cells[..] else {
            continue;
        };
        let Some(name) = name.strip_prefix("`greenlight").and(name.strip_suffix('`')) else {
            continue;
        };
        let needed = needed.split('`').skip(1).step_by(2).map(str::to_owned);
        drawn.insert(name[1..].to_owned(), needed.collect::<BTreeSet<_>>());
        if floors.last() != Some(&floor) {
            floors.push(floor);
        }
        floor_of.insert(name[1..].to_owned(), floors.len());
    }

    let mut found = dependencies();
    for needed in found.values_mut() {
        needed.retain(|name| name.starts_with("greenlight"));
    }
    assert_eq!(found, drawn);
    for (name, needed) in &drawn {
        for below in needed {
            assert!(
                floor_of[name] < floor_of[below],
                "`{name}` depends on `{below}`, which is not on a lower floor"
            );
        }
    }
}

#[test]
fn only_the_roles_and_the_command_line_know_the_proxy() {
    let src = workspace().join("crates/greenlight/src");
    // The roles as processes, and the command line that starts them.
    let may = ["roles", "cli"];
    for path in sources(&src) {
        let text = std::fs::read_to_string(&path).expect("a source is text");
        let inside = path.strip_prefix(&src).expect("it is in there");
        let room = inside.components().next().expect("it has a name");
        let room = Path::new(room.as_os_str()).with_extension("");
        let allowed = may.iter().any(|name| room == Path::new(name));
        assert!(
            allowed || !text.contains("greenlight_proxy"),
            "`{}` speaks to the proxy; only {may:?} do",
            inside.display()
        );
    }
}

#[test]
fn every_source_says_what_it_is_for() {
    let mut faults = Vec::new();
    for path in sources(&workspace().join("crates")) {
        if !path.components().any(|part| part.as_os_str() == "src") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source is text");
        if !text.starts_with("//!") {
            faults.push(format!("`{}` does not begin with `//!`", path.display()));
        }
    }
    assert_eq!(faults, [""; 0]);
}

#[test]
fn every_public_item_says_what_it_is_for() {
    let mut silent = Vec::new();
    for path in sources(&workspace().join("crates")) {
        if !path.components().any(|part| part.as_os_str() == "src") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source is text");
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if is_public_item(line) && !is_documented(&lines[..number]) {
                silent.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert_eq!(silent, [""; 0]);
}

#[test]
fn the_map_of_the_architecture_has_every_room_and_names_only_what_is_there() {
    let map = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("it is text");
    let named: BTreeSet<&str> = map.split('`').skip(1).step_by(2).collect();
    let src = workspace().join("crates/greenlight/src");
    let sources: Vec<_> = sources(&workspace().join("crates"));

    let is_there = |name: &str| match name.strip_prefix("greenlight/") {
        Some(room) => src.join(room).exists(),
        None => sources.iter().any(|path| path.ends_with(name)),
    };
    for name in &named {
        let is_source = Path::new(name).extension().is_some_and(|end| end == "rs");
        let is_place = is_source || name.starts_with("greenlight/");
        assert!(!is_place || is_there(name), "there is no `{name}`");
    }

    for file in std::fs::read_dir(&src).expect("a folder of the repository") {
        let file = file.expect("it can be listed").file_name();
        let file = file.to_str().expect("names are text");
        let room = file.strip_suffix(".rs").unwrap_or(file);
        let names = [
            format!("greenlight/{room}"),
            format!("greenlight/{room}.rs"),
            format!("{room}.rs"),
        ];
        let is_named = names.iter().any(|name| named.contains(name.as_str()));
        let is_root = matches!(room, "lib" | "main");
        assert!(is_root || is_named, "`{room}` is not in ARCHITECTURE.md");
    }
}

/// An item of a module, or a function of an `impl`. Fields and variants are named after what they
/// hold: where a name is not enough they say a unit or a rule, and a sentence that repeats the name
/// would only teach readers to skip it. So rustc's `missing_docs`, which wants one of each, is off.
fn is_public_item(line: &str) -> bool {
    let outer = line.strip_prefix("    ").unwrap_or(line);
    let Some(item) = outer.strip_prefix("pub ") else {
        return false;
    };
    let kind = item
        .split(' ')
        .find(|word| !matches!(*word, "const" | "async"));
    let is_constant = item.starts_with("const ") && !item.contains("fn ");
    is_constant
        || matches!(
            kind,
            Some("fn" | "struct" | "enum" | "trait" | "type" | "static")
        )
}

/// Whether a doc comment stands right above, or above the attributes.
fn is_documented(above: &[&str]) -> bool {
    let mut above = above.iter().rev().map(|line| line.trim());
    while let Some(line) = above.next() {
        if line.ends_with(']') && !line.starts_with("#[") {
            // The end of an attribute that takes several lines.
            above.by_ref().find(|line| line.starts_with("#["));
        } else if !line.starts_with("#[") {
            return line.starts_with("///");
        }
    }
    false
}

/// By crate of the workspace: what it needs to be built, without what only its tests need.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let named = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let needed = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies");
        let needed = all.iter().filter(|needed| needed["kind"].is_null());
        needed.map(named).collect()
    };
    let rooms = packages.iter();
    rooms
        .map(|package| (named(package), needed(package)))
        .collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder of the repository") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

fn workspace() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates
        .and_then(Path::parent)
        .expect("it has one")
        .to_owned()
}
