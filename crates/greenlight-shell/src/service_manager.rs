//! A role's messages to the service manager that started it (systemd's `sd_notify`), if one did.
//!
//! The watchdog is fed by what the role is for: its own loop must have turned since the last
//! time. A process that merely exists is started again.

use sd_notify::NotifyState;
use std::time::Duration;

/// The service manager that started this process.
#[derive(Clone, Copy, Debug)]
pub struct ServiceManager {
    /// Without a sign of life for this long, it ends the process.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The service manager from the environment; without one, messages go nowhere.
    pub fn found() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// This process does what it is for.
    pub fn ready(self) {
        tell(&[NotifyState::Ready]);
    }

    /// Reports that this process is ending on request.
    pub fn stopping(self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Another process does what this one was for.
    pub fn main_process_is(self, number: u32) {
        tell(&[NotifyState::MainPid(number)]);
    }

    /// Sends heartbeats as long as `alive` answers. Returns at once if the service manager has not asked for any.
    pub async fn watched<F, E>(self, mut alive: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), E>>,
    {
        let Some(watchdog) = self.watchdog else {
            return;
        };
        // Twice in a period, as systemd advises, and time to answer in each half.
        let pause = watchdog / 3;
        loop {
            tokio::time::sleep(pause).await;
            if let Ok(Ok(())) = tokio::time::timeout(pause, alive()).await {
                tell(&[NotifyState::Watchdog]);
            } else {
                tracing::warn!("the loop of this process stands still");
            }
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
