//! The future `greenlight.yml` as types, which both importers fill in.

use super::scalar::Scalar;

/// The file to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) services: Vec<ServiceDraft>,
    /// The instances; a placeholder is written if there are none.
    pub(super) servers: Vec<Scalar>,
    /// The public port.
    pub(super) port: Option<u16>,
    pub(super) drain_timeout: Option<Scalar>,
    pub(super) stop_timeout: Option<Scalar>,
    pub(super) deploy_timeout: Option<Scalar>,
    pub(super) retain_containers: Option<u32>,
    pub(super) registry: Option<RegistryDraft>,
}

/// One service.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceDraft {
    pub(super) name: String,
    pub(super) image: Noted<Option<Scalar>>,
    pub(super) cmd: Vec<Scalar>,
    pub(super) user: Option<Scalar>,
    pub(super) volumes: Noted<Vec<Scalar>>,
    pub(super) labels: Vec<(Scalar, Scalar)>,
    pub(super) networks: Noted<Vec<Scalar>>,
    pub(super) memory: Option<Scalar>,
    pub(super) cpus: Option<Scalar>,
    pub(super) logging: Option<LoggingDraft>,
    pub(super) restart: Option<Scalar>,
    pub(super) clear: Vec<(Scalar, Scalar)>,
    pub(super) secret: Vec<SecretDraft>,
    pub(super) hosts: Noted<Vec<Scalar>>,
    pub(super) path_prefix: Option<Scalar>,
    pub(super) app_port: Noted<Option<u16>>,
    pub(super) health: HealthDraft,
    pub(super) request_timeout: Option<Scalar>,
}

/// A value and what a person should know about it.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted<T> {
    pub(super) value: T,
    pub(super) note: Option<String>,
}

/// A secret: the application's variable, and the deploy command's if it has another name.
#[derive(Clone, Debug)]
pub(super) struct SecretDraft {
    pub(super) name: Scalar,
    pub(super) from: Option<Scalar>,
}

/// The health check.
#[derive(Clone, Debug, Default)]
pub(super) struct HealthDraft {
    pub(super) path: Noted<Option<Scalar>>,
    pub(super) interval: Option<Scalar>,
    pub(super) timeout: Option<Scalar>,
    pub(super) failures: Option<u32>,
}

/// Where output goes.
#[derive(Clone, Debug, Default)]
pub(super) struct LoggingDraft {
    pub(super) driver: Option<Scalar>,
    pub(super) options: Vec<(Scalar, Scalar)>,
}

/// What images are pulled with.
#[derive(Clone, Debug)]
pub(super) struct RegistryDraft {
    pub(super) server: Option<Scalar>,
    pub(super) username: Scalar,
    pub(super) password: Scalar,
}

/// A name in the letters that a service's name may have.
pub(super) fn label(name: &str) -> String {
    let letters = name.to_lowercase();
    let letters = letters.chars().map(|letter| match letter {
        'a'..='z' | '0'..='9' => letter,
        _ => '-',
    });
    let label: String = letters.take(63).collect();
    match label.trim_matches('-') {
        "" => "app".to_owned(),
        label => label.to_owned(),
    }
}

#[cfg(test)]
impl Draft {
    /// What a version without a container runtime can read of it, but for the images themselves.
    pub(super) fn without_containers(&self) -> Self {
        let mut draft = self.clone();
        draft.registry = None;
        for service in &mut draft.services {
            let env = (service.clear.clone(), service.secret.clone());
            *service = ServiceDraft {
                name: service.name.clone(),
                image: service.image.clone(),
                clear: env.0,
                secret: env
                    .1
                    .into_iter()
                    .map(|secret| SecretDraft {
                        from: None,
                        ..secret
                    })
                    .collect(),
                hosts: service.hosts.clone(),
                path_prefix: service.path_prefix.clone(),
                health: service.health.clone(),
                request_timeout: service.request_timeout.clone(),
                ..ServiceDraft::default()
            };
        }
        draft
    }
}
