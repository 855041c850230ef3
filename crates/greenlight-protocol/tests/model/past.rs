//! What the fleet did before the deployment that is explored, and the request for it.

use super::faults::{Faults, Past};
use super::world::message::name;
use greenlight_protocol::coordinator::{CutOverStarted, DeploymentRequest, Promotion};
use greenlight_protocol::strategy::Position;
use greenlight_protocol::{
    AgentRecord, CoordinatorRecord, CutOver, DeploymentId, Direction, Epoch, Outcome, Plan, Policy,
    Release, Strategy,
};

/// The epoch of the one cut-over before the deployment, if there was one.
pub(crate) const LATEST: Epoch = Epoch(1);

/// The records of an agent.
pub(crate) fn of_agent(faults: Faults) -> Vec<AgentRecord> {
    if faults.past == Past::Nothing {
        return Vec::new();
    }
    let epoch = LATEST;
    vec![
        AgentRecord::Prepared(Box::new(first(faults))),
        AgentRecord::Armed(epoch),
        AgentRecord::Switched(epoch),
        AgentRecord::Retired(epoch),
    ]
}

/// The records of the coordinator.
pub(crate) fn of_coordinator(faults: Faults) -> Vec<CoordinatorRecord> {
    if faults.past == Past::Nothing {
        return Vec::new();
    }
    let request = request(faults.instances, "d1", "v1");
    let deployment = request.deployment.clone();
    let started = CutOverStarted {
        position: Position::default(),
        cut_over: first(faults),
        reason: None,
    };
    vec![
        CoordinatorRecord::Accepted(Box::new(request)),
        CoordinatorRecord::CutOverStarted(Box::new(started)),
        CoordinatorRecord::Committed(LATEST),
        CoordinatorRecord::Completed(LATEST),
        CoordinatorRecord::Finished {
            deployment,
            outcome: Outcome::Promoted,
        },
        CoordinatorRecord::Retired(LATEST),
    ]
}

fn first(faults: Faults) -> CutOver {
    cut_over(LATEST, faults.instances)
}

/// A cut-over to `v1`.
pub(crate) fn cut_over(epoch: Epoch, instances: usize) -> CutOver {
    let request = request(instances, "d1", "v1");
    CutOver {
        epoch,
        deployment: request.deployment,
        direction: Direction::Forward,
        participants: (0..instances).map(name).collect(),
        releases: request.releases,
        policy: request.policy,
    }
}

/// What is requested.
pub(crate) fn request(instances: usize, deployment: &str, version: &str) -> DeploymentRequest {
    let instances = (0..instances).map(name).collect();
    let release = Release {
        version: version.to_owned(),
        digest: version.to_owned(),
        spec: "-".to_owned(),
    };
    DeploymentRequest {
        deployment: DeploymentId(deployment.to_owned()),
        requested_by: "the-model".to_owned(),
        releases: [("shop".into(), Some(release))].into(),
        plan: Plan::compile(Strategy::BlueGreen, &instances).expect("there are instances"),
        policy: Policy {
            // Bounds the number of cut-overs.
            rollback_attempts: 1,
            ..Policy::default()
        },
        promotion: Promotion::Automatic,
    }
}
