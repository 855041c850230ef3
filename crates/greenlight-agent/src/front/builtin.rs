//! The built-in proxy as a front: translates the protocol's words into the proxy's.

use super::{Acted, Front, FrontError, SlotAddresses};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_admin::{
    AdminClient, AdminError, DrainRequest, EvidenceAnswer, EvidenceRequest, HoldAnswer,
    HoldRequest, OpenRequest, ServiceSettings, ServicesRequest,
};
use greenlight_protocol::policy::Exclusive;
use greenlight_protocol::{
    Alignment, DrainEvidence, Epoch, GateAction, GateEvidence, HoldEvidence, ServiceEvidence,
    ServiceName, Slot, SwitchEvidence,
};
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
            match action {
                GateAction::Hold {
                    epoch,
                    services,
                    max_hold,
                    on_uncertain,
                    exclusive,
                } => {
                    let request = HoldRequest {
                        epoch: epoch.0,
                        services: services.into_iter().map(|s| s.0).collect(),
                        max_hold_ms: millis(max_hold),
                        on_uncertain,
                        exclusive_ms: match exclusive {
                            Exclusive::No => None,
                            Exclusive::Yes => Some(millis(max_hold)),
                        },
                    };
                    let answer = admin.hold(&request).await?;
                    Ok(Acted::Held(held(answer)))
                }
                GateAction::Open { epoch, colors } => {
                    let services = colors.into_iter().map(|(s, color)| (s.0, color));
                    let request = OpenRequest {
                        epoch: epoch.0,
                        services: services.collect(),
                    };
                    let answer = admin.open(&request).await?;
                    Ok(Acted::Opened(SwitchEvidence {
                        opened_at_ns: answer.opened_at_ns,
                        released: answer.released,
                        aligned: None,
                    }))
                }
                GateAction::Park { epoch, services } => {
                    let request = ServicesRequest {
                        epoch: epoch.0,
                        services: services.into_iter().map(|s| s.0).collect(),
                    };
                    admin.park(&request).await?;
                    Ok(Acted::Parked)
                }
            }
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
        async move { Ok(evidence(admin.evidence(epoch.0).await?)) }.boxed()
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
            Ok(evidence(seen))
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

fn held(answer: HoldAnswer) -> HoldEvidence {
    let services = answer.services;
    HoldEvidence {
        held_at_ns: answer.held_at_ns,
        in_flight: services.values().map(|seen| seen.in_flight).sum(),
        recalled: services.values().map(|seen| seen.recalled).sum(),
        alignment: Alignment::Gated,
        last_admission_ns: services
            .into_iter()
            .filter_map(|(name, seen)| Some((ServiceName(name), seen.last_admission_ns?)))
            .collect(),
    }
}

fn evidence(seen: EvidenceAnswer) -> GateEvidence {
    let services = seen.services.into_iter();
    GateEvidence {
        services: services
            .map(|(name, seen)| (ServiceName(name), without_colors(&seen)))
            .collect(),
    }
}

/// Receipts tell releases by their versions, not by the slots in which they were.
fn without_colors(seen: &ServiceEvidence) -> ServiceEvidence {
    ServiceEvidence {
        old: None,
        new: None,
        ..*seen
    }
}
