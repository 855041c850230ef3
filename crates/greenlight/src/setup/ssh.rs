//! One machine, reached with the system's `ssh`: the user's configuration, agent and known hosts
//! apply, and it never asks for anything.

use greenlight_config::SshConfig;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Seconds until a machine counts as unreachable.
const CONNECT_TIMEOUT: u32 = 10;
/// What `ssh` exits with when the connection failed, and not the command.
const NO_CONNECTION: i32 = 255;

/// A machine, and how to reach it.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Its name or address, as an argument of `ssh`.
    pub host: String,
    ssh: SshConfig,
}

/// What a script reads.
#[derive(Clone, Debug)]
pub enum Input {
    Nothing,
    /// A text that must not be seen among the arguments.
    Text(String),
    /// A file from here.
    File(PathBuf),
}

/// Why a script did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// There is no `ssh` here.
    #[error("`ssh` cannot be run: {0}")]
    NoSsh(std::io::Error),
    /// The machine was not reached.
    #[error("it cannot be reached with `{command}`: {said}")]
    Unreachable {
        /// The command to try by hand.
        command: String,
        /// The output of `ssh`.
        said: String,
    },
    /// The script failed there.
    #[error("{said}")]
    Failed { said: String },
}

impl RemoteError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::NoSsh(_) => "install the OpenSSH client".to_owned(),
            Self::Unreachable { said, .. } => {
                let what = if said.contains("Host key verification failed") {
                    "connect once by hand and check its key, so that it becomes a known host"
                } else if said.contains("Permission denied") {
                    "load a key that it accepts into your agent, or name one in \
                     `setup.ssh.identity`"
                } else {
                    "check that the machine is up, and that `setup.ssh` and its address are right"
                };
                format!("{what}; then run `greenlight setup` again; it continues from here")
            }
            Self::Failed { said } if said.contains("sudo:") => {
                "let the user run `sudo` without a password, or log in as root with \
                 `setup.ssh.user`"
                    .to_owned()
            }
            Self::Failed { .. } => {
                "correct that there, and run `greenlight setup` again; it continues from here"
                    .to_owned()
            }
        }
    }
}

impl Remote {
    /// A machine that is reached as the configuration says.
    pub fn new(host: String, ssh: SshConfig) -> Self {
        Self { host, ssh }
    }

    /// Runs a script of POSIX shell there as root; what it printed.
    pub async fn run(&self, script: &str, input: Input) -> Result<String, RemoteError> {
        let quoted = shlex::try_quote(script).expect("scripts have no zero bytes");
        let command = format!(
            "if [ \"$(id -u)\" = 0 ]; then exec sh -euc {quoted}; \
             else exec sudo -n sh -euc {quoted}; fi"
        );
        let mut ssh = Command::new("ssh");
        ssh.args(self.arguments()).arg("--").arg(&self.host);
        ssh.arg(command).kill_on_drop(true);
        ssh.stdout(Stdio::piped()).stderr(Stdio::piped());
        let text = match input {
            Input::Nothing => {
                ssh.stdin(Stdio::null());
                None
            }
            Input::Text(text) => {
                ssh.stdin(Stdio::piped());
                Some(text)
            }
            Input::File(path) => {
                let file = std::fs::File::open(&path).map_err(|error| RemoteError::Failed {
                    said: format!("`{}`: {error}", path.display()),
                })?;
                ssh.stdin(file);
                None
            }
        };
        let mut child = ssh.spawn().map_err(RemoteError::NoSsh)?;
        if let (Some(text), Some(mut stdin)) = (text, child.stdin.take()) {
            // If the script does not read its input, its output is the reason.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(RemoteError::NoSsh)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.code() == Some(NO_CONNECTION) {
            let arguments = self.arguments().join(" ");
            let command = format!("ssh {arguments} {}", self.host);
            return Err(RemoteError::Unreachable { command, said });
        }
        Err(RemoteError::Failed { said })
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-o".to_owned(), "BatchMode=yes".to_owned()];
        for option in &self.ssh.options {
            arguments.extend(["-o".to_owned(), option.clone()]);
        }
        // Of an option that is given twice, `ssh` takes the first: the user's own wins.
        let timeout = format!("ConnectTimeout={CONNECT_TIMEOUT}");
        arguments.extend(["-o".to_owned(), timeout]);
        if let Some(user) = &self.ssh.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.ssh.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(identity) = &self.ssh.identity {
            arguments.extend(["-i".to_owned(), at_home(identity)]);
        }
        arguments
    }
}

/// No shell reads the arguments here, so `~` is replaced as one would.
fn at_home(path: &str) -> String {
    match (path.strip_prefix("~/"), std::env::var("HOME")) {
        (Some(rest), Ok(home)) => format!("{home}/{rest}"),
        (_, _) => path.to_owned(),
    }
}
