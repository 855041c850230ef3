//! `POST /v1/doctor`: asks every agent to look at its machine, and notes the clocks around each
//! answer.

use crate::clock::wall_ms;
use crate::doctor::{CheckUp, Instance, Seen};
use crate::link::{AgentAnswer, Outboxes, Question};
use greenlight_protocol::InstanceId;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an agent may look: Nginx may have to resolve names to print its configuration.
const PATIENCE: Duration = Duration::from_secs(25);

/// Asks all at once; `connected` says of each instance whether its agent is there.
pub(super) async fn check_up(
    outboxes: &Outboxes,
    connected: BTreeMap<InstanceId, bool>,
    mut asked: CheckUp,
) -> Seen {
    let received_ms = wall_ms();
    let mut answers = Vec::new();
    for (name, is_connected) in connected {
        let outboxes = outboxes.clone();
        let wanted = asked.wanted.remove(&name).map(Box::new);
        let answer = tokio::spawn({
            let name = name.clone();
            async move {
                match is_connected {
                    true => ask(&outboxes, name, &Question::Doctor { wanted }).await,
                    false => Instance::Away,
                }
            }
        });
        answers.push((name, answer));
    }
    let mut instances = BTreeMap::new();
    for (name, answer) in answers {
        instances.insert(name, answer.await.unwrap_or(Instance::Silent));
    }
    Seen {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        received_ms,
        answered_ms: wall_ms(),
        instances,
    }
}

async fn ask(outboxes: &Outboxes, name: InstanceId, question: &Question) -> Instance {
    let asked_ms = wall_ms();
    let answers = outboxes.ask([name].into(), question, PATIENCE).await;
    let heard_ms = wall_ms();
    match answers.into_values().next().flatten() {
        Some(AgentAnswer::Examined(examination)) => Instance::Answered {
            asked_ms,
            heard_ms,
            examination,
        },
        Some(
            AgentAnswer::Logs(_)
            | AgentAnswer::Pinned(_)
            | AgentAnswer::Kept
            | AgentAnswer::Failed(_),
        )
        | None => Instance::Silent,
    }
}
