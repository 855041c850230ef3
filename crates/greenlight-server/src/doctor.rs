//! `POST /v1/doctor`: asks every agent to look at its machine, and notes the clocks around each
//! answer.

use greenlight_link::doctor::{DoctorRequest, FleetReport, InstanceReport};
use greenlight_link::{AgentStreams, ExamineMachine};
use greenlight_protocol::InstanceId;
use greenlight_shell::clock::wall_ms;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an agent may look: Nginx may have to resolve names to print its configuration.
const DOCTOR_TIMEOUT: Duration = Duration::from_secs(25);

/// Asks all at once; `connected` says for each instance whether its agent is connected.
pub(super) async fn examine_fleet(
    streams: &AgentStreams,
    connected: BTreeMap<InstanceId, bool>,
    mut asked: DoctorRequest,
) -> FleetReport {
    let received_ms = wall_ms();
    let mut answers = Vec::new();
    for (name, is_connected) in connected {
        let streams = streams.clone();
        let expected = asked.expected.remove(&name).map(Box::new);
        let answer = tokio::spawn({
            let name = name.clone();
            async move {
                match is_connected {
                    true => ask(&streams, name, ExamineMachine { expected }).await,
                    false => InstanceReport::Away,
                }
            }
        });
        answers.push((name, answer));
    }
    let mut instances = BTreeMap::new();
    for (name, answer) in answers {
        instances.insert(name, answer.await.unwrap_or(InstanceReport::Silent));
    }
    FleetReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        received_ms,
        answered_ms: wall_ms(),
        instances,
    }
}

async fn ask(streams: &AgentStreams, name: InstanceId, request: ExamineMachine) -> InstanceReport {
    let asked_ms = wall_ms();
    let response = streams.ask_one(name, request, DOCTOR_TIMEOUT).await;
    let heard_ms = wall_ms();
    match response {
        Ok(report) => InstanceReport::Answered {
            asked_ms,
            heard_ms,
            report,
        },
        Err(_) => InstanceReport::Silent,
    }
}
