//! The agent's answers to what is asked beside the protocol.

use crate::api::SlotLog;
use crate::doctor::{Examination, Machine, Wanted};
use crate::link::{AgentAnswer, Asked, Dial, Question, ReleaseSecrets};
use crate::runtime::{Images, Runtime};
use crate::secret::SecretKeep;
use greenlight_protocol::{Color, ServiceName, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Answers questions, beside the loop.
#[derive(Clone)]
pub(super) struct Answerer {
    pub(super) dial: Dial,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) images: Arc<dyn Images>,
    pub(super) secrets: SecretKeep,
    pub(super) machine: Machine,
}

impl Answerer {
    pub(super) async fn answer(self, asked: Asked) {
        let answer = match asked.question {
            Question::Logs { services, lines } => {
                AgentAnswer::Logs(self.logs(services, lines).await)
            }
            Question::Pin { image, login } => match self.images.pin(&image, login.as_ref()).await {
                Ok(pin) => AgentAnswer::Pinned(pin),
                Err(error) => AgentAnswer::Failed(error.to_string()),
            },
            Question::Keep { releases } => self.keep(releases).await,
            Question::Doctor { wanted } => {
                let dial = self.dial.clone();
                // It reads much of `/proc`: on a thread of its own, so that no hold waits for it.
                let here = tokio::runtime::Handle::current();
                let found = tokio::task::spawn_blocking(move || {
                    here.block_on(self.examine(wanted.as_deref()))
                });
                let answer = match found.await {
                    Ok(found) => AgentAnswer::Examined(Box::new(found)),
                    Err(error) => AgentAnswer::Failed(error.to_string()),
                };
                return dial.answer(asked.number, &answer).await;
            }
        };
        self.dial.answer(asked.number, &answer).await;
    }

    /// What of this machine would spoil a deployment.
    async fn examine(&self, wanted: Option<&Wanted>) -> Examination {
        // A runtime that does not answer is found by its own check.
        let running = self.runtime.list().await.unwrap_or_default();
        self.machine.examine(wanted, &running).await
    }

    /// What the applications of the services wrote.
    async fn logs(&self, services: BTreeSet<ServiceName>, lines: usize) -> Vec<SlotLog> {
        let mut logs = Vec::new();
        for service in services {
            for color in [Color::Blue, Color::Green] {
                let slot = Slot {
                    service: service.clone(),
                    color,
                };
                let lines = self.runtime.logs(&slot, lines).await;
                if !lines.is_empty() {
                    logs.push(SlotLog {
                        service: service.clone(),
                        color,
                        lines,
                    });
                }
            }
        }
        logs
    }

    async fn keep(&self, releases: BTreeMap<ServiceName, ReleaseSecrets>) -> AgentAnswer {
        let keep = self.secrets.clone();
        let stored = tokio::task::spawn_blocking(move || {
            releases.iter().try_for_each(|(service, release)| {
                keep.store(service, &release.digest, &release.secrets)
            })
        });
        match stored.await {
            Ok(Ok(())) => AgentAnswer::Kept,
            Ok(Err(error)) => AgentAnswer::Failed(error.to_string()),
            Err(error) => AgentAnswer::Failed(error.to_string()),
        }
    }
}
