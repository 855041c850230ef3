//! Shows that the files of a crate do not use each other in a circle.
//!
//! The arrows of a file are its `use` declarations and the paths in its code. A name that a module
//! only passes on (`pub use child::Name`) leads to the file that defines it. A file may use what
//! its own ancestors define without that being an arrow: they are one room. What only tests use
//! does not count. Methods are not seen: they are called without naming the file they stand in.

use super::{sources, workspace};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_files_of_a_crate_use_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for entry in std::fs::read_dir(workspace().join("crates")).expect("a folder") {
        let folder = entry.expect("it can be listed").path();
        let name = folder.file_name().and_then(|name| name.to_str());
        let name = name.expect("names are text").to_owned();
        if let Some(circle) = circle(&graph(&modules(&folder.join("src")))) {
            circles.push(format!("{name}: {}", circle.join(" -> ")));
        }
    }
    assert_eq!(circles, [""; 0]);
}

#[test]
fn a_circle_is_found_through_groups_through_paths_and_through_names_that_are_passed_on() {
    let found = |sources: &[(&str, &str)]| {
        let sources = sources.iter();
        let sources = sources.map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        circle(&graph(&sources.collect()))
    };
    let direct = [("a", "use crate::b::B;"), ("b", "use crate::a::A;")];
    assert_eq!(found(&direct).expect("a circle"), ["a", "b", "a"]);
    let group = [
        ("a", "use crate::{\n    b::{self, c::C},\n    d::D,\n};"),
        ("b/c", "fn f() { crate::d::run(); }"),
        ("b", "mod c;"),
        ("d", "use super::a::A;"),
    ];
    assert_eq!(found(&group).expect("a circle"), ["a", "b::c", "d", "a"]);
    let passed_on = [
        ("a", "pub(crate) use inner::A;\nmod inner;"),
        ("a/inner", "use crate::b::B;"),
        ("b", "use crate::a::A;"),
    ];
    let circle = ["a::inner", "b", "a::inner"];
    assert_eq!(found(&passed_on).expect("a circle"), circle);

    let none = [
        // Down, and back up into an ancestor.
        ("a", "mod child;\nfn f() { child::run(); }"),
        ("a/child", "use super::Shared;\n// use crate::b::B;"),
        // Tests may use anything.
        ("b", "use crate::a::A;"),
        ("a/tests", "use crate::b::B;"),
        ("c", "#[cfg(test)]\nmod tests {\n    use crate::d::D;\n}"),
        ("d", "const TEXT: &str = \"crate::d\";\nuse crate::c::C;"),
    ];
    let mut none = none.to_vec();
    none[0].1 = "mod child;\n#[cfg(test)]\nmod tests;\nfn f() { child::run(); }";
    assert_eq!(found(&none), None);
}

/// The text of each file, by the path of its module with `/` between the parts.
fn modules(src: &Path) -> BTreeMap<String, String> {
    let files = sources(src).into_iter().map(|file| {
        let text = std::fs::read_to_string(&file).expect("a source is text");
        let path = file.strip_prefix(src).expect("it is in there");
        let path = path.with_extension("").to_string_lossy().into_owned();
        let path = if path == "lib" { String::new() } else { path };
        (path, text)
    });
    files.collect()
}

/// By module: the modules that it uses.
fn graph(sources: &BTreeMap<String, String>) -> Graph {
    let names: BTreeSet<Vec<String>> = sources.keys().map(|path| parts(path)).collect();
    let mut files = BTreeMap::new();
    let mut tests = BTreeSet::new();
    for (path, text) in sources {
        let module = parts(path);
        let file = File::read(&module, text, &names);
        tests.extend(file.tests.iter().cloned());
        files.insert(module, file);
    }
    files.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    let mut graph = Graph::new();
    for (module, file) in &files {
        let used = file.uses.iter().filter_map(|path| definer(path, &files));
        let used = used.filter(|used| !module.starts_with(used));
        graph.insert(
            module.join("::"),
            used.map(|used| used.join("::")).collect(),
        );
    }
    graph
}

fn parts(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(ToOwned::to_owned).collect()
}

/// The module whose file defines what a path names.
fn definer(path: &[String], files: &BTreeMap<Vec<String>, File>) -> Option<Vec<String>> {
    let lengths = (0..=path.len()).rev();
    let mut known = lengths.map(|length| &path[..length]);
    let module = known.find(|module| files.contains_key(*module))?;
    let rest = &path[module.len()..];
    let passed_on = rest
        .first()
        .and_then(|name| files[module].passes_on.get(name));
    match passed_on {
        Some(elsewhere) => definer(&[elsewhere, &rest[1..]].concat(), files),
        None => Some(module.to_owned()),
    }
}

/// What one file says of others.
#[derive(Default)]
struct File {
    uses: Vec<Vec<String>>,
    /// By name: the path of what is only passed on.
    passes_on: BTreeMap<String, Vec<String>>,
    /// Its modules that are built for tests only.
    tests: Vec<Vec<String>>,
}

