//! The agent's responses to requests beside the protocol.

use crate::api::SlotLog;
use crate::doctor::{Expected, MachinePaths, MachineReport};
use crate::link::{AgentRequest, AgentResponse, NumberedRequest, ReleaseSecrets, ServerLink};
use crate::runtime::{Images, Runtime};
use crate::secret_store::SecretStore;
use greenlight_protocol::{Color, ServiceName, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Answers requests, beside the loop.
#[derive(Clone)]
pub(super) struct RequestHandler {
    pub(super) server: ServerLink,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) images: Arc<dyn Images>,
    pub(super) secrets: SecretStore,
    pub(super) machine: MachinePaths,
}

impl RequestHandler {
    pub(super) async fn answer(self, asked: NumberedRequest) {
        let answer = match asked.request {
            AgentRequest::Logs { services, lines } => {
                AgentResponse::Logs(self.logs(services, lines).await)
            }
            AgentRequest::Pin { image, login } => {
                match self.images.pin(&image, login.as_ref()).await {
                    Ok(pin) => AgentResponse::Pinned(pin),
                    Err(error) => AgentResponse::Failed(error.to_string()),
                }
            }
            AgentRequest::StoreSecrets { releases } => self.store_secrets(releases).await,
            AgentRequest::Doctor { expected } => {
                let server = self.server.clone();
                // It reads much of `/proc`: on a thread of its own, so that no hold waits for it.
                let here = tokio::runtime::Handle::current();
                let found = tokio::task::spawn_blocking(move || {
                    here.block_on(self.examine(expected.as_deref()))
                });
                let answer = match found.await {
                    Ok(found) => AgentResponse::Examined(Box::new(found)),
                    Err(error) => AgentResponse::Failed(error.to_string()),
                };
                return server.answer(asked.number, &answer).await;
            }
        };
        self.server.answer(asked.number, &answer).await;
    }

    /// What of this machine would spoil a deployment.
    async fn examine(&self, expected: Option<&Expected>) -> MachineReport {
        // A runtime that does not answer is found by its own check.
        let running = self.runtime.list().await.unwrap_or_default();
        self.machine.examine(expected, &running).await
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

    async fn store_secrets(
        &self,
        releases: BTreeMap<ServiceName, ReleaseSecrets>,
    ) -> AgentResponse {
        let store = self.secrets.clone();
        let stored = tokio::task::spawn_blocking(move || {
            releases.iter().try_for_each(|(service, release)| {
                store.store(service, &release.digest, &release.secrets)
            })
        });
        match stored.await {
            Ok(Ok(())) => AgentResponse::Stored,
            Ok(Err(error)) => AgentResponse::Failed(error.to_string()),
            Err(error) => AgentResponse::Failed(error.to_string()),
        }
    }
}
