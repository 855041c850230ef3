//! The agent's responses to requests beside the protocol.

use crate::addresses::{AddressError, Addresses};
use crate::bounded_logs::{MOST_LOGS, bound};
use crate::examine::MachinePaths;
use crate::runtime::{Images, Runtime};
use crate::secret_store::{SecretStore, SecretStoreError};
use greenlight_link::api::SlotLog;
use greenlight_link::doctor::{Expected, MachineReport};
use greenlight_link::{
    AgentRequest, AgentResponse, AnyRequest, ExamineMachine, NumberedRequest, PinImage, ReadLogs,
    ReleaseSecrets, ServerLink, SetAddresses, StoreSecrets,
};
use greenlight_protocol::{Color, ServiceName, Slot};
use greenlight_release::ports::{PortPair, RequestedAddresses};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

/// Answers requests, beside the loop.
#[derive(Clone)]
pub(super) struct RequestHandler {
    pub(super) server: ServerLink,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) images: Arc<dyn Images>,
    pub(super) secrets: SecretStore,
    pub(super) addresses: Addresses,
    pub(super) machine: MachinePaths,
}

/// Why secrets were not stored.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error(transparent)]
    Store(#[from] SecretStoreError),
    #[error(transparent)]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Why addresses were not taken.
#[derive(Debug, thiserror::Error)]
enum SetError {
    #[error(transparent)]
    Addresses(#[from] AddressError),
    #[error(transparent)]
    Interrupted(#[from] tokio::task::JoinError),
}

impl RequestHandler {
    pub(super) async fn answer(self, asked: NumberedRequest) {
        let number = asked.number;
        match asked.request {
            AnyRequest::ReadLogs(ReadLogs { services, lines }) => {
                let logs = self.logs(services, lines).await;
                self.respond::<ReadLogs, Infallible>(number, Ok(logs)).await;
            }
            AnyRequest::PinImage(PinImage { image, login }) => {
                let pinned = self.images.pin(&image, login.as_ref()).await;
                self.respond::<PinImage, _>(number, pinned).await;
            }
            AnyRequest::StoreSecrets(StoreSecrets { releases }) => {
                let stored = self.store_secrets(releases).await;
                self.respond::<StoreSecrets, _>(number, stored).await;
            }
            AnyRequest::SetAddresses(SetAddresses { requested }) => {
                let ports = self.set_addresses(requested).await;
                self.respond::<SetAddresses, _>(number, ports).await;
            }
            AnyRequest::ExamineMachine(ExamineMachine { expected }) => {
                let this = self.clone();
                // It reads much of `/proc`: on a thread of its own, so that no hold waits for it.
                let here = tokio::runtime::Handle::current();
                let found = tokio::task::spawn_blocking(move || {
                    here.block_on(this.examine(expected.as_deref()))
                });
                let found = found.await.map(Box::new);
                self.respond::<ExamineMachine, _>(number, found).await;
            }
        }
    }

    async fn respond<R: AgentRequest, E: Error>(
        &self,
        number: u64,
        result: Result<R::Response, E>,
    ) {
        let response = match result {
            Ok(done) => AgentResponse::Done(done),
            Err(error) => AgentResponse::Failed(error.to_string()),
        };
        self.server.respond(number, &response).await;
    }

    /// What of this machine would spoil a deployment.
    async fn examine(&self, expected: Option<&Expected>) -> MachineReport {
        // A runtime that does not answer is found by its own check.
        let running = self.runtime.list().await.unwrap_or_default();
        self.machine
            .examine(expected, &running, &self.addresses.all())
            .await
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
                        left_out: false,
                    });
                }
            }
        }
        bound(&mut logs, MOST_LOGS);
        logs
    }

    async fn set_addresses(
        &self,
        requested: RequestedAddresses,
    ) -> Result<BTreeMap<ServiceName, PortPair>, SetError> {
        let addresses = self.addresses.clone();
        let ports = tokio::task::spawn_blocking(move || addresses.request(requested));
        Ok(ports.await??)
    }

    async fn store_secrets(
        &self,
        releases: BTreeMap<ServiceName, ReleaseSecrets>,
    ) -> Result<(), StoreError> {
        let store = self.secrets.clone();
        let stored = tokio::task::spawn_blocking(move || {
            releases.iter().try_for_each(|(service, release)| {
                store.store(service, &release.digest, &release.secrets)
            })
        });
        Ok(stored.await??)
    }
}
