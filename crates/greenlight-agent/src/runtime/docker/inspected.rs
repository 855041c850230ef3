//! Docker's state of a container, as the runtime's types: where it is reached, how it ended,
//! and whether its image's own check has anything against it.

use crate::runtime::{Container, ContainerHealth, Launch, Running};
use bollard::models::{ContainerInspectResponse, HealthStatusEnum};
use greenlight_release::spec::Artifact;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The running application, from the state of its container.
pub(super) fn running(launch: Launch, inspected: &ContainerInspectResponse) -> Running {
    let state = inspected.state.as_ref();
    let published = SocketAddr::from(([127, 0, 0, 1], launch.port));
    Running {
        pid: state
            .and_then(|state| i32::try_from(state.pid?).ok())
            .unwrap_or_default(),
        address: direct_address(&launch, inspected).unwrap_or(published),
        container: inspected.id.clone().map(|id| Container {
            id,
            started_at: state
                .and_then(|state| state.started_at.clone())
                .unwrap_or_default(),
        }),
        launch,
    }
}

/// The container's own address, if this machine has the gateway of its network: then packets
/// reach it without Docker's port proxy, which costs more processor time than the application.
/// `docs/decisions/0005-docker.md` has the measurement.
fn direct_address(launch: &Launch, inspected: &ContainerInspectResponse) -> Option<SocketAddr> {
    let Artifact::Image(spec) = &launch.artifact else {
        return None;
    };
    let networks = inspected.network_settings.as_ref()?.networks.as_ref()?;
    let endpoint = match spec.networks.first() {
        Some(first) => networks.get(first)?,
        None => networks.values().next()?,
    };
    let gateway: IpAddr = endpoint.gateway.as_ref()?.parse().ok()?;
    let address: IpAddr = endpoint.ip_address.as_ref()?.parse().ok()?;
    // Only an address of this machine can be bound to: not so with a rootless daemon, or one in
    // a virtual machine.
    UdpSocket::bind((gateway, 0)).ok()?;
    Some(SocketAddr::new(address, spec.app_port))
}

/// How this run of the container ended, if it has.
pub(super) fn end_of(
    container: &Container,
    inspected: &ContainerInspectResponse,
) -> Option<String> {
    let state = inspected.state.as_ref()?;
    let same_run = state.started_at.as_deref() == Some(container.started_at.as_str());
    if state.running == Some(true) && state.restarting != Some(true) && same_run {
        return None;
    }
    if !same_run {
        return Some("docker started its container again".to_owned());
    }
    let code = state.exit_code.unwrap_or_default();
    let mut end = match code {
        _ if state.oom_killed == Some(true) => {
            "it used more than its `memory` and was killed".to_owned()
        }
        // Shells and Docker encode a signal like this.
        129..=192 => format!("it was killed by signal {}", code - 128),
        _ => format!("it ended with exit status {code}"),
    };
    if let Some(error) = state.error.as_deref().filter(|error| !error.is_empty()) {
        end = format!("{end} ({error})");
    }
    Some(end)
}

/// The result of the image's own `HEALTHCHECK`, if it has one.
pub(super) fn image_check(inspected: &ContainerInspectResponse) -> ContainerHealth {
    let health = inspected
        .state
        .as_ref()
        .and_then(|state| state.health.as_ref());
    let Some(health) = health else {
        return ContainerHealth::NoObjection;
    };
    let said = health.log.iter().flatten().next_back();
    let said = said
        .and_then(|result| result.output.as_deref())
        .unwrap_or_default();
    let said = said.trim();
    match health.status {
        Some(HealthStatusEnum::STARTING) => {
            ContainerHealth::Unhealthy("the image's HEALTHCHECK has not passed yet".to_owned())
        }
        Some(HealthStatusEnum::UNHEALTHY) if said.is_empty() => {
            ContainerHealth::Unhealthy("the image's HEALTHCHECK fails".to_owned())
        }
        Some(HealthStatusEnum::UNHEALTHY) => {
            ContainerHealth::Unhealthy(format!("the image's HEALTHCHECK fails: {said}"))
        }
        Some(HealthStatusEnum::HEALTHY | HealthStatusEnum::NONE | HealthStatusEnum::EMPTY)
        | None => ContainerHealth::NoObjection,
    }
}
