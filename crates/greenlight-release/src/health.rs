//! How the health of an application is checked: the settings, as a release carries them.
//!
//! Deliberately absent: the checking itself, which is the agent's.

use serde::{Deserialize, Serialize};
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
