//! Files as they are found in the world, and what is made of them, in `tests/golden/import`.
//!
//! After a deliberate change: `UPDATE_GOLDEN=1 cargo test -p greenlight-config import`, and read the
//! difference.

use super::{ImportError, Source, UnsupportedKeys, draft, import, write};
use crate::{Config, schema};
use std::path::PathBuf;

/// What the files take from the environment.
const VARIABLES: [&str; 9] = [
    "DOMAIN",
    "MAIL_PASSWORD",
    "DB_PASSWORD",
    "SECRET_KEY",
    "TAG",
    "WEB_HOST",
    "KAMAL_REGISTRY_USERNAME",
    "REGISTRY",
    "SENTRY_DSN",
];

#[test]
fn every_file_becomes_the_one_that_is_kept_beside_it() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (source, file) in files() {
        let text = std::fs::read_to_string(&file).expect("the file is text");
        let name = file.file_name().expect("it has a name").to_string_lossy();
        let imported = import(source, &name, &text, None, UnsupportedKeys::default());
        let imported = imported.unwrap_or_else(|error| panic!("{name}: {error}"));
        let kept = file.with_extension("greenlight.yml");
        if update {
            std::fs::write(&kept, &imported.text).expect("the folder can be written");
        }
        if std::fs::read_to_string(&kept).unwrap_or_default() != imported.text {
            wrong.push(format!("{name}:\n{}", imported.text));
        }
        for entry in &imported.unsupported {
            assert!(
                !entry.why.is_empty(),
                "{name}: {} has no reason",
                entry.what
            );
        }
    }
    assert!(wrong.is_empty(), "others than kept:\n{}", wrong.join("\n"));
}

#[test]
fn what_is_written_can_be_read() {
    let full = serde_json::to_value(schema()).expect("a schema is plain data");
    let runs_images = full["properties"].get("volumes").is_some();
    for (source, file) in files() {
        let text = std::fs::read_to_string(&file).expect("the file is text");
        let (draft, unsupported) =
            draft(source, &text, None, UnsupportedKeys::default()).expect("it is good");
        let mut drafts = vec![draft.without_containers()];
        // A version that runs images reads the file as it is.
        drafts.extend(runs_images.then(|| draft.clone()));
        for (index, draft) in drafts.iter().enumerate() {
            let text = write::write(draft, "", "", unsupported.all());
            let text = match index {
                0 => with_commands(&text),
                _ => text,
            };
            let variables = VARIABLES.map(|name| (name.to_owned(), "value".to_owned()));
            let read = Config::parse("greenlight.yml", &text, variables);
            let read = read.unwrap_or_else(|error| panic!("{}\n{text}", miette_report(error)));
            assert_eq!(read.services.len(), draft.services.len());
            assert_eq!(read.instances.len(), draft.servers.len().max(1));
        }
    }
}

#[test]
fn what_is_no_such_file_is_refused_with_the_reason() {
    let refused = |source, text, only| {
        let imported = import(source, "file", text, only, UnsupportedKeys::default());
        imported.map(|imported| imported.text).expect_err(text)
    };
    let compose = Source::Compose;
    assert!(matches!(
        refused(compose, "a: [", None),
        ImportError::NotYaml(_)
    ));
    assert_eq!(
        refused(compose, "a: 1", None),
        ImportError::NotThatTool("services", compose)
    );
    let databases = "services: { db: { image: postgres, ports: [5432:5432] }, job: { image: x } }";
    assert_eq!(
        refused(compose, databases, None),
        ImportError::NothingToServe
    );
    let error = refused(compose, databases, Some("web")).to_string();
    assert_eq!(error, "it has no service `web`; it has `db`, `job`");
    assert!(
        import(
            compose,
            "",
            databases,
            Some("job"),
            UnsupportedKeys::default()
        )
        .is_ok()
    );
    assert_eq!(
        refused(Source::Kamal, "image: x", None),
        ImportError::NotThatTool("service", Source::Kamal)
    );
}

#[test]
fn values_of_odd_shapes_are_losses_and_no_errors() {
    let compose = [
        "image: [a]",
        "ports: 80-90",
        "ports: { a: 1 }",
        "healthcheck: []",
        "healthcheck: { retries: few }",
        "healthcheck: { interval: soon }",
        "healthcheck: { timeout: $T }",
        "labels: [[]]",
        "deploy: []",
        "volumes: 1",
        "networks: 1",
        "command: { a: 1 }",
        "env_file: 1",
        "command: \"it's\"",
        "logging: 1",
        "logging: { options: { a: '${B:+c}' } }",
        "mem_limit: []",
        "user: '${A:+b}'",
        "unheard_of: 1",
        "stop_grace_period: long",
    ];
    for setting in compose {
        let text = format!("services:\n  web:\n    {setting}\n");
        let imported = import(
            Source::Compose,
            "file",
            &text,
            Some("web"),
            UnsupportedKeys::default(),
        );
        let imported = imported.unwrap_or_else(|error| panic!("{setting}: {error}"));
        let key = setting.split(':').next().expect("it has a key");
        let is_lost = |entry: &super::Unsupported| entry.what.contains(key);
        assert!(
            imported.unsupported.iter().any(is_lost),
            "{setting} is lost in silence"
        );
    }
    let kamal = [
        "image: [b]",
        "servers: 1",
        "servers: [[]]",
        "servers: { web: { options: 1 } }",
        "servers: { web: { cmd: [] } }",
        "servers: { web: { options: { memory: [] } } }",
        "servers: { job: 1 }",
        "env: 1",
        "env: { clear: { A: [] } }",
        "proxy: []",
        "proxy: { app_port: many }",
        "proxy: { hosts: [[]] }",
        "proxy: { response_timeout: long }",
        "registry: 1",
        "registry: { username: <%= x %> }",
        "accessories: 1",
        "volumes: { a: 1 }",
        "labels: [[]]",
        "logging: []",
        "healthcheck: 1",
        "retain_containers: few",
        "drain_timeout: long",
        "unheard_of: 1",
    ];
    for setting in kamal {
        let text = format!("service: a\n{setting}\n");
        let imported = import(
            Source::Kamal,
            "file",
            &text,
            None,
            UnsupportedKeys::default(),
        );
        let imported = imported.unwrap_or_else(|error| panic!("{setting}: {error}"));
        let key = setting.split(':').next().expect("it has a key");
        let is_lost = |entry: &super::Unsupported| entry.what.contains(key);
        assert!(
            imported.unsupported.iter().any(is_lost),
            "{setting} is lost in silence"
        );
    }
}

/// A version without a container runtime reads a command where the image is.
fn with_commands(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| match line.trim_start().starts_with("image: ") {
            true => format!(
                "{}command: [app]",
                &line[..line.len() - line.trim_start().len()]
            ),
            false => line.to_owned(),
        });
    lines.map(|line| line + "\n").collect()
}

fn miette_report(error: crate::ConfigError) -> String {
    format!("{:?}", miette::Report::new(error))
}

fn files() -> Vec<(Source, PathBuf)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/import");
    let mut files = Vec::new();
    for (source, name, least) in [(Source::Compose, "compose", 4), (Source::Kamal, "kamal", 3)] {
        let entries = std::fs::read_dir(folder.join(name)).expect("it is part of the repository");
        let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
        let mut inputs: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|ending| ending == "yml"))
            .filter(|path| !path.to_string_lossy().ends_with(".greenlight.yml"))
            .collect();
        inputs.sort();
        assert!(
            inputs.len() >= least,
            "only {} files of {source}",
            inputs.len()
        );
        files.extend(inputs.into_iter().map(|path| (source, path)));
    }
    files
}
