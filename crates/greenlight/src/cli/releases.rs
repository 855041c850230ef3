//! From the configuration to releases: secrets read and fingerprinted, images pinned.

use super::{Exit, Failure};
use greenlight_config::Config;
use greenlight_link::ApiClient;
use greenlight_link::api::{PinAnswer, PinRequest};
use greenlight_protocol::{Release, ServiceName};
use greenlight_release::secret::Secrets;
use greenlight_release::spec::Artifact;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Releases, and what they need and must not carry.
pub(super) struct Releases {
    pub(super) releases: BTreeMap<ServiceName, Release>,
    pub(super) secrets: BTreeMap<ServiceName, Secrets>,
}

/// Makes the releases that the configuration in `file` describes.
pub(super) async fn make(
    config: &Config,
    file: &Path,
    version: &str,
    api: &ApiClient,
) -> Result<Releases, Failure> {
    let secrets = read_secrets(config, file)?;
    let mut releases = BTreeMap::new();
    for (service, mut spec) in config.specs(version) {
        let own = &secrets[&service];
        for (name, value) in &own.env {
            let key = api.fingerprint_key().ok_or_else(|| {
                Failure::new(
                    Exit::Failed,
                    "this operator has no key to fingerprint secrets with",
                )
                .help("issue the operator's credentials again, with this version")
            })?;
            spec.secrets
                .insert(name.clone(), key.fingerprint(name, value));
        }
        if let Artifact::Image(image) = &mut spec.artifact {
            let request = PinRequest {
                image: image.image.clone(),
                login: own.registry.clone(),
            };
            let answer: PinAnswer = api.post("/v1/images", &request).await?;
            image.pinned = Some(answer.pin);
        }
        releases.insert(service, spec.to_release(version));
    }
    Ok(Releases { releases, secrets })
}

/// The secrets of all services, from wherever each comes.
pub(super) fn read_secrets(
    config: &Config,
    file: &Path,
) -> Result<BTreeMap<ServiceName, Secrets>, Failure> {
    let beside = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    let home = beside.map_or_else(|| PathBuf::from("."), Path::to_owned);
    Ok(config.secrets(&home, |name| std::env::var(name).ok())?)
}
