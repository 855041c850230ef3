//! Requests to agents beside the protocol: the agent dialled out, so a request goes down its
//! stream of directives and the answer comes back as a POST.
//!
//! Requests are not kept: the caller repeats one that is lost. That
//! also keeps secrets, which travel this way, out of the kept streams.

use super::agent_streams::AgentStreams;
use crate::api::SlotLog;
use crate::doctor::{Expected, MachineReport};
use bytes::Bytes;
use greenlight_protocol::{InstanceId, ServiceName};
use greenlight_release::secret::{RegistryLogin, Secrets};
use greenlight_release::spec::image::Pin;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::oneshot;

/// The name of requests among server-sent events.
pub(super) const EVENT: &str = "request";

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentRequest {
    /// What applications wrote.
    Logs {
        /// The services whose output is wanted.
        services: BTreeSet<ServiceName>,
        /// The last so many lines of each.
        lines: usize,
    },
    /// The digest to which an image's name resolves.
    Pin {
        image: String,
        /// Credentials for its registry.
        login: Option<RegistryLogin>,
    },
    /// Whether the secrets of releases to come are safely kept.
    StoreSecrets {
        /// By service: its release's.
        releases: BTreeMap<ServiceName, ReleaseSecrets>,
    },
    /// What of its machine would spoil a deployment.
    Doctor {
        /// What the configuration file wants there, if there is one.
        expected: Option<Box<Expected>>,
    },
}

/// The secrets of one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSecrets {
    pub digest: String,
    pub secrets: Secrets,
}

/// A request with its number, for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedRequest {
    pub number: u64,
    pub request: AgentRequest,
}

/// What an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentResponse {
    /// What applications wrote.
    Logs(Vec<SlotLog>),
    /// The digest to which the name resolves.
    Pinned(Pin),
    /// The secrets are on disk.
    Stored,
    /// What was found on the machine.
    Examined(Box<MachineReport>),
    /// It cannot be done.
    Failed(String),
}

/// Answers on their way.
#[derive(Default)]
pub(super) struct Waiting {
    next: u64,
    senders: BTreeMap<u64, (InstanceId, oneshot::Sender<AgentResponse>)>,
}

impl Waiting {
    fn register(&mut self, agent: &InstanceId) -> (u64, oneshot::Receiver<AgentResponse>) {
        let (sender, receiver) = oneshot::channel();
        self.next += 1;
        self.senders.insert(self.next, (agent.clone(), sender));
        // Callers that stopped waiting are removed, so that the map cannot grow without limit.
        self.senders.retain(|_, (_, sender)| !sender.is_closed());
        (self.next, receiver)
    }

    pub(super) fn answered(&mut self, number: u64, from: &InstanceId, answer: AgentResponse) {
        // Only the agent that was asked can answer.
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

impl AgentStreams {
    /// Asks these agents; `None` for one that does not answer within `timeout`.
    pub async fn ask(
        &self,
        agents: BTreeSet<InstanceId>,
        request: &AgentRequest,
        timeout: Duration,
    ) -> BTreeMap<InstanceId, Option<AgentResponse>> {
        let asked = agents.into_iter().map(|agent| {
            let (number, answer) = self.waiting().register(&agent);
            let asked = NumberedRequest {
                number,
                request: request.clone(),
            };
            let json = serde_json::to_string(&asked).expect("requests serialise");
            let text = format!("event: {EVENT}\ndata: {json}\n\n");
            let sent = self.send_ephemeral(&agent, Bytes::from(text));
            (agent, sent.then_some(answer))
        });
        let asked: Vec<_> = asked.collect();
        let deadline = tokio::time::Instant::now() + timeout;
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
