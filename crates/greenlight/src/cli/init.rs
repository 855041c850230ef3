//! `greenlight init`: a `greenlight.yml` to begin with, which works as it is, or one made of the
//! file of another tool, which a person must read first.

use super::args::Init;
use super::{Exit, Failure, Output, print_json};
use greenlight_config::Config;
use greenlight_config::import::{ImportError, Source, Unsupported, UnsupportedKeys, import};
use serde::Serialize;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// What `--json` prints.
#[derive(Serialize)]
struct InitDocument {
    /// The file that was written.
    file: String,
    /// What the other tool's file has that could not be carried over.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_carried_over: Option<Vec<Unsupported>>,
}

/// `greenlight init`.
pub(super) fn init(args: &Init, output: Output) -> Result<Exit, Failure> {
    let not_carried_over = match args.from {
        None => {
            begin(args)?;
            None
        }
        Some(source) => Some(convert(args, source)?),
    };
    if output == Output::Json {
        print_json(&InitDocument {
            file: args.file.file.display().to_string(),
            not_carried_over,
        })?;
    }
    Ok(Exit::Done)
}

fn begin(args: &Init) -> Result<(), Failure> {
    let path = &args.file.file;
    let service = match &args.service {
        Some(service) => service.clone(),
        None => named_after_folder(path),
    };
    let text = starter(&service);
    // A person may have chosen the name; the file must be valid all the same.
    Config::parse(&path.display().to_string(), &text, [])?;
    write_new(path, &text)?;
    eprintln!(
        "wrote `{}`; next: `greenlight up`, and in another terminal \
         `greenlight deploy --version v1`",
        path.display()
    );
    Ok(())
}

fn convert(args: &Init, source: Source) -> Result<Vec<Unsupported>, Failure> {
    let path = &args.file.file;
    let input = input(args, source)?;
    let named = input.display().to_string();
    let text = std::fs::read_to_string(&input)
        .map_err(|error| Failure::new(Exit::Usage, format!("`{named}` cannot be read: {error}")))?;
    let mut unsupported = UnsupportedKeys::default();
    if source == Source::Kamal {
        beside_kamal(&input, &mut unsupported);
    }
    let only = args.service.as_deref();
    let imported = import(source, &named, &text, only, unsupported).map_err(|error| {
        let help = match &error {
            ImportError::NothingToServe => "name the one to deploy with `--service`",
            ImportError::NoSuchService { .. } => "name one of these with `--service`",
            ImportError::NotYaml(_) => "correct it there, or name another file with `--input`",
            ImportError::NotThatTool(..) => "name the right file with `--input`",
        };
        Failure::new(Exit::Usage, format!("`{named}`: {error}")).help(help)
    })?;
    write_new(path, &imported.text)?;
    for entry in &imported.unsupported {
        eprintln!("not carried over: {}: {}", entry.what, entry.why);
    }
    let path = path.display();
    eprintln!(
        "wrote `{path}`; read it, put in your servers, and look at it with `greenlight plan`"
    );
    // The content comes from another tool, so a person may have to change it first.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    if let Err(error) = Config::parse(&path.to_string(), &imported.text, variables) {
        eprintln!(
            "warning: it needs changes before it can be used:\n{:?}",
            miette::Report::new(error)
        );
    }
    Ok(imported.unsupported)
}

/// The other tool's file.
fn input(args: &Init, source: Source) -> Result<PathBuf, Failure> {
    if let Some(input) = &args.input {
        return Ok(input.clone());
    }
    let folder = args.file.file.parent().unwrap_or(Path::new(""));
    let mut usual = source.usual_files().iter().map(|name| folder.join(name));
    usual.find(|path| path.exists()).ok_or_else(|| {
        let names: Vec<_> = source
            .usual_files()
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        let error = format!("there is no file of {source} here: {}", names.join(", "));
        Failure::new(Exit::Usage, error).help("name it with `--input`")
    })
}

