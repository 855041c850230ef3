//! Requests to agents beside the protocol: the agent dialled out, so a request goes down its
//! stream of directives and the response comes back as a POST.
//!
//! Each request has its own type, which names the type of its response. Requests are not kept: the
//! caller repeats one that is lost. That also keeps secrets, which travel this way, out of the kept
//! streams.

use crate::api::SlotLog;
use crate::doctor::{Expected, MachineReport};
use greenlight_protocol::ServiceName;
use greenlight_release::ports::{PortPair, RequestedAddresses};
use greenlight_release::secret::{RegistryLogin, Secrets};
use greenlight_release::spec::image::Pin;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The name of requests among server-sent events.
pub(super) const EVENT: &str = "request";

/// A request to an agent.
pub trait AgentRequest: Into<AnyRequest> {
    /// What an agent responds to it.
    type Response: Serialize + DeserializeOwned;
}

/// Asks what applications wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLogs {
    pub services: BTreeSet<ServiceName>,
    /// The last so many lines of each.
    pub lines: usize,
}

impl AgentRequest for ReadLogs {
    type Response = Vec<SlotLog>;
}

/// Asks for the digest to which an image's name resolves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinImage {
    pub image: String,
    /// Credentials for its registry.
    pub login: Option<RegistryLogin>,
}

impl AgentRequest for PinImage {
    type Response = Pin;
}

/// Hands over the secrets of releases that are to be deployed. A response says that they are on
/// disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSecrets {
    /// By service: its release's.
    pub releases: BTreeMap<ServiceName, ReleaseSecrets>,
}

impl AgentRequest for StoreSecrets {
    type Response = ();
}

/// The secrets of one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSecrets {
    pub digest: String,
    pub secrets: Secrets,
}

/// Says where the instance is to be reached, before a deployment to it. A response says that its
/// ports are on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAddresses {
    pub requested: RequestedAddresses,
}

impl AgentRequest for SetAddresses {
    /// By service: the ports of its slots.
    type Response = BTreeMap<ServiceName, PortPair>;
}

/// Asks what of its machine would spoil a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamineMachine {
    /// What the configuration file wants there, if there is one.
    pub expected: Option<Box<Expected>>,
}

impl AgentRequest for ExamineMachine {
    type Response = Box<MachineReport>;
}

/// Any request, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnyRequest {
    /// What applications wrote.
    ReadLogs(ReadLogs),
    /// The digest to which an image's name resolves.
    PinImage(PinImage),
    /// Secrets to be stored.
    StoreSecrets(StoreSecrets),
    /// Where the instance is to be reached.
    SetAddresses(SetAddresses),
    /// What of the machine would spoil a deployment.
    ExamineMachine(ExamineMachine),
}

impl From<ReadLogs> for AnyRequest {
    fn from(request: ReadLogs) -> Self {
        Self::ReadLogs(request)
    }
}

impl From<PinImage> for AnyRequest {
    fn from(request: PinImage) -> Self {
        Self::PinImage(request)
    }
}

impl From<StoreSecrets> for AnyRequest {
    fn from(request: StoreSecrets) -> Self {
        Self::StoreSecrets(request)
    }
}

impl From<SetAddresses> for AnyRequest {
    fn from(request: SetAddresses) -> Self {
        Self::SetAddresses(request)
    }
}

impl From<ExamineMachine> for AnyRequest {
    fn from(request: ExamineMachine) -> Self {
        Self::ExamineMachine(request)
    }
}

/// A request with its number, for the response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedRequest {
    pub number: u64,
    pub request: AnyRequest,
}

/// A response as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentResponse<T> {
    /// What was asked for.
    Done(T),
    /// The agent cannot do it, and says why.
    Failed(String),
}

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The agent is not connected, or did not answer in time.
    #[error("it is not connected, or did not answer in time")]
    NoResponse,
    /// The agent cannot do it.
    #[error("{0}")]
    Failed(String),
    /// The response is not what belongs to the request.
    #[error("its response cannot be read; use the same version of greenlight everywhere")]
    Unreadable(#[source] serde_json::Error),
}
