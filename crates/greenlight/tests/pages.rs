//! The documents against the repository: links lead somewhere, files that pages name and pages that
//! sources name exist, and the reference of the HTTP API has every route.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn every_link_of_the_documents_leads_to_a_file_and_a_heading_that_exist() {
    let mut broken = Vec::new();
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        for target in links_of(&text) {
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let beside = page.parent().expect("a page is in a folder");
            let file = match file {
                "" => page.clone(),
                file => beside.join(file),
            };
            let leads = file.exists()
                && (heading.is_empty() || headings_of(&read(&file)).contains(heading));
            if !leads {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert_eq!(broken, [""; 0]);
    assert!(links > 50, "only {links} links were found");
}

#[test]
fn every_file_that_a_page_about_the_code_names_exists() {
    let mut missing = Vec::new();
    let mut named = 0;
    for page in [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/design/testing.md",
        "docs/design/life-of-a-request.md",
        "docs/design/life-of-a-deployment.md",
    ] {
        let text = read(&workspace().join(page));
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = word.starts_with("crates/") || word.starts_with("greenlight");
            if is_path && word.contains('/') {
                named += 1;
                if !is_there(word) {
                    missing.push(format!("{page}: `{word}`"));
                }
            }
        }
    }
    assert_eq!(missing, [""; 0]);
    assert!(named > 50, "only {named} paths were found");
}

#[test]
fn the_reference_of_the_http_api_has_every_route_of_server_and_agents() {
    let page = read(&workspace().join("docs/reference/http-api.md"));
    let mut routes = BTreeSet::new();
    let sources = files(&workspace().join("crates"), "rs");
    let is_shipped = |path: &&PathBuf| path.components().any(|part| part.as_os_str() == "src");
    for source in sources.iter().filter(is_shipped) {
        let text = read(source);
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        let found = shipped.split(".route(\"").skip(1);
        routes.extend(found.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    let untold: Vec<_> = routes
        .iter()
        .filter(|route| route.starts_with("/v1/") && !page.contains(*route))
        .collect();
    assert!(untold.is_empty(), "{untold:?}");
    assert!(routes.len() > 10, "{routes:?}");
}

#[test]
fn every_page_that_a_source_names_exists() {
    let mut missing = Vec::new();
    let mut named = 0;
    for source in files(&workspace().join("crates"), "rs") {
        let text = read(&source);
        for rest in text.split("docs/").skip(1) {
            let is_of_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '.');
            let end = rest.find(|c| !is_of_path(c)).unwrap_or(rest.len());
            let page = rest[..end].trim_end_matches('.');
            if Path::new(page)
                .extension()
                .is_some_and(|ending| ending == "md")
            {
                named += 1;
                if !workspace().join("docs").join(page).exists() {
                    missing.push(format!("{}: docs/{page}", source.display()));
                }
            }
        }
    }
    assert_eq!(missing, [""; 0]);
    assert!(named > 5, "only {named} pages were found");
}

#[test]
fn the_readme_shows_near_its_top_how_to_run_the_demo_and_the_tests() {
    let readme = read(&workspace().join("README.md"));
    let top: Vec<_> = readme.lines().take(50).collect();
    for command in ["cargo run --release -- demo", "make test"] {
        let is_shown = top.iter().any(|line| line.starts_with(command));
        assert!(is_shown, "`{command}`");
    }
}

/// Whether there is such a path, from the root or from `crates`; `greenlight-gate/wire.rs` is
/// short for `greenlight-gate/src/wire.rs`.
fn is_there(word: &str) -> bool {
    let path = word.strip_prefix("crates/").unwrap_or(word);
    let crates = workspace().join("crates");
    let (room, rest) = path.split_once('/').unwrap_or((path, ""));
    crates.join(path).exists() || crates.join(room).join("src").join(rest).exists()
}

/// All documents of the repository.
fn pages() -> Vec<PathBuf> {
    let root = std::fs::read_dir(workspace()).expect("the repository can be listed");
    let mut pages: Vec<_> = root
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    pages.extend(files(&workspace().join("docs"), "md"));
    pages
}

/// The targets of a page's links, without those to other sites and those in code.
fn links_of(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    let links = prose.flat_map(|part| part.split("](").skip(1));
    let targets = links.filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn headings_of(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchors = headings.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        kept.map(|letter| if letter == ' ' { '-' } else { letter })
            .collect()
    });
    anchors.collect()
}

/// The files below a folder whose names end so.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder of the repository") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|its| its == ending) {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn workspace() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates
        .and_then(Path::parent)
        .expect("it has one")
        .to_owned()
}
