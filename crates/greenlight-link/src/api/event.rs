//! What happens in a deployment, typed from the coordinator's shell to the last printer.
//!
//! Nothing here is a sentence: how an event reads on a terminal is for `cli/progress.rs`.

use greenlight_protocol::coordinator::PhaseName;
use greenlight_protocol::{DeploymentId, Epoch, InstanceId, Outcome, Report, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One event with its number; `GET /v1/events` streams them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedEvent {
    /// Its number; grows by one, and starts again with the server.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The deployment it is about.
    pub deployment: DeploymentId,
    #[serde(flatten)]
    pub event: DeploymentEvent,
}

/// What can happen in a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DeploymentEvent {
    /// The deployment entered a phase.
    Phase { epoch: Epoch, phase: PhaseName },
    /// An instance reported.
    Instance {
        epoch: Epoch,
        instance: InstanceId,
        /// How far it is.
        #[serde(flatten)]
        progress: InstanceProgress,
    },
    /// The deployment is over.
    Finished { outcome: Outcome },
}

/// How far an instance is in a cut-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "report")]
pub enum InstanceProgress {
    /// Its new releases are healthy.
    Prepared,
    /// A new release did not become healthy.
    PrepareFailed { reason: String },
    /// Its peers are ready as seen from it.
    PeersReady,
    /// Some peers are not ready as seen from it.
    PeersNotReady {
        unseen: BTreeMap<InstanceId, String>,
    },
    /// The command before the switch has succeeded there.
    BeforeSwitchDone {
        /// What the command wrote.
        output: String,
    },
    /// The command before the switch has failed there.
    BeforeSwitchFailed { reason: String },
    /// Its promise is durable.
    Armed,
    /// Its gate admits nothing more to the old release.
    Held,
    /// Its gate stayed open to the old release.
    HoldRefused { reason: String },
    /// Its gate is open to the new release.
    Switched,
    /// It knows the decision, and does not serve the new release.
    SwitchFailed { reason: String },
    /// Its gate is open to the old release again.
    Aborted,
    /// It has stopped what is not live.
    Retired,
    /// A live release died there or fails its check.
    Unhealthy {
        service: ServiceName,
        reason: String,
    },
}

impl InstanceProgress {
    /// What a report says of it; nothing, if the report is not about how far an instance is.
    pub fn of(report: &Report) -> Option<Self> {
        Some(match report {
            Report::Prepared => Self::Prepared,
            Report::PrepareFailed { reason } => Self::PrepareFailed {
                reason: reason.clone(),
            },
            Report::PeersReady => Self::PeersReady,
            Report::PeersNotReady { unseen } => Self::PeersNotReady {
                unseen: unseen.clone(),
            },
            Report::BeforeSwitchDone { output } => Self::BeforeSwitchDone {
                output: output.clone(),
            },
            Report::BeforeSwitchFailed { reason } => Self::BeforeSwitchFailed {
                reason: reason.clone(),
            },
            Report::Armed { .. } => Self::Armed,
            Report::Held(_) => Self::Held,
            Report::HoldRefused { reason } => Self::HoldRefused {
                reason: reason.clone(),
            },
            Report::Switched(_) => Self::Switched,
            Report::SwitchFailed { reason } => Self::SwitchFailed {
                reason: reason.clone(),
            },
            Report::Aborted => Self::Aborted,
            Report::Retired(_) => Self::Retired,
            Report::Unhealthy { service, reason } => Self::Unhealthy {
                service: service.clone(),
                reason: reason.clone(),
            },
            Report::Status(_) | Report::InDoubt | Report::Fenced => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_flat_and_typed_and_reads_back_as_it_was() {
        let numbered = |event| NumberedEvent {
            number: 3,
            at_ms: 5,
            deployment: "d".into(),
            event,
        };
        let unseen = [("b".into(), "no answer".to_owned())].into();
        let cases = [
            (
                DeploymentEvent::Phase {
                    epoch: Epoch(7),
                    phase: PhaseName::BeforeSwitch,
                },
                json!({"kind": "phase", "epoch": 7, "phase": "before_switch"}),
            ),
            (
                DeploymentEvent::Instance {
                    epoch: Epoch(7),
                    instance: "a".into(),
                    progress: InstanceProgress::PeersNotReady { unseen },
                },
                json!({
                    "kind": "instance", "epoch": 7, "instance": "a",
                    "report": "peers_not_ready", "unseen": {"b": "no answer"},
                }),
            ),
            (
                DeploymentEvent::Instance {
                    epoch: Epoch(7),
                    instance: "a".into(),
                    progress: InstanceProgress::Armed,
                },
                json!({"kind": "instance", "epoch": 7, "instance": "a", "report": "armed"}),
            ),
        ];
        for (event, mut written) in cases {
            let event = numbered(event);
            written["number"] = json!(3);
            written["at_ms"] = json!(5);
            written["deployment"] = json!("d");
            assert_eq!(serde_json::to_value(&event).expect("plain data"), written);
            let read: NumberedEvent = serde_json::from_value(written).expect("it was written");
            assert_eq!(read, event);
        }
    }
}
