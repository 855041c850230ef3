//! Files generated from the program's own types: schema, completions, manual pages.

use super::args::{Cli, Completions, Man};
use super::{Exit, Failure, print, print_json};
use clap::CommandFactory as _;

/// `greenlight schema`.
pub(super) fn schema() -> Result<Exit, Failure> {
    print_json(&greenlight_config::schema())?;
    Ok(Exit::Done)
}

/// `greenlight completions`.
pub(super) fn completions(args: &Completions) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "greenlight", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

/// `greenlight man`.
pub(super) fn man(args: &Man) -> Result<Exit, Failure> {
    let written = std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.dir));
    written.map_err(|error| {
        let error = format!("cannot write to `{}`: {error}", args.dir.display());
        Failure::new(Exit::Failed, error).help("name a folder that can be written")
    })?;
    eprintln!(
        "written; `man -l {}/greenlight.1` shows the first",
        args.dir.display()
    );
    Ok(Exit::Done)
}
