//! Why there is no configuration: the file cannot be read, or has diagnostics, which are all shown.

use super::diagnostic::Diagnostic;
use miette::{Diagnostic as _, LabeledSpan, NamedSource, SourceCode};
use std::fmt;
use std::path::PathBuf;

/// Why there is no configuration. `miette` shows it with file, line, caret and advice.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("there is no `{}`", path.display())]
    Missing { path: PathBuf },
    /// The file exists, and cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file has diagnostics.
    #[error(transparent)]
    Faulty(Box<Diagnostics>),
}

impl ConfigError {
    /// The line of the first diagnostic.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => None,
            Self::Faulty(diagnostics) => {
                let before = diagnostics.file.inner().get(..diagnostics.first.offset())?;
                Some(before.matches('\n').count() + 1)
            }
        }
    }
}

/// A file and its errors. It is shown as the first error, followed by the others.
#[derive(Debug)]
pub struct Diagnostics {
    file: NamedSource<String>,
    first: Diagnostic,
    others: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The diagnostics of a text, in its order. `None` if there are none.
    pub(super) fn of(file: &str, text: &str, mut diagnostics: Vec<Diagnostic>) -> Option<Self> {
        // Errors are shown in the order of the file; the sort is stable.
        diagnostics.sort_by_key(Diagnostic::offset);
        let mut diagnostics = diagnostics.into_iter();
        Some(Self {
            file: NamedSource::new(file, text.to_owned()),
            first: diagnostics.next()?,
            others: diagnostics.collect(),
        })
    }

    /// All diagnostics, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl Diagnostic {
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

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)
    }
}

impl std::error::Error for Diagnostics {}

impl miette::Diagnostic for ConfigError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        match self {
            Self::Missing { .. } => Some(Box::new(
                "write one with `greenlight init`, or name another with `--file`",
            )),
            Self::Unreadable { .. } => None,
            Self::Faulty(diagnostics) => diagnostics.first.help(),
        }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => None,
            Self::Faulty(diagnostics) => Some(&diagnostics.file),
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => None,
            Self::Faulty(diagnostics) => diagnostics.first.labels(),
        }
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => None,
            Self::Faulty(diagnostics) => Some(Box::new(
                diagnostics
                    .others
                    .iter()
                    .map(|diagnostic| diagnostic as &dyn miette::Diagnostic),
            )),
        }
    }
}
