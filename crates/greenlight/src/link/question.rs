//! Questions to agents beside the protocol: the agent dialled out, so a question goes down its
//! stream of directives and the answer comes back as a POST.
//!
//! Questions are not kept: one that is lost is asked again by whoever still wants to know. That
//! also keeps secrets, which travel this way, out of the outboxes.

use super::outbox::Outboxes;
use crate::api::SlotLog;
use crate::doctor::{Examination, Wanted};
use crate::secret::{RegistryLogin, Secrets};
use crate::spec::image::Pin;
use bytes::Bytes;
use greenlight_protocol::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::oneshot;

/// The name of questions among server-sent events.
pub(super) const EVENT: &str = "question";

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What applications wrote.
    Logs {
        /// Whose output is wanted.
        services: BTreeSet<ServiceName>,
        /// The last so many lines of each.
        lines: usize,
    },
    /// What an image's name stands for.
    Pin {
        /// The name.
        image: String,
        /// Credentials for its registry.
        login: Option<RegistryLogin>,
    },
    /// Whether the secrets of releases to come are safely kept.
    Keep {
        /// By service: its release's.
        releases: BTreeMap<ServiceName, ReleaseSecrets>,
    },
    /// What of its machine would spoil a deployment.
    Doctor {
        /// What the configuration file wants there, if there is one.
        wanted: Option<Box<Wanted>>,
    },
}

/// The secrets of one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSecrets {
    /// The release's digest.
    pub digest: String,
    /// Its secrets.
    pub secrets: Secrets,
}

/// A question with its number, for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The number.
    pub number: u64,
    /// The question.
    pub question: Question,
}

/// What an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentAnswer {
    /// What applications wrote.
    Logs(Vec<SlotLog>),
    /// What the name stands for.
    Pinned(Pin),
    /// The secrets are on disk.
    Kept,
    /// What was found on the machine.
    Examined(Box<Examination>),
    /// It cannot be done.
    Failed(String),
}

/// Answers on their way.
#[derive(Default)]
pub(super) struct Waiting {
    next: u64,
    senders: BTreeMap<u64, (InstanceId, oneshot::Sender<AgentAnswer>)>,
}

impl Waiting {
    fn register(&mut self, agent: &InstanceId) -> (u64, oneshot::Receiver<AgentAnswer>) {
        let (sender, receiver) = oneshot::channel();
        self.next += 1;
        self.senders.insert(self.next, (agent.clone(), sender));
        // Whoever stopped waiting is forgotten here, so that the map cannot grow for ever.
        self.senders.retain(|_, (_, sender)| !sender.is_closed());
        (self.next, receiver)
    }

    pub(super) fn answered(&mut self, number: u64, from: &InstanceId, answer: AgentAnswer) {
        // Only whoever was asked can answer.
        if self
            .senders
            .get(&number)
            .is_none_or(|(asked, _)| asked != from)
        {
            return;
        }
        if let Some((_, sender)) = self.senders.remove(&number) {
            // The asker may have given up.
            let _ = sender.send(answer);
        }
    }
}

impl Outboxes {
    /// Asks these agents; `None` for one that does not answer within `patience`.
    pub async fn ask(
        &self,
        agents: BTreeSet<InstanceId>,
        question: &Question,
        patience: Duration,
    ) -> BTreeMap<InstanceId, Option<AgentAnswer>> {
        let asked = agents.into_iter().map(|agent| {
            let (number, answer) = self.waiting().register(&agent);
            let asked = Asked {
                number,
                question: question.clone(),
            };
            let json = serde_json::to_string(&asked).expect("questions serialise");
            let text = format!("event: {EVENT}\ndata: {json}\n\n");
            let sent = self.whisper(&agent, Bytes::from(text));
            (agent, sent.then_some(answer))
        });
        let asked: Vec<_> = asked.collect();
        let deadline = tokio::time::Instant::now() + patience;
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
