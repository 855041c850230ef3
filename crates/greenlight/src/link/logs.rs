//! What applications wrote, asked over the link: the agent dialled out, so the question goes down
//! its stream of directives and the answer comes back as a POST.
//!
//! Not part of the protocol: a lost question is a missing answer on someone's screen.

use super::outbox::Outboxes;
use crate::api::SlotLog;
use bytes::Bytes;
use greenlight_protocol::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::oneshot;

/// The name of the question among server-sent events.
pub(super) const EVENT: &str = "logs";
/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsQuestion {
    /// Its number, for the answer.
    pub number: u64,
    /// Whose output is wanted.
    pub services: BTreeSet<ServiceName>,
    /// The last so many lines of each.
    pub lines: usize,
}

/// Answers on their way.
#[derive(Default)]
pub(super) struct Waiting {
    next: u64,
    senders: BTreeMap<u64, oneshot::Sender<Vec<SlotLog>>>,
}

impl Waiting {
    fn register(&mut self) -> (u64, oneshot::Receiver<Vec<SlotLog>>) {
        let (sender, receiver) = oneshot::channel();
        self.next += 1;
        self.senders.insert(self.next, sender);
        // Whoever stopped waiting is forgotten here, so that the map cannot grow for ever.
        self.senders.retain(|_, sender| !sender.is_closed());
        (self.next, receiver)
    }

    pub(super) fn answered(&mut self, number: u64, logs: Vec<SlotLog>) {
        if let Some(sender) = self.senders.remove(&number) {
            // The asker may have given up.
            let _ = sender.send(logs);
        }
    }
}

impl Outboxes {
    /// Asks these agents; `None` for one that does not answer.
    pub async fn logs(
        &self,
        agents: BTreeSet<InstanceId>,
        services: &BTreeSet<ServiceName>,
        lines: usize,
    ) -> BTreeMap<InstanceId, Option<Vec<SlotLog>>> {
        let asked = agents.into_iter().map(|agent| {
            let (number, answer) = self.waiting().register();
            let question = LogsQuestion {
                number,
                services: services.clone(),
                lines,
            };
            let json = serde_json::to_string(&question).expect("questions serialise");
            let text = format!("event: {EVENT}\ndata: {json}\n\n");
            let sent = self.whisper(&agent, Bytes::from(text));
            (agent, sent.then_some(answer))
        });
        let asked: Vec<_> = asked.collect();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut answers = BTreeMap::new();
        for (agent, answer) in asked {
            let answer = match answer {
                Some(answer) => tokio::time::timeout_at(deadline, answer).await.ok(),
                None => None,
            };
            answers.insert(agent, answer.and_then(Result::ok));
        }
        answers
    }
}
