//! Health checks: ask an application over HTTP whether it is well, and remember its answers.
//!
//! While a release starts it is asked often, from every 100 ms backing off to every 500 ms, so
//! that a deployment is not rounded up to five seconds. Afterwards the check continues, at
//! the interval.

mod check;
mod http_probe;
mod tracker;

pub(crate) use check::{LINES_SHOWN, check_health};
pub use http_probe::{Probe, ProbeError};
pub use tracker::{HealthChange, HealthTracker};

use greenlight_release::health::HealthCheck;
use std::collections::VecDeque;

/// Answers kept for a person to read.
const ANSWERS_KEPT: usize = 5;

/// The last responses of an application's health check.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    last: VecDeque<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    text: String,
    /// Whether no process listened on the port.
    refused: bool,
}

impl Answers {
    /// Remembers an answer.
    pub fn push(&mut self, answer: &Result<u16, ProbeError>) {
        if self.last.len() == ANSWERS_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Answer {
            text: match answer {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            refused: matches!(answer, Err(ProbeError::Refused)),
        });
    }

    /// The last answers, the same ones in a row told once.
    fn counted(&self) -> Vec<String> {
        let answers: Vec<_> = self.last.iter().collect();
        let runs = answers.chunk_by(|one, next| one == next);
        let told = runs.map(|run| match run.len() {
            1 => run[0].text.clone(),
            times => format!("{} ({times} times)", run[0].text),
        });
        told.collect()
    }

    /// The last responses and the last lines that the application wrote, as text.
    pub fn explain(&self, check: &HealthCheck, log: &[String]) -> String {
        let mut text = format!("its check on `{}` does not pass", check.path);
        if !self.last.is_empty() {
            text = format!("{text}; last answers: {}", self.counted().join(", "));
        }
        if self.last.iter().all(|answer| answer.refused) && !self.last.is_empty() {
            text.push_str("; does it listen on the port in `PORT`, or a container on `app_port`?");
        }
        if !log.is_empty() {
            text = format!("{text}; last lines it wrote: {}", log.join(" | "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_answer_is_told_once_and_a_port_where_nobody_listens_gets_a_hint() {
        let check = HealthCheck::default();
        let mut answers = Answers::default();
        for _ in 0..7 {
            answers.push(&Err(ProbeError::Refused));
        }

        let refused = answers.explain(&check, &[]);
        assert!(
            refused.contains(": connection refused (5 times); "),
            "{refused}"
        );
        assert!(refused.contains("`PORT`"), "{refused}");

        answers.push(&Err(ProbeError::Status(500)));
        let told = answers.explain(&check, &["listening".to_owned()]);
        assert!(
            told.ends_with(": connection refused (4 times), 500; last lines it wrote: listening"),
            "{told}"
        );
    }
}
