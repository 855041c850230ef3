//! The built-in proxy as a front: what an agent asks of its gate goes to the proxy's admin socket.

use super::{Acted, Front, FrontError, SlotAddresses};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_admin::{AdminClient, AdminError, DrainRequest, EvidenceRequest, ServiceSettings};
use greenlight_protocol::agent::GateRequest;
use greenlight_protocol::{DrainEvidence, Epoch, GateAction, GateEvidence, ServiceName, Slot};
use greenlight_release::spec::ServiceSpec;
use greenlight_shell::clock::millis;
use std::path::PathBuf;
use std::time::Duration;

/// The built-in proxy, reached on its admin socket.
#[derive(Clone, Debug)]
pub struct BuiltinFront {
    admin: AdminClient,
}

impl BuiltinFront {
    /// The proxy whose admin socket is at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            admin: AdminClient::new(path),
        }
    }
}

impl Front for BuiltinFront {
    fn define<'a>(
        &'a self,
        service: &'a ServiceName,
        spec: &'a ServiceSpec,
        addresses: SlotAddresses,
    ) -> BoxFuture<'a, Result<(), FrontError>> {
        let settings = ServiceSettings {
            hosts: spec.hosts.clone(),
            path_prefix: spec.path_prefix.clone(),
            blue: addresses.blue.to_string(),
            green: addresses.green.to_string(),
            request_timeout_ms: millis(spec.request_timeout),
        };
        async move { Ok(self.admin.define(&service.0, &settings).await?) }.boxed()
    }

    fn act(&self, action: GateAction) -> BoxFuture<'static, Result<Acted, FrontError>> {
        let admin = self.admin.clone();
        async move {
            Ok(match action.request() {
                GateRequest::Hold(request) => Acted::Held(admin.hold(&request).await?.into()),
                GateRequest::Open(request) => Acted::Opened(admin.open(&request).await?.into()),
                GateRequest::Park(request) => {
                    admin.park(&request).await?;
                    Acted::Parked
                }
            })
        }
        .boxed()
    }

    fn drain(
        &self,
        slot: Slot,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<DrainEvidence, FrontError>> {
        let admin = self.admin.clone();
        async move {
            let request = DrainRequest {
                service: slot.service.0,
                color: slot.color,
                deadline_ms: millis(deadline),
            };
            let left = admin.drain(&request).await?.left;
            Ok(DrainEvidence {
                requests: left.requests,
                streams: left.streams,
                upgrades: left.upgrades,
            })
        }
        .boxed()
    }

    fn evidence(&self, epoch: Epoch) -> BoxFuture<'static, Result<GateEvidence, FrontError>> {
        let admin = self.admin.clone();
        async move { Ok(admin.evidence(epoch.0).await?.into()) }.boxed()
    }

    fn evidence_after_first_requests(
        &self,
        epoch: Epoch,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<GateEvidence, FrontError>> {
        let admin = self.admin.clone();
        let request = EvidenceRequest {
            epoch: epoch.0,
            deadline_ms: millis(deadline),
        };
        async move {
            let seen = admin.evidence_after_first_requests(&request).await?;
            Ok(seen.into())
        }
        .boxed()
    }

    fn incarnation(&self) -> BoxFuture<'static, Result<u64, FrontError>> {
        let admin = self.admin.clone();
        async move { Ok(admin.status().await?.started_at_ns) }.boxed()
    }
}

impl From<AdminError> for FrontError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            AdminError::Refused { error, .. } => Self::Refused(error),
        }
    }
}
