//! One deployment after the other, told as stories: what people see when all goes well, and what
//! they see after each kind of failure, with the real machines and a fleet in memory.
//!
//! Each test is one path. That *every* path keeps the guarantees is the business of `model.rs`.

#[path = "scenarios/crashes.rs"]
mod crashes;
#[path = "scenarios/cut_over.rs"]
mod cut_over;
#[path = "scenarios/peers.rs"]
mod peers;
#[path = "scenarios/people.rs"]
mod people;
#[path = "scenarios/services.rs"]
mod services;
#[path = "scenarios/story.rs"]
mod story;
#[expect(
    dead_code,
    reason = "stories have no processes that end between two effects"
)]
#[path = "world/mod.rs"]
mod world;

use greenlight_protocol::coordinator::{DeploymentRequest, RollbackRequest};
use greenlight_protocol::{Accepted, Color, Command, Epoch, InstanceId, Refusal, Slot};
use std::time::Duration;
use story::{InFlight, Story, name};

const WARM: Duration = Duration::from_mins(5);
const LONG: Duration = Duration::from_hours(1);

fn everywhere(version: &str) -> Vec<Option<String>> {
    vec![Some(version.to_owned()); 3]
}

fn alone(version: &str) -> Vec<Vec<String>> {
    vec![versions(&[version]); 3]
}

fn versions(versions: &[&str]) -> Vec<String> {
    versions.iter().map(|&v| v.to_owned()).collect()
}

fn green() -> Slot {
    Slot {
        service: "shop".into(),
        color: Color::Green,
    }
}

fn with_command(mut request: DeploymentRequest) -> DeploymentRequest {
    request.policy.before_switch = Some(Duration::from_mins(5));
    request
}

fn commands(story: &Story) -> Vec<(InstanceId, Epoch)> {
    let machines = story.machines.iter();
    machines
        .flat_map(|(at, machine)| machine.commands.iter().map(|epoch| (at.clone(), *epoch)))
        .collect()
}

fn is_directive_to(in_flight: &InFlight, instance: usize) -> bool {
    in_flight.directed_to() == Some(name(instance))
}

fn roll_back(story: &mut Story) -> Result<Accepted, Refusal> {
    let DeploymentRequest {
        deployment,
        requested_by,
        plan,
        ..
    } = story.request(&[]);
    story.command(Command::Rollback(Box::new(RollbackRequest {
        deployment,
        requested_by,
        plan,
        policy: None,
    })))
}
