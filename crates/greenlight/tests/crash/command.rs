//! A command that runs beside the test, and what it says.

use super::fleet::{LOOK_EVERY, TEST_TIMEOUT};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A `greenlight deploy` that runs, and what it says on standard error.
pub(crate) struct Deploy {
    pub(crate) version: String,
    child: Child,
    said: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` if it was killed.
    pub(crate) code: Option<i32>,
    /// What it said on standard error.
    pub(crate) said: String,
}

impl Deploy {
    /// Starts to deploy a release with this label, as a person would, with these arguments.
    pub(crate) fn start(program: &str, version: &str, arguments: &[&str]) -> Self {
        let said = tempfile::NamedTempFile::new().expect("a file");
        let (file, said) = said.keep().expect("it can be kept");
        let child = Command::new(program)
            .args(["deploy", "--version", version, "--json"])
            .args(arguments)
            .env("USER", "a person")
            .env_remove("GITHUB_ACTIONS")
            .env_remove("GITHUB_ACTOR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the binary runs");
        Self {
            version: version.to_owned(),
            child,
            said,
        }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.said).expect("its standard error")
    }

    /// Waits until it has said something; gives up when it has ended without.
    pub(crate) async fn says(&mut self, text: &str) -> bool {
        while !self.said().contains(text) {
            if self.child.try_wait().expect("it is a child").is_some() {
                return self.said().contains(text);
            }
            tokio::time::sleep(LOOK_EVERY / 5).await;
        }
        true
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is a child");
        self.child.wait().expect("it is a child");
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let code = self.code().await;
        let said = self.said();
        Ended { code, said }
    }

    /// Waits for its end, and returns the exit code; `None` if it was killed.
    pub(crate) async fn code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status.code();
            }
            let said = || self.said();
            assert!(Instant::now() < deadline, "it does not end: {}", said());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Deploy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.said);
    }
}