/// What belongs to Kamal's configuration and is in files of its own.
fn beside_kamal(input: &Path, unsupported: &mut UnsupportedKeys) {
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let folder = input.parent().unwrap_or(Path::new(""));
    let file = input.file_name().unwrap_or_default().to_string_lossy();
    let stem = format!("{}.", file.trim_end_matches(".yml"));
    for name in names(folder) {
        let is_yaml = Path::new(&name)
            .extension()
            .is_some_and(|ending| ending == "yml");
        if name.starts_with(&stem) && is_yaml && name != file {
            let why = "a destination is a `greenlight.yml` of its own; choose it with `--file`";
            unsupported.add(format!("`{name}`"), why);
        }
    }
    for name in names(&folder.join("../.kamal/hooks")) {
        if !name.ends_with(".sample") {
            let why = "greenlight runs no hooks; do it in the CI job, and migrations with \
                       `before_switch`";
            unsupported.add(format!("`.kamal/hooks/{name}`"), why);
        }
    }
}

/// Writes a file that is not there yet. What a person wrote is never replaced.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let created = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(path);
    let written = created.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let named = path.display();
        let folder = path.parent().unwrap_or(path).display();
        let kind = error.kind();
        let (exit, error, help) = if path.is_dir() {
            let error = format!("`{named}` is a folder");
            (Exit::Usage, error, "name the file in it with `--file`")
        } else if kind == ErrorKind::AlreadyExists {
            let error = format!("`{named}` is there already");
            let help = "edit it, or name another file with `--file`";
            (Exit::Refused, error, help)
        } else if kind == ErrorKind::NotFound {
            let error = format!("there is no folder `{folder}` for `{named}`");
            let help = "make it, or name another file with `--file`";
            (Exit::Usage, error, help)
        } else {
            let error = format!("cannot write `{named}`: {error}");
            (Exit::Failed, error, "name another file with `--file`")
        };
        Failure::new(exit, error).help(help)
    })
}

/// The folder's name in the letters that a service's name may have.
fn named_after_folder(file: &Path) -> String {
    let folder = std::path::absolute(file)
        .ok()
        .and_then(|path| Some(path.parent()?.file_name()?.to_string_lossy().to_lowercase()))
        .unwrap_or_default();
    let letters = folder.chars().map(|letter| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '-'
        }
    });
    let name: String = letters.take(63).collect();
    match name.trim_matches('-') {
        "" => "app".to_owned(),
        name => name.to_owned(),
    }
}

fn starter(service: &str) -> String {
    let program = std::env::current_exe().map_or_else(
        |_| "greenlight".to_owned(),
        |path| path.display().to_string(),
    );
    // Every JSON string is a valid YAML string.
    let program = serde_json::to_string(&program).expect("text serialises");
    format!(
        "# What greenlight deploys, and where to. `greenlight schema` prints all that can be said here.
service: {service}

# The program to run. It must listen on the port that it finds in PORT, and answer its health
# check with a 2xx status. This one is a sample that comes with greenlight; put yours here.
command: [{program}, sample-app]
# A container instead: `image: ghcr.io/acme/shop`, with `proxy: {{ app_port: 3000 }}`. Its
# `before_switch: [\"bin/migrate\"]` is run once, before the switch.

# The fleet: every instance has a proxy, which users reach on its port. Releases take two local
# ports in turns, which each instance chooses. These two are on this machine, for `greenlight up`.
servers:
  - {{ name: a, host: 127.0.0.1, port: 8000 }}
  - {{ name: b, host: 127.0.0.1, port: 8001 }}

proxy:
  # host: shop.example.com           # every host, unless given
  healthcheck:
    path: /up
    interval: 5s                     # a release that is starting is asked more often

# env:
#   clear: {{ LOG_LEVEL: info }}
#   secret: [DATABASE_URL]           # taken from the environment of whoever deploys, and kept
#                                    # out of journals, logs and answers

strategy: blue_green                 # all instances switch together, or none does
watch: 60s                           # the new release is observed, ready to go back
keep_warm: 15m                       # then the old one waits, for an instant rollback
drain_timeout: 30s                   # requests in flight may take this long to end
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starter_is_a_good_configuration() {
        let config = Config::parse("greenlight.yml", &starter("shop"), []).expect("a good file");
        assert_eq!(config.instances.len(), 2);
        assert_eq!(config.services.len(), 1);
    }

    #[test]
    fn a_service_is_named_after_its_folder_in_letters_that_are_allowed() {
        let named = |path: &str| named_after_folder(Path::new(path));
        assert_eq!(named("/srv/My Shop_2/greenlight.yml"), "my-shop-2");
        assert_eq!(named("/srv/--/greenlight.yml"), "app");
        assert_eq!(named("/greenlight.yml"), "app");
    }
}
