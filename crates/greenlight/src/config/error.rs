//! Why there is no configuration: the file cannot be read, or has faults, which are all shown.

use super::fault::Fault;
use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use std::fmt;
use std::path::PathBuf;

/// Why there is no configuration. `miette` shows it with file, line, caret and advice.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("there is no `{}`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there, and cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has faults.
    #[error(transparent)]
    Faulty(Box<Faults>),
}

impl ConfigError {
    /// The line of the first fault.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => None,
            Self::Faulty(faults) => {
                let before = faults.file.inner().get(..faults.first.offset())?;
                Some(before.matches('\n').count() + 1)
            }
        }
    }
}

/// A file and what is wrong with it. Shown as its first fault, with the others after it.
#[derive(Debug)]
pub struct Faults {
    file: NamedSource<String>,
    first: Fault,
    others: Vec<Fault>,
}

impl Faults {
    /// The faults of a text, in its order. `None` if there are none.
    pub(super) fn of(file: &str, text: &str, mut faults: Vec<Fault>) -> Option<Self> {
        // What is wrong first in the file is read first; the sort keeps ties in order.
        faults.sort_by_key(Fault::offset);
        let mut faults = faults.into_iter();
        Some(Self {
            file: NamedSource::new(file, text.to_owned()),
            first: faults.next()?,
            others: faults.collect(),
        })
    }

    /// All faults, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl Fault {
    /// The first byte that any of its labels points to.
    fn offset(&self) -> usize {
        self.labels()
            .into_iter()
            .flatten()
            .map(|label| label.offset())
            .last()
            .unwrap_or(0)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)
    }
}

impl std::error::Error for Faults {}

impl Diagnostic for ConfigError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match self {
            Self::Missing { .. } => Some(Box::new(
                "write one with `greenlight init`, or name another with `--file`",
            )),
            Self::Unreadable { .. } => None,
            Self::Faulty(faults) => faults.first.help(),
        }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => None,
            Self::Faulty(faults) => Some(&faults.file),
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => None,
            Self::Faulty(faults) => faults.first.labels(),
        }
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => None,
            Self::Faulty(faults) => Some(Box::new(
                faults.others.iter().map(|fault| fault as &dyn Diagnostic),
            )),
        }
    }
}
