//! `greenlight init`: a `greenlight.yml` to begin with, which works as it is.

use super::args::Init;
use super::{Exit, Failure};
use crate::config::Config;
use std::io::Write as _;
use std::path::Path;

/// `greenlight init`.
pub(super) fn init(args: &Init) -> Result<Exit, Failure> {
    let path = &args.file.file;
    let service = match &args.service {
        Some(service) => service.clone(),
        None => named_after_folder(path),
    };
    let text = starter(&service);
    // The name may come from a person; what is written must be good.
    Config::parse(&path.display().to_string(), &text, [])?;
    write_new(path, &text)?;
    eprintln!(
        "wrote `{}`; next: `greenlight up`, and in another terminal `greenlight deploy`",
        path.display()
    );
    Ok(Exit::Done)
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
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return Failure::new(Exit::Refused, format!("`{named}` is there already"))
                .help("edit it, or name another file with `--file`");
        }
        Failure::new(Exit::Failed, format!("cannot write `{named}`: {error}"))
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
    // A JSON string is a YAML string, whatever is in it.
    let program = serde_json::to_string(&program).expect("text serialises");
    format!(
        "# What greenlight deploys, and where to. `greenlight schema` prints all that can be said here.
service: {service}

# The program to run. It must listen on the port that it finds in PORT, and answer its health
# check with a 2xx status. This one is a sample that comes with greenlight; put yours here.
command: [{program}, sample-app]
# A container instead: `image: ghcr.io/acme/shop`, with `proxy: {{ app_port: 3000 }}`. Its
# `before_switch: [\"bin/migrate\"]` is run once, before the switch.

# The fleet: every instance has a proxy, which users reach on its port, and two local ports that
# releases take in turns. These two are on this machine, for `greenlight up`; a fleet of two
# machines is just `servers: [10.0.0.11, 10.0.0.12]`.
servers:
  - {{ name: a, host: 127.0.0.1, port: 8000, ports: {{ blue: 8080, green: 8081 }} }}
  - {{ name: b, host: 127.0.0.1, port: 8001, ports: {{ blue: 8082, green: 8083 }} }}

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
