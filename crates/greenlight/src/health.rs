//! Health checks: ask an application over HTTP whether it is well, and remember its answers.
//!
//! While a release starts it is asked often, from every 100 ms backing off to every 500 ms, so
//! that a deployment is not rounded up to five seconds. Afterwards the check goes on for life, at
//! the interval.

mod probe;
mod pulse;

pub use probe::Probe;
pub use pulse::{Pulse, Turn};

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// How an application's health is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The path asked for.
    pub path: String,
    /// The `Host` sent; the address if none.
    pub host: Option<String>,
    /// The steady rhythm.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Statuses that count as well: inclusive ranges.
    pub statuses: Vec<(u16, u16)>,
    /// Passes in a row that make it ready.
    pub successes: u32,
    /// Failures in a row that make it unhealthy.
    pub failures: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/up".to_owned(),
            host: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            statuses: vec![(200, 299)],
            successes: 2,
            failures: 3,
        }
    }
}

/// Answers kept for a person to read.
const ANSWERS_KEPT: usize = 5;

/// What an application answered lately.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    last: VecDeque<String>,
}

impl Answers {
    /// Remembers an answer.
    pub fn push(&mut self, answer: String) {
        if self.last.len() == ANSWERS_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(answer);
    }

    /// The last answers and the last lines that the application wrote, in words.
    pub fn explain(&self, check: &HealthCheck, log: &[String]) -> String {
        let mut text = format!("its check on `{}` does not pass", check.path);
        if !self.last.is_empty() {
            let answers: Vec<_> = self.last.iter().map(String::as_str).collect();
            text = format!("{text}; last answers: {}", answers.join(", "));
        }
        if !log.is_empty() {
            text = format!("{text}; last lines it wrote: {}", log.join(" | "));
        }
        text
    }
}
