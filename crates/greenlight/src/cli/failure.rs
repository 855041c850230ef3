//! Why a command failed: what is wrong, what to do next, and the exit code.

use super::Exit;
use greenlight_config::ConfigError;
use greenlight_link::printable::lines;
use greenlight_link::{ApiError, HttpsError};
use greenlight_release::spec::VersionError;
use hyper::StatusCode;
use serde::Serialize;
use std::fmt;

/// A command's failure, for a person and for a script.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: String,
    help: Option<String>,
    /// A report that shows a place in a file, in place of the two texts.
    report: Option<miette::Report>,
}

/// The same as `--json` prints it.
#[derive(Serialize)]
struct FailureDocument<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

impl Failure {
    /// A failure that says what is wrong.
    pub fn new(exit: Exit, error: impl fmt::Display) -> Self {
        Self {
            exit,
            error: error.to_string(),
            help: None,
            report: None,
        }
    }

    /// The same, saying also what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What is wrong, and what to do next.
    pub(super) fn texts(&self) -> (&str, Option<&str>) {
        (&self.error, self.help.as_deref())
    }

    /// Shows it to the person, and with `json` to the script as well.
    pub fn show(&self, json: super::Output) {
        match &self.report {
            Some(report) => eprintln!("{report:?}"),
            None => eprint!("{self}"),
        }
        if json == super::Output::Json {
            self.print_json();
        }
    }

    /// Prints it for the script alone.
    pub(super) fn print_json(&self) {
        let document = FailureDocument {
            error: &self.error,
            help: self.help.as_deref(),
        };
        // It has failed already.
        let _ = super::print_json(&document);
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A server or an agent may tell in it what an application wrote.
        writeln!(f, "error: {}", lines(&self.error))?;
        match &self.help {
            Some(help) => writeln!(f, "help: {}", lines(help)),
            None => Ok(()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let place = error.line().map(|line| format!(" (line {line})"));
        let message = format!("{error}{}", place.unwrap_or_default());
        let help = miette::Diagnostic::help(&error).map(|help| help.to_string());
        let report = miette::Report::new(error);
        Self {
            exit: Exit::Usage,
            error: message,
            help,
            report: Some(report),
        }
    }
}

/// The arguments are wrong. Clap's text says why, and after an empty line what to do.
impl From<&clap::Error> for Failure {
    fn from(error: &clap::Error) -> Self {
        let text = error.to_string();
        let text = text.trim_start_matches("error: ").trim_end();
        match text.split_once("\n\n") {
            Some((error, help)) => Self::new(Exit::Usage, error).help(help.trim_start()),
            None => Self::new(Exit::Usage, text),
        }
    }
}

impl From<VersionError> for Failure {
    fn from(error: VersionError) -> Self {
        Self::new(Exit::Usage, error).help(VersionError::HELP)
    }
}

impl From<greenlight_config::secret_source::SecretError> for Failure {
    fn from(error: greenlight_config::secret_source::SecretError) -> Self {
        Self::new(Exit::Usage, &error).help(error.help)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::NoCredentials(dir) => Self::new(
                Exit::Usage,
                format!("there is no fleet at `{}`", dir.display()),
            )
            .help(
                "start one on this machine with `greenlight up`, install one on others with \
                 `greenlight setup`, or say with `--fleet` where its credentials are",
            ),
            ApiError::Credentials(error) => Self::new(Exit::Usage, error)
                .help("say with `--fleet` where the fleet's credentials are"),
            ApiError::Unreachable(error @ HttpsError::Refused(_)) => Self::new(
                Exit::Failed,
                format!("the server cannot be reached: {error}"),
            )
            .help(
                "nothing was asked of it; is it running? `systemctl status greenlight-server` on \
                 its machine shows that, and `greenlight up` starts one here",
            ),
            ApiError::Unreachable(error) => Self::new(Exit::Unknown, error).help(
                "the request may have arrived; `greenlight status` shows the state of the fleet",
            ),
            ApiError::Refused {
                status,
                error,
                help,
            } => {
                let exit = match status {
                    StatusCode::BAD_REQUEST => Exit::Usage,
                    StatusCode::CONFLICT => Exit::Refused,
                    StatusCode::SERVICE_UNAVAILABLE => Exit::Unknown,
                    _ => Exit::Failed,
                };
                Self::new(exit, error).help(help)
            }
            error @ ApiError::Unreadable(_) => Self::new(Exit::Unknown, error)
                .help("use the same version of `greenlight` here and on the server"),
        }
    }
}
