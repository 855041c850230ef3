//! `greenlight attach nginx`: shows what it would write for Nginx, asks, and does it.

use super::args::AttachNginx;
use super::fleet::{configuration, local_dir};
use super::{Exit, Failure, Output, print, print_json};
use crate::local::LocalFleet;
use greenlight_agent::nginx::{
    AttachError, Attachment, FileChange, Include, Nginx, Target, Upstream,
};
use greenlight_config::{Config, InstanceConfig, InstanceNginx};
use greenlight_release::front::FrontKind;
use greenlight_release::nginx::{Label, NginxPath, ValueError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

/// What `--json` prints.
#[derive(Serialize)]
struct AttachDocument {
    /// Whether anything was written, and Nginx reloaded.
    changed: bool,
    /// The files that changed, or would, as `diff -u` shows it.
    diffs: BTreeMap<PathBuf, String>,
    /// By service: the file to include in a `location`, where none does it yet.
    to_include: BTreeMap<String, PathBuf>,
}

/// `greenlight attach nginx`.
pub(super) async fn nginx(args: &AttachNginx, output: Output) -> Result<Exit, Failure> {
    let config = configuration(&args.file)?;
    let attachment = attachment(args, &config)?;
    let changes = attachment.changes()?;
    let diffs: BTreeMap<_, _> = changes
        .iter()
        .map(|change| (change.path.clone(), change.diff()))
        .collect();
    if output == Output::Text {
        for change in &changes {
            print(&change.diff())?;
        }
    }
    let done = !args.dry_run;
    if done {
        agreed(args, &changes)?;
    }
    let attached = match done {
        true => Some(attachment.carry_out(&changes).await?),
        false => None,
    };
    let missing = attached
        .map(|attached| attached.missing)
        .unwrap_or_default();
    let document = AttachDocument {
        changed: done && !changes.is_empty(),
        diffs,
        to_include: missing
            .into_iter()
            .map(|(service, path)| (service.to_string(), path))
            .collect(),
    };
    match output {
        Output::Json => print_json(&document)?,
        Output::Text => print(&document.render(args))?,
    }
    Ok(Exit::Done)
}

impl AttachDocument {
    fn render(&self, args: &AttachNginx) -> String {
        let mut text = String::new();
        let mut line = |add: &str| writeln!(text, "{add}").expect("a string takes all");
        match (args.dry_run, self.changed) {
            (true, _) => line("nothing was changed"),
            (false, true) => {
                line("nginx uses the configuration, and a request reached greenlight through it");
            }
            (false, false) => line("nginx is attached already"),
        }
        for (service, path) in &self.to_include {
            line(&format!(
                "no server passes requests to `{service}` yet; in the server of your choice:\n\
                 \x20   location / {{\n        include {};\n    }}",
                path.display()
            ));
        }
        text
    }
}

fn attachment(args: &AttachNginx, config: &Config) -> Result<Attachment, Failure> {
    if config.front == FrontKind::Builtin {
        let error = "the front of this fleet is `builtin`, which needs no Nginx";
        return Err(Failure::new(Exit::Usage, error)
            .help("write `front: nginx` under `proxy` in the configuration first"));
    }
    let instance = chosen(args, config)?;
    let InstanceNginx {
        binary,
        mut conf,
        pid,
        mut include,
        verify_port,
    } = config.nginx_of(instance)?;
    if let Some(other) = &args.nginx_conf {
        conf.clone_from(other);
    }
    if let Some(other) = &args.include {
        include = NginxPath::new(other)?;
    }
    let gate = match &args.socket {
        Some(socket) => socket.clone(),
        None => LocalFleet::gate(&local_dir(&args.file.file), &instance.name),
    };
    let gate = std::path::absolute(gate).map_err(|error| Failure::new(Exit::Usage, error))?;
    let mut upstreams = BTreeMap::new();
    for service in config.services.keys() {
        let upstream = match config.front {
            FrontKind::Builtin | FrontKind::Nginx => Upstream::Gate(NginxPath::socket(&gate)?),
            FrontKind::NginxReload => {
                let ports = instance.ports[service].pair();
                Upstream::Slots {
                    blue: ports.blue,
                    green: ports.green,
                    to: Target::Parked,
                }
            }
        };
        upstreams.insert(Label::new(&service.0)?, upstream);
    }
    Ok(Attachment {
        nginx: Nginx { binary, conf, pid },
        include,
        wanted: Include {
            generation: 0,
            verify_port,
            forward_headers: config.nginx.forward_headers,
            upstreams,
        },
    })
}

fn chosen<'a>(args: &AttachNginx, config: &'a Config) -> Result<&'a InstanceConfig, Failure> {
    let names = || {
        let names = config.instances.iter().map(|i| format!("`{}`", i.name));
        format!("the fleet has {}", names.collect::<Vec<_>>().join(", "))
    };
    match (&args.instance, &config.instances[..]) {
        (None, [only]) => Ok(only),
        (None, _) => {
            let error = "which instance is this machine? give `--instance`";
            Err(Failure::new(Exit::Usage, error).help(names()))
        }
        (Some(name), all) => all.iter().find(|i| i.name.0 == *name).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("there is no instance `{name}`")).help(names())
        }),
    }
}

/// Nginx is changed only after a person has seen and confirmed the change.
fn agreed(args: &AttachNginx, changes: &[FileChange]) -> Result<(), Failure> {
    if args.yes || changes.is_empty() {
        return Ok(());
    }
    let refused = |error: &str| Failure::new(Exit::Refused, error);
    if !std::io::stdin().is_terminal() {
        return Err(
            refused("nobody can confirm, because standard input is not a terminal")
                .help("give `--yes`, or `--dry-run`"),
        );
    }
    eprint!("write this and reload nginx once? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(refused("nothing was changed")),
    }
}

impl From<ValueError> for Failure {
    fn from(error: ValueError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        Self::new(Exit::Failed, error).help("the earlier files are restored")
    }
}