impl File {
    fn read(module: &[String], text: &str, modules: &BTreeSet<Vec<String>>) -> Self {
        let mut file = Self::default();
        let tokens = tokens(text);
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            if let Some(rest) = rest.strip_prefix(&["#", "[", "cfg", "(", "test", ")", "]"]) {
                let end = item(rest);
                if let [.., "mod", name, ";"] = rest[..end] {
                    file.tests.push(child(module, name));
                }
                at += 7 + end;
                continue;
            }
            if rest[0] == "use" && rest.get(1) != Some(&"<") {
                let is_passed_on = at > 0 && ["pub", ")"].contains(&tokens[at - 1]);
                let end = rest.iter().position(|token| *token == ";");
                let end = end.expect("a declaration ends");
                for path in leaves(&rest[1..end]) {
                    file.add(module, &path, is_passed_on, modules);
                }
                at += end;
                continue;
            }
            let continues = at > 0 && tokens[at - 1] == "::";
            if !continues && rest.get(1) == Some(&"::") {
                let mut path = vec![rest[0]];
                for pair in rest[1..].chunks_exact(2) {
                    if pair[0] != "::" || !is_name(pair[1]) {
                        break;
                    }
                    path.push(pair[1]);
                }
                file.add(module, &path, false, modules);
            }
            at += 1;
        }
        file
    }

    /// Notes a path, if it leads into this crate.
    fn add(
        &mut self,
        module: &[String],
        path: &[&str],
        is_passed_on: bool,
        modules: &BTreeSet<Vec<String>>,
    ) {
        let mut base = module.to_vec();
        let mut rest = path;
        match path.first() {
            Some(&"crate") => {
                base.clear();
                rest = &rest[1..];
            }
            Some(&"self") => rest = &rest[1..],
            Some(&"super") => {
                while let Some((&"super", after)) = rest.split_first() {
                    base.pop();
                    rest = after;
                }
            }
            Some(first) if modules.contains(&child(module, first)) => {}
            Some(_) | None => return,
        }
        let names = rest.iter().filter(|name| !["self", "*"].contains(name));
        base.extend(names.map(|name| (*name).to_owned()));
        match base.last() {
            Some(name) if is_passed_on => {
                self.passes_on.insert(name.clone(), base);
            }
            Some(_) | None => self.uses.push(base),
        }
    }
}

fn child(module: &[String], name: &str) -> Vec<String> {
    [module, &[name.to_owned()]].concat()
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The paths of a declaration: `a::{b, c as d}` is `a::b` and `a::c`.
fn leaves<'a>(tree: &[&'a str]) -> Vec<Vec<&'a str>> {
    let Some(open) = tree.iter().position(|token| *token == "{") else {
        let end = tree.iter().position(|token| *token == "as");
        let path = tree[..end.unwrap_or(tree.len())].iter();
        return vec![path.copied().filter(|token| *token != "::").collect()];
    };
    let stem: Vec<_> = tree[..open]
        .iter()
        .copied()
        .filter(|t| *t != "::")
        .collect();
    let close = tree.len() - 1;
    let (mut depth, mut start, mut found) = (0, open + 1, Vec::new());
    for at in open + 1..=close {
        match tree[at] {
            "{" => depth += 1,
            "}" if at < close => depth -= 1,
            "," if depth > 0 => {}
            "," | "}" => {
                if start < at {
                    let leaves = leaves(&tree[start..at]).into_iter();
                    found.extend(leaves.map(|leaf| [stem.as_slice(), &leaf].concat()));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// How many tokens the item has that begins here: up to its `;` or its block's end.
fn item(tokens: &[&str]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 && [";", "}"].contains(token) {
            return at + 1;
        }
    }
    tokens.len()
}

/// Names, `::`, and single characters; without comments, texts and characters in quotes.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => quoted(rest),
            'r' if rest.starts_with("r\"") => 2 + rest[2..].find('"').expect("a text ends") + 1,
            'r' if rest.starts_with("r#\"") => 3 + rest[3..].find("\"#").expect("a text ends") + 2,
            '\'' => character(rest),
            ':' if rest.starts_with("::") => {
                tokens.push("::");
                2
            }
            _ if first.is_whitespace() => first.len_utf8(),
            _ => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let end = end.unwrap_or(rest.len()).max(first.len_utf8());
                tokens.push(&rest[..end]);
                end
            }
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of a text in quotes.
fn quoted(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character in quotes, or of the quote of a lifetime.
fn character(text: &str) -> usize {
    let mut after = text.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) => 3 + text[3..].find('\'').expect("a character ends") + 1,
        (Some(inside), Some('\'')) => 2 + inside.len_utf8(),
        _ => 1,
    }
}

/// The modules of a circle, the first again at the end.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    graph
        .keys()
        .find_map(|module| visit(module, graph, &mut Vec::new(), &mut done))
}

fn visit<'a>(
    module: &'a str,
    graph: &'a Graph,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<String>> {
    if let Some(start) = path.iter().position(|on_path| *on_path == module) {
        let circle = path[start..].iter().chain([&module]);
        return Some(circle.map(ToString::to_string).collect());
    }
    if done.contains(module) {
        return None;
    }
    path.push(module);
    let used = graph.get(module).into_iter().flatten();
    let mut used = used.filter_map(|used| visit(used, graph, path, done));
    let found = used.next();
    path.pop();
    done.insert(module);
    found
}
