//! Under GitHub Actions: annotations where something went wrong, and the receipt as the job's
//! summary.
//!
//! Annotations go to standard error, which the runner reads as well: standard output is for data.

use crate::receipt::Receipt;
use greenlight_protocol::Outcome;
use std::io::Write as _;
use std::path::PathBuf;

/// A job of GitHub Actions, as its environment describes it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    summary: Option<PathBuf>,
}

impl Job {
    /// The job that this process runs in, if any.
    pub(super) fn current() -> Option<Self> {
        let is_one = std::env::var("GITHUB_ACTIONS").is_ok_and(|yes| yes == "true");
        is_one.then(|| Self {
            summary: std::env::var_os("GITHUB_STEP_SUMMARY").map(PathBuf::from),
        })
    }

    /// Tells the job how a deployment went.
    pub(super) fn report(&self, receipt: &Receipt) {
        for annotation in annotations(receipt) {
            eprintln!("{annotation}");
        }
        let Some(path) = &self.summary else { return };
        let mut options = std::fs::File::options();
        let file = options.append(true).create(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{}", receipt.summary()));
        if let Err(error) = written {
            // The deployment is what it is, whether or not the job can show it.
            eprintln!("warning: the job summary cannot be written: {error}");
        }
    }
}

/// One line for each instance that had trouble, and one for a deployment that did not go through.
fn annotations(receipt: &Receipt) -> Vec<String> {
    let mut lines = Vec::new();
    for cut_over in &receipt.cut_overs {
        for (name, instance) in &cut_over.instances {
            if let Some(trouble) = &instance.trouble {
                lines.push(annotation("error", &format!("instance {name}"), trouble));
            }
        }
        for check in cut_over.checks().iter().filter(|check| !check.holds) {
            lines.push(annotation("error", "not borne out", &check.claim));
        }
    }
    match &receipt.outcome {
        Some(Outcome::Promoted) => {}
        Some(outcome) => lines.push(annotation("error", "deployment", &outcome.to_string())),
        None => lines.push(annotation(
            "warning",
            "deployment",
            "its outcome is not known",
        )),
    }
    lines
}

/// A workflow command, as GitHub documents its escapes.
fn annotation(level: &str, title: &str, message: &str) -> String {
    let escape = |text: &str| {
        let text = text.replace('%', "%25");
        text.replace('\r', "%0D").replace('\n', "%0A")
    };
    let title = escape(&format!("greenlight: {title}"));
    let title = title.replace(':', "%3A").replace(',', "%2C");
    format!("::{level} title={title}::{}", escape(message))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_would_end_a_workflow_command_is_escaped() {
        assert_eq!(
            super::annotation("error", "a,b", "50%\nof it"),
            "::error title=greenlight%3A a%2Cb::50%25%0Aof it"
        );
    }
}
