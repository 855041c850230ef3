//! `greenlight setup`: installs the fleet of a `greenlight.yml` on its machines.

use super::args::{FileArg, FleetArg};
use super::fleet::{configuration, local_dir, make_local_dir};
use super::{Exit, Failure, Output, print, print_json};
use crate::setup::{Aim, Binary, Done, Installation, MachineFailure, Part};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;

/// `greenlight setup`.
#[derive(Debug, clap::Args)]
pub struct Setup {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// Where the operator's credentials are kept.
    #[command(flatten)]
    pub fleet: FleetArg,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Instead: stop the services, and remove them with everything they have kept.
    #[arg(long)]
    pub remove: bool,
    /// With `--remove`: do it. Without, only what would be done is said.
    #[arg(long, requires = "remove")]
    pub yes: bool,
    /// The program to install; this one unless given.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
}

/// One machine, as `--json` prints it.
#[derive(Serialize)]
struct MachineDocument {
    host: String,
    server: bool,
    instance: Option<String>,
    changes: Vec<String>,
    connected: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

/// Installs the fleet.
pub(super) async fn setup(args: &Setup, output: Output) -> Result<Exit, Failure> {
    let config = configuration(&args.file)?;
    let program = match &args.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(|error| Failure::new(Exit::Failed, error))?,
    };
    let binary = Binary::open(&program).map_err(|error| {
        let error = format!("`{}` cannot be installed: {error}", program.display());
        Failure::new(Exit::Usage, error)
            .help("name the program of greenlight for these machines with `--program`")
    })?;
    let dry_run = args.dry_run || args.remove && !args.yes;
    let local = local_dir(&args.file.file);
    if args.fleet.fleet.is_none() && !args.remove && !dry_run {
        make_local_dir(&local, 0o700).map_err(|error| {
            Failure::new(Exit::Failed, format!("`{}`: {error}", local.display()))
        })?;
    }
    let installation = Installation {
        config: &config,
        binary,
        fleet: (args.fleet.fleet.clone()).unwrap_or_else(|| local.join("operator")),
        aim: match args.remove {
            true => Aim::Removed,
            false => Aim::Installed,
        },
        dry_run,
        tell: &|line| eprintln!("{line}"),
    };
    let all = installation.run().await.map_err(|failure| {
        let MachineFailure { error, help } = failure;
        Failure::new(Exit::Usage, error).help(help)
    })?;
    let rows: Vec<_> = all.iter().map(document).collect();
    match output {
        Output::Json => print_json(&rows),
        Output::Text => print(&table(&rows, dry_run)),
    }?;
    for row in &rows {
        if let (Some(error), Some(help)) = (&row.error, &row.help) {
            eprint!("error: `{}`: {error}\nhelp: {help}\n", row.host);
        }
    }
    if args.remove && dry_run {
        eprintln!("nothing was changed; `--remove --yes` does it");
    }
    Ok(match rows.iter().any(|row| row.error.is_some()) {
        true => Exit::Failed,
        false => Exit::Done,
    })
}

fn document(done: &Done) -> MachineDocument {
    MachineDocument {
        host: done.machine.host.to_string(),
        server: done.machine.parts.contains(&Part::Server),
        instance: done.machine.instance().map(ToString::to_string),
        changes: done.changes.iter().map(ToString::to_string).collect(),
        connected: done.connected,
        error: done.failure.as_ref().map(|failure| failure.error.clone()),
        help: done.failure.as_ref().map(|failure| failure.help.clone()),
    }
}

fn table(rows: &[MachineDocument], dry_run: bool) -> String {
    let cells: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let server = row.server.then(|| "server".to_owned());
            let instance = row.instance.as_ref().map(|name| format!("instance {name}"));
            let parts: Vec<_> = server.into_iter().chain(instance).collect();
            let state = match (&row.error, row.connected) {
                (Some(_), _) => "failed",
                (None, _) if dry_run => "not changed",
                (None, Some(true)) => "connected",
                (None, Some(false)) => "not connected",
                (None, None) => "ok",
            };
            let changes = match (row.changes.len(), &row.error) {
                // The changes are unknown, because the machine could not be examined.
                (0, Some(_)) => "-".to_owned(),
                (0, None) => "nothing to change".to_owned(),
                (1, _) => "1 change".to_owned(),
                (count, _) => format!("{count} changes"),
            };
            [
                row.host.clone(),
                parts.join(", "),
                changes,
                state.to_owned(),
            ]
        })
        .collect();
    let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [host, parts, changes, state] in &cells {
        let [a, b, c] = widths;
        writeln!(text, "{host:a$}  {parts:b$}  {changes:c$}  {state}").expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_cannot_be_reached_has_failed_also_when_nothing_is_changed() {
        let row = |host: &str, error: Option<&str>| MachineDocument {
            host: host.to_owned(),
            server: false,
            instance: Some("a".to_owned()),
            changes: Vec::new(),
            connected: None,
            error: error.map(ToOwned::to_owned),
            help: None,
        };
        let rows = [row("one", None), row("two", Some("nothing answers"))];
        assert_eq!(
            table(&rows, true),
            "one  instance a  nothing to change  not changed\n\
             two  instance a  -                  failed\n"
        );
    }
}
