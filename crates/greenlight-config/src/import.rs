//! `greenlight.yml` from what another tool reads: `docker-compose.yml`, or Kamal's `deploy.yml`.
//!
//! ```text
//!   text ──▶ Section ──compose, kamal──▶ Draft ──write──▶ greenlight.yml, with comments
//!                           │                                 ▲
//!                           └──────── UnsupportedKeys ────────┘  listed at its end
//! ```
//!
//! Nothing is dropped in silence: each key is taken, or listed with the reason. A file from the
//! real world is never clean, so a value of an odd shape is listed as well, and no error.
//!
//! Deliberately absent: examining machines, Docker or other files, and whatever the two
//! tools can do that is not about serving one web service from a fleet.

mod compose;
mod draft;
mod kamal;
mod scalar;
mod section;
mod traefik;
mod unsupported;
mod write;

#[cfg(test)]
mod tests;

pub use unsupported::{Unsupported, UnsupportedKeys};

use draft::Draft;
use serde_json::Value;
use std::fmt;

/// What is imported from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Docker Compose.
    Compose,
    /// Kamal 1 or 2.
    Kamal,
}

/// What became of a file.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The text of `greenlight.yml`.
    pub text: String,
    /// What could not be carried over; it is listed in the text as well.
    pub unsupported: Vec<Unsupported>,
}

/// Why nothing can be made of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It is no YAML.
    #[error("it cannot be read: {0}")]
    NotYaml(String),
    /// It is not a file of that tool.
    #[error("it has no `{0}`, which every file of {1} has")]
    NotThatTool(&'static str, Source),
    /// None of its services serves the web.
    #[error("none of its services publishes a port for the web")]
    NothingToServe,
    /// It has no service with the requested name.
    #[error("it has no service `{name}`; it has {known}")]
    NoSuchService {
        name: String,
        /// The names it has.
        known: String,
    },
}

impl Source {
    /// The usual paths of such a file, relative to the project; the first that exists counts.
    pub fn usual_files(self) -> &'static [&'static str] {
        match self {
            Self::Compose => &[
                "compose.yaml",
                "compose.yml",
                "docker-compose.yml",
                "docker-compose.yaml",
            ],
            Self::Kamal => &["config/deploy.yml"],
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compose => "Compose",
            Self::Kamal => "Kamal",
        })
    }
}

/// Makes a `greenlight.yml` of a file. `only` is the service that is wanted of several, or the name
/// that a file which does not name its service lacks. `unsupported keys` is what the caller knows
/// already that cannot be carried over.
pub fn import(
    source: Source,
    file: &str,
    text: &str,
    only: Option<&str>,
    unsupported: UnsupportedKeys,
) -> Result<Imported, ImportError> {
    let (draft, unsupported) = draft(source, text, only, unsupported)?;
    let text = write::write(
        &draft,
        &format!("--from {}", word(source)),
        file,
        unsupported.all(),
    );
    Ok(Imported {
        text,
        unsupported: unsupported.all().to_vec(),
    })
}

fn word(source: Source) -> &'static str {
    match source {
        Source::Compose => "compose",
        Source::Kamal => "kamal",
    }
}

fn draft(
    source: Source,
    text: &str,
    only: Option<&str>,
    mut unsupported: UnsupportedKeys,
) -> Result<(Draft, UnsupportedKeys), ImportError> {
    let draft = match source {
        Source::Compose => compose::draft(&read(text)?, only, &mut unsupported)?,
        Source::Kamal => {
            let text = kamal::without_ruby(text, &mut unsupported);
            kamal::draft(&read(&text)?, only, &mut unsupported)?
        }
    };
    Ok((draft, unsupported))
}

/// Anchors and merge keys are resolved by the parser.
fn read(text: &str) -> Result<Value, ImportError> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ImportError::NotYaml(error.without_snippet().to_string()))
}
