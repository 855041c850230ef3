//! Under GitHub Actions: annotations where something went wrong, the receipt as the job's summary,
//! and the step's outputs `deployment` and `outcome`.
//!
//! Annotations go to standard error, which the runner reads as well: standard output is for data.

use super::{Exit, Failure};
use greenlight_link::printable::lines;
use greenlight_link::receipt::{Receipt, Statement};
use greenlight_protocol::{DeploymentId, Outcome};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// GitHub shows ten annotations of a step and drops the rest.
const MOST_ANNOTATIONS: usize = 10;

/// The state of a deployment that continues without the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub(super) enum OngoingState {
    /// The command was killed before it could say more.
    Unknown,
    /// The deployment is on its way.
    GoingOn,
    /// It waits for `promote`.
    Ready,
}

/// The word in JSON and in the job's outputs.
impl From<OngoingState> for &'static str {
    fn from(state: OngoingState) -> Self {
        match state {
            OngoingState::Unknown => "unknown",
            OngoingState::GoingOn => "going_on",
            OngoingState::Ready => "ready",
        }
    }
}

/// A job of GitHub Actions, as its environment describes it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    summary: Option<PathBuf>,
    output: Option<PathBuf>,
}

impl Job {
    /// The job that this process runs in, if any.
    pub(super) fn current() -> Option<Self> {
        let is_one = std::env::var("GITHUB_ACTIONS").is_ok_and(|yes| yes == "true");
        let file = |name| std::env::var_os(name).map(PathBuf::from);
        is_one.then(|| Self {
            summary: file("GITHUB_STEP_SUMMARY"),
            output: file("GITHUB_OUTPUT"),
        })
    }

    /// Tells the job how a deployment ended, and whether that was what the command wanted.
    pub(super) fn report(&self, receipt: &Receipt, exit: Exit) {
        for annotation in annotations(receipt, exit) {
            eprintln!("{annotation}");
        }
        append(self.summary.as_deref(), &receipt.summary());
        self.set(Some(&receipt.deployment), word(receipt.outcome.as_ref()));
    }

    /// Tells the job that a deployment continues without the command.
    pub(super) fn report_ongoing(&self, deployment: &DeploymentId, state: OngoingState) {
        self.set(Some(&deployment.to_string()), state.into());
    }

    /// Tells the job that the command got no deployment to its end.
    pub(super) fn report_failure(&self, failure: &Failure) {
        let (error, help) = failure.texts();
        let text = match help {
            Some(help) => format!("{error}\nhelp: {help}"),
            None => error.to_owned(),
        };
        eprintln!("{}", annotation("error", "", &text));
        append(
            self.summary.as_deref(),
            &format!("### greenlight\n\n```text\n{text}\n```\n"),
        );
        let outcome = match failure.exit() {
            Exit::Refused => "refused",
            Exit::Unknown => "unknown",
            Exit::Usage => "usage",
            Exit::Done | Exit::Failed => "failed",
        };
        self.set(None, outcome);
    }

    fn set(&self, deployment: Option<&str>, outcome: &str) {
        let mut lines = String::new();
        if let Some(deployment) = deployment {
            writeln!(lines, "deployment={deployment}").expect("a string takes all");
        }
        write!(lines, "outcome={outcome}").expect("a string takes all");
        append(self.output.as_deref(), &lines);
    }
}

fn append(path: Option<&Path>, text: &str) {
    let Some(path) = path else { return };
    let mut options = std::fs::File::options();
    let file = options.append(true).create(true).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{text}"));
    if let Err(error) = written {
        // The deployment is what it is, whether or not the job can show it.
        let path = path.display();
        eprintln!("warning: the job's file `{path}` cannot be written: {error}");
    }
}

/// An outcome in the word of the receipt's JSON.
fn word(outcome: Option<&Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Promoted) => "promoted",
        Some(Outcome::Aborted { .. }) => "aborted",
        Some(Outcome::RolledBack { .. }) => "rolled_back",
        Some(Outcome::Stuck { .. }) => "stuck",
        None => "unknown",
    }
}

/// One line for a deployment that did not end as wanted, then one for each instance that had
/// trouble and each claim that is not borne out: what matters most is not what GitHub drops.
fn annotations(receipt: &Receipt, exit: Exit) -> Vec<String> {
    let mut lines = Vec::new();
    if exit != Exit::Done {
        let outcome = receipt.outcome.as_ref();
        let text = outcome.map_or_else(
            || "its outcome is not known".to_owned(),
            ToString::to_string,
        );
        lines.push(annotation("error", "deployment", &text));
    }
    let statement = Statement::of(receipt);
    let of_cut_overs = statement.cut_overs.iter().flat_map(|its| &its.claims);
    // That the outcome is not known has been said above.
    let of_the_whole = statement
        .claims
        .iter()
        .filter(|_| receipt.outcome.is_some());
    for check in of_cut_overs
        .chain(of_the_whole)
        .filter(|check| !check.holds)
    {
        let (title, claim) = match &check.missing {
            None => ("not borne out", check.claim.clone()),
            Some(missing) => ("not shown", format!("{}; missing: {missing}", check.claim)),
        };
        lines.push(annotation("error", title, &claim));
    }
    for cut_over in &receipt.cut_overs {
        for (name, instance) in &cut_over.instances {
            if let Some(problem) = &instance.problem {
                lines.push(annotation("error", &format!("instance {name}"), problem));
            }
        }
    }
    if lines.len() > MOST_ANNOTATIONS {
        let more = lines.len() - MOST_ANNOTATIONS + 1;
        lines.truncate(MOST_ANNOTATIONS - 1);
        let text = format!("{more} more; the job's summary has them all");
        lines.push(annotation("error", "", &text));
    }
    lines
}

/// A workflow command, as GitHub documents its escapes.
fn annotation(level: &str, title: &str, message: &str) -> String {
    let escape = |text: &str| {
        let text = lines(&text.replace('%', "%25"));
        text.replace('\n', "%0A")
    };
    let title = match title {
        "" => "greenlight".to_owned(),
        title => escape(&format!("greenlight: {title}")),
    };
    let title = title.replace(':', "%3A").replace(',', "%2C");
    format!("::{level} title={title}::{}", escape(message))
}

#[cfg(test)]
mod tests {
    use super::super::example::receipt;
    use super::*;

    #[test]
    fn what_would_end_a_workflow_command_is_escaped() {
        assert_eq!(
            annotation("error", "a,b", "50%\nof it"),
            "::error title=greenlight%3A a%2Cb::50%25%0Aof it"
        );
    }

    #[test]
    fn a_deployment_that_ended_as_wanted_is_no_error_whatever_its_outcome() {
        let reason = "asked for".to_owned();
        let called_off = receipt(Some(Outcome::Aborted { reason }));

        assert_eq!(annotations(&called_off, Exit::Done), [""; 0]);
        assert_eq!(annotations(&called_off, Exit::Failed).len(), 1);
        assert_eq!(annotations(&receipt(None), Exit::Unknown).len(), 1);
    }
}
