//! The progress of the latest deployment so far, for whoever begins to follow it.
//!
//! The coordinator adds to it and readers copy it; neither asks the other.

use greenlight_link::api::NumberedEvent;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// More of one deployment is not kept: a follower who comes late needs its end.
const MOST: usize = 10_000;
/// An event that is among so many of the latest is repeated.
const REPEATED_WITHIN: usize = 64;

/// The progress of the latest deployment. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct ProgressLog(Arc<Mutex<VecDeque<Arc<NumberedEvent>>>>);

impl ProgressLog {
    /// Adds an event. What belongs to another deployment goes.
    pub(super) fn add(&self, event: Arc<NumberedEvent>) {
        let mut events = self.0.lock();
        let first = events.front();
        if first.is_some_and(|first| first.deployment != event.deployment) {
            events.clear();
        }
        if events.len() >= MOST {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Whether one of the latest events is like this.
    pub(super) fn repeats(&self, like: impl Fn(&NumberedEvent) -> bool) -> bool {
        let events = self.0.lock();
        let mut latest = events.iter().rev().take(REPEATED_WITHIN);
        latest.any(|event| like(event))
    }

    /// All of it.
    pub(super) fn read(&self) -> Vec<Arc<NumberedEvent>> {
        self.0.lock().iter().cloned().collect()
    }
}
