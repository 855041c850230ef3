//! The sources of secret values for the deploy command: the environment, a file, or a command.

use greenlight_release::secret::SecretValue;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The environment variable of this name, where `greenlight` is started.
    Environment(String),
    /// A file; one newline at its end does not belong to the value.
    File(PathBuf),
    /// What a program prints; one newline at its end does not belong to the value.
    Command(Vec<String>),
}

/// Why a secret's value is not available. No message contains any of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("the secret `{name}` cannot be read: {reason}")]
pub struct SecretError {
    /// The secret's name.
    pub name: String,
    pub reason: String,
    /// What to do.
    #[help]
    pub help: String,
}

impl SecretSource {
    /// Reads the value for the secret `name`. Relative paths begin at `home`, and commands run
    /// there; `lookup` is the environment.
    pub fn read(
        &self,
        name: &str,
        home: &Path,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<SecretValue, SecretError> {
        let failed = |reason: String, help: &str| SecretError {
            name: name.to_owned(),
            reason,
            help: help.to_owned(),
        };
        match self {
            Self::Environment(variable) => {
                lookup(variable).map(SecretValue::new).ok_or_else(|| {
                    failed(
                        format!("the environment has no `{variable}`"),
                        "set it where `greenlight` is started, for example from your secret store",
                    )
                })
            }
            Self::File(path) => {
                let path = home.join(path);
                let bytes = std::fs::read(&path).map_err(|error| {
                    let reason = format!("`{}`: {error}", path.display());
                    failed(reason, "give the file, or another source in `env.secret`")
                })?;
                value(bytes).ok_or_else(|| {
                    let reason = format!("`{}` is not text", path.display());
                    failed(reason, "an environment variable can hold text only")
                })
            }
            Self::Command(words) => {
                let (program, arguments) = words
                    .split_first()
                    .ok_or_else(|| failed("its command is empty".to_owned(), "name a program"))?;
                // Its standard error goes to the person who waits for it.
                let output = Command::new(program)
                    .args(arguments)
                    .current_dir(home)
                    .stdin(Stdio::inherit())
                    .stderr(Stdio::inherit())
                    .output()
                    .map_err(|error| {
                        let reason = format!("`{program}`: {error}");
                        failed(reason, "check the `command` of this secret in `env.secret`")
                    })?;
                if !output.status.success() {
                    let reason = format!("`{program}` ended with {}", output.status);
                    return Err(failed(
                        reason,
                        "run the command by hand to see what it lacks",
                    ));
                }
                value(output.stdout).ok_or_else(|| {
                    let reason = format!("what `{program}` prints is not text");
                    failed(reason, "an environment variable can hold text only")
                })
            }
        }
    }
}

/// Bytes as an environment variable may hold them.
fn value(bytes: Vec<u8>) -> Option<SecretValue> {
    let text = String::from_utf8(bytes).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    (!text.contains('\0')).then(|| SecretValue::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_gives_its_value_without_the_last_newline() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("token"), "from a file\n").expect("a good disk");
        let read = |source: SecretSource| {
            let value = source.read("TOKEN", dir.path(), |name| {
                (name == "TOKEN").then(|| "from the environment".to_owned())
            });
            value.expect("it is there").expose().to_owned()
        };

        let environment = read(SecretSource::Environment("TOKEN".to_owned()));
        let file = read(SecretSource::File("token".into()));
        let command = ["sh", "-c", "echo from a command"].map(ToOwned::to_owned);
        let command = read(SecretSource::Command(command.to_vec()));

        assert_eq!(environment, "from the environment");
        assert_eq!(file, "from a file");
        assert_eq!(command, "from a command");
    }

    #[test]
    fn a_source_that_fails_is_named_and_what_it_printed_is_not_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let failure = |source: SecretSource| {
            let read = source.read("TOKEN", dir.path(), |_| None);
            read.expect_err("it fails").to_string()
        };
        let command = ["sh", "-c", "echo hunter2; exit 3"].map(ToOwned::to_owned);

        let environment = failure(SecretSource::Environment("OTHER".to_owned()));
        let file = failure(SecretSource::File("nowhere".into()));
        let command = failure(SecretSource::Command(command.to_vec()));

        assert!(environment.contains("`TOKEN`") && environment.contains("`OTHER`"));
        assert!(file.contains("nowhere"), "{file}");
        assert!(command.contains("exit status: 3"), "{command}");
        assert!(!command.contains("hunter2"), "{command}");
    }
}
