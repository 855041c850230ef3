//! What an agent asks of its gate, in the words of the gate's control; and what the gate saw, in
//! the words of receipts.
//!
//! Every front that has a gate uses this one translation, and so do the gates of the tests.

use super::GateAction;
use crate::evidence::{Alignment, GateEvidence, HoldEvidence, SwitchEvidence};
use crate::id::ServiceName;
use crate::policy::Exclusive;
use greenlight_gate::{
    Command, EvidenceAnswer, HoldAnswer, HoldRequest, OpenAnswer, OpenRequest, ServiceEvidence,
    ServicesRequest,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// A [`GateAction`] as the gate takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateRequest {
    /// Stop admitting.
    Hold(HoldRequest),
    /// Flip and release.
    Open(OpenRequest),
    /// Let requests wait without a deadline.
    Park(ServicesRequest),
}

impl GateAction {
    /// The same, as the gate takes it.
    pub fn request(&self) -> GateRequest {
        match self {
            Self::Hold {
                epoch,
                services,
                max_hold,
                on_uncertain,
                exclusive,
            } => GateRequest::Hold(HoldRequest {
                epoch: epoch.0,
                services: names(services),
                max_hold_ms: millis(*max_hold),
                on_uncertain: *on_uncertain,
                exclusive_ms: match exclusive {
                    Exclusive::No => None,
                    Exclusive::Yes => Some(millis(*max_hold)),
                },
            }),
            Self::Open { epoch, colors } => {
                let services = colors.iter();
                let services = services.map(|(service, color)| (service.0.clone(), *color));
                GateRequest::Open(OpenRequest {
                    epoch: epoch.0,
                    services: services.collect(),
                })
            }
            Self::Park { epoch, services } => GateRequest::Park(ServicesRequest {
                epoch: epoch.0,
                services: names(services),
            }),
        }
    }
}

impl<S> From<GateRequest> for Command<S> {
    fn from(request: GateRequest) -> Self {
        match request {
            GateRequest::Hold(request) => Self::Hold(request),
            GateRequest::Open(request) => Self::Open(request),
            GateRequest::Park(request) => Self::Park(request),
        }
    }
}

impl From<HoldAnswer> for HoldEvidence {
    fn from(answer: HoldAnswer) -> Self {
        let services = answer.services;
        Self {
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
}

impl From<OpenAnswer> for SwitchEvidence {
    fn from(answer: OpenAnswer) -> Self {
        Self {
            opened_at_ns: answer.opened_at_ns,
            released: answer.released,
            aligned: None,
        }
    }
}

impl From<EvidenceAnswer> for GateEvidence {
    fn from(seen: EvidenceAnswer) -> Self {
        let services = seen.services.into_iter();
        Self {
            services: services
                .map(|(name, seen)| (ServiceName(name), without_colors(&seen)))
                .collect(),
        }
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

fn names(services: &BTreeSet<ServiceName>) -> Vec<String> {
    services.iter().map(|service| service.0.clone()).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
