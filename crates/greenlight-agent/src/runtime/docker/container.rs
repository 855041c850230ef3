//! From a launch to a container: its name, its labels, its settings.

use crate::runtime::Launch;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use greenlight_protocol::Slot;
use greenlight_release::spec::ImageSpec;
use greenlight_release::spec::image::{LogOptions, Restart};
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// The label of a container that fills a slot, as opposed to one that runs once.
pub(super) const IN_SLOT: &str = "greenlight.launch";

/// The label that distinguishes this agent's containers from all others, including other agents'.
#[derive(Clone, Debug)]
pub(super) struct Mark(String);

impl Mark {
    /// The mark kept in a file, or a new one.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(mark) => Ok(Self(mark)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mark = uuid::Uuid::now_v7().simple().to_string();
                std::fs::write(path, &mark)?;
                std::fs::File::open(path)?.sync_all()?;
                Ok(Self(mark))
            }
            Err(error) => Err(error),
        }
    }

    /// The label to find containers by.
    pub(super) fn label(&self) -> String {
        format!("greenlight.agent={}", self.0)
    }

    /// A part of names; its random end, because its beginning is the time.
    fn short(&self) -> &str {
        &self.0[self.0.len().saturating_sub(8)..]
    }
}

/// A container to be made.
#[derive(Clone, Debug)]
pub(super) struct ContainerPlan {
    pub(super) name: String,
    pub(super) body: ContainerCreateBody,
}

/// The label of a slot.
pub(super) fn slot_label(slot: &Slot) -> String {
    format!("greenlight.slot={slot}")
}

/// The launch that a container of ours was started with.
pub(super) fn launch_of(labels: &HashMap<String, String>) -> Option<Launch> {
    serde_json::from_str(labels.get(IN_SLOT)?).ok()
}

/// The container that fills the launch's slot.
pub(super) fn for_slot(launch: &Launch, spec: &ImageSpec, mark: &Mark) -> ContainerPlan {
    let slot = &launch.slot;
    let port = format!("{}/tcp", spec.app_port);
    // Loopback only: users come in through the gate.
    let binding = PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        host_port: Some(launch.port.to_string()),
    };
    let mut body = settings(launch, spec, mark);
    // Secrets are skipped when a launch is written.
    let written = serde_json::to_string(launch).expect("plain data serialises");
    let labels = body.labels.get_or_insert_default();
    labels.insert(IN_SLOT.to_owned(), written);
    body.cmd = spec
        .cmd
        .as_ref()
        .map(|cmd| cmd.iter().map(|word| fill(word, launch, spec)).collect());
    body.exposed_ports = Some(vec![port.clone()]);
    let host = body.host_config.get_or_insert_default();
    host.port_bindings = Some([(port, Some(vec![binding]))].into());
    host.restart_policy = Some(restart(spec.restart));
    ContainerPlan {
        name: format!(
            "greenlight-{}-{}-{}",
            slot.service,
            slot.color,
            mark.short()
        ),
        body,
    }
}

/// The container that runs a command of the release once.
pub(super) fn for_job(
    launch: &Launch,
    spec: &ImageSpec,
    mark: &Mark,
    name: &str,
    command: &[String],
) -> ContainerPlan {
    let mut body = settings(launch, spec, mark);
    body.cmd = Some(
        command
            .iter()
            .map(|word| fill(word, launch, spec))
            .collect(),
    );
    // An entry point of the image stays: it often prepares what commands need.
    let labels = body.labels.get_or_insert_default();
    labels.insert("greenlight.once".to_owned(), name.to_owned());
    ContainerPlan {
        name: format!("greenlight-{}-{name}-{}", launch.slot.service, mark.short()),
        body,
    }
}

fn settings(launch: &Launch, spec: &ImageSpec, mark: &Mark) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.reference()),
        env: Some(environment(launch, spec)),
        labels: Some(labels(launch, spec, mark)),
        user: spec.user.clone(),
        host_config: Some(HostConfig {
            binds: (!spec.volumes.is_empty()).then(|| spec.volumes.clone()),
            network_mode: spec.networks.first().cloned(),
            memory: spec.memory.map(|memory| signed(memory.0)),
            nano_cpus: spec.cpus.map(|cpus| signed(cpus.0)),
            log_config: spec.logging.as_ref().map(log_config),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn environment(launch: &Launch, spec: &ImageSpec) -> Vec<String> {
    let clear = launch.env.iter();
    let clear = clear.map(|(name, value)| format!("{name}={}", fill(value, launch, spec)));
    let secret = launch.secrets.env.iter();
    let secret = secret.map(|(name, value)| format!("{name}={}", value.expose()));
    let own = [
        ("PORT", spec.app_port.to_string()),
        ("VERSION", launch.version.clone()),
        ("GREENLIGHT_SERVICE", launch.slot.service.0.clone()),
        ("GREENLIGHT_COLOR", launch.slot.color.to_string()),
        ("GREENLIGHT_INCARNATION", launch.incarnation.to_string()),
    ];
    let own = own.map(|(name, value)| format!("{name}={value}"));
    clear.chain(secret).chain(own).collect()
}

fn labels(launch: &Launch, spec: &ImageSpec, mark: &Mark) -> HashMap<String, String> {
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    let own = [
        ("greenlight.agent", mark.0.clone()),
        ("greenlight.service", launch.slot.service.0.clone()),
        ("greenlight.slot", launch.slot.to_string()),
        ("greenlight.version", launch.version.clone()),
        ("greenlight.release", launch.digest.clone()),
    ];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
    labels
}

fn fill(text: &str, launch: &Launch, spec: &ImageSpec) -> String {
    text.replace("${PORT}", &spec.app_port.to_string())
        .replace("${VERSION}", &launch.version)
}

fn log_config(options: &LogOptions) -> HostConfigLogConfig {
    let config: HashMap<_, _> = options.options.clone().into_iter().collect();
    HostConfigLogConfig {
        typ: options.driver.clone(),
        config: (!config.is_empty()).then_some(config),
    }
}

fn restart(restart: Restart) -> RestartPolicy {
    let (name, maximum_retry_count) = match restart {
        Restart::No => (RestartPolicyNameEnum::NO, None),
        Restart::OnFailure(most) => (RestartPolicyNameEnum::ON_FAILURE, most.map(i64::from)),
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
    };
    RestartPolicy {
        name: Some(name),
        maximum_retry_count,
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
