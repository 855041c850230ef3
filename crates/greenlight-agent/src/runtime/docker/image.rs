//! Images: resolving a name, pulling, and removing.

use super::daemon::Daemon;
use super::daemon_error;
use super::retention::Used;
use crate::runtime::RuntimeError;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use futures_util::StreamExt as _;
use greenlight_release::secret::RegistryLogin;
use greenlight_release::spec::ImageSpec;
use greenlight_release::spec::image::{DOCKER_HUB, Pin, registry, repository};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

/// How long a registry may take to resolve a name.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(20);

/// Has the image here, pulled if it is not, and gives its id.
pub(super) async fn ensure(
    daemon: &Daemon,
    spec: &ImageSpec,
    login: Option<&RegistryLogin>,
) -> Result<String, RuntimeError> {
    let reference = spec.reference();
    let missing = |reason: String| RuntimeError::Image {
        image: spec.image.clone(),
        reason,
    };
    match (inspect(daemon, &reference).await?, &spec.pinned) {
        (Some(id), Some(Pin::Local(pinned))) if id != *pinned => Err(missing(format!(
            "here the name stands for {id}, and {pinned} is to be deployed; load the same image on \
             every instance, or push it to a registry"
        ))),
        (Some(id), _) => Ok(id),
        (None, Some(Pin::Local(_))) => Err(missing(
            "it is not on this instance, and no registry is known to have it; push it to a \
             registry, or load it on every instance"
                .to_owned(),
        )),
        (None, Some(Pin::Manifest(_)) | None) => {
            pull(daemon, &reference, login).await?;
            let id = inspect(daemon, &reference).await?;
            id.ok_or_else(|| missing("it was pulled, but is not there".to_owned()))
        }
    }
}

/// Resolves a name: in its registry, or only here.
pub(super) async fn pin(
    daemon: &Daemon,
    image: &str,
    login: Option<&RegistryLogin>,
) -> Result<Pin, RuntimeError> {
    if let Some((_, digest)) = image.split_once('@') {
        return Ok(Pin::Manifest(digest.to_owned()));
    }
    let credentials = credentials(image, login).await?;
    let docker = daemon.connect().await?;
    let asked = docker.inspect_registry_image(image, credentials);
    let refused = match tokio::time::timeout(REGISTRY_TIMEOUT, asked).await {
        Ok(Ok(known)) => {
            if let Some(digest) = known.descriptor.digest {
                return Ok(Pin::Manifest(digest));
            }
            Error::DockerStreamError {
                error: "the registry gives no digest".to_owned(),
            }
        }
        Ok(Err(error)) => error,
        Err(_) => Error::DockerStreamError {
            error: format!("timeout: no answer within {} s", REGISTRY_TIMEOUT.as_secs()),
        },
    };
    match inspect(daemon, image).await? {
        Some(id) => Ok(Pin::Local(id)),
        None => Err(daemon_error::about_image(
            daemon.host(),
            image,
            registry(image),
            &refused,
        )),
    }
}

/// Removes an image that an earlier release used, unless it is in use. Returns whether it is gone.
pub(super) async fn prune(daemon: &Daemon, used: &Used) -> bool {
    let Ok(docker) = daemon.connect().await else {
        return false;
    };
    let name = match inspect(daemon, &used.reference).await {
        Ok(Some(id)) if id == used.id => &used.reference,
        // The name now belongs to another image, which we must not remove.
        Ok(Some(_) | None) => &used.id,
        Err(_) => return false,
    };
    let options = RemoveImageOptionsBuilder::default().force(false).build();
    match docker.remove_image(name, Some(options), None).await {
        Ok(_) => {
            tracing::info!(
                image = used.reference,
                "the image of an earlier release is removed"
            );
            true
        }
        Err(error) if daemon_error::is_missing(&error) => true,
        // A container uses it, or it has another name.
        Err(error) => {
            tracing::debug!(%error, image = used.reference, "an image is kept");
            false
        }
    }
}

/// The id of an image that is here.
pub(super) async fn inspect(daemon: &Daemon, name: &str) -> Result<Option<String>, RuntimeError> {
    let docker = daemon.connect().await?;
    match docker.inspect_image(name).await {
        Ok(found) => Ok(found.id),
        Err(error) if daemon_error::is_missing(&error) => Ok(None),
        Err(error) => Err(daemon.explain("looking for the image", &error)),
    }
}

async fn pull(
    daemon: &Daemon,
    reference: &str,
    login: Option<&RegistryLogin>,
) -> Result<(), RuntimeError> {
    let credentials = credentials(reference, login).await?;
    let docker = daemon.connect().await?;
    let options = CreateImageOptionsBuilder::default()
        .from_image(reference)
        .build();
    tracing::info!(image = reference, "pulling");
    let mut progress = pin!(docker.create_image(Some(options), None, credentials));
    while let Some(step) = progress.next().await {
        if let Err(error) = step {
            let registry = registry(reference);
            return Err(daemon_error::about_image(
                daemon.host(),
                reference,
                registry,
                &error,
            ));
        }
    }
    Ok(())
}

/// The credentials of the configuration for this registry, or this machine's, or none.
async fn credentials(
    image: &str,
    login: Option<&RegistryLogin>,
) -> Result<Option<DockerCredentials>, RuntimeError> {
    let server = registry(image).to_owned();
    if let Some(login) = login.filter(|login| is_about(&login.server, &server)) {
        return Ok(Some(DockerCredentials {
            username: Some(login.username.clone()),
            password: Some(login.password.expose().to_owned()),
            serveraddress: Some(server),
            ..DockerCredentials::default()
        }));
    }
    let asked = server.clone();
    // A credential helper is a program, and may take its time.
    let found = tokio::task::spawn_blocking(move || docker_credential::get_credential(&asked));
    let found = found
        .await
        .unwrap_or(Err(CredentialRetrievalError::HelperCommunicationError));
    let serveraddress = Some(server.clone());
    match found {
        Ok(DockerCredential::UsernamePassword(username, password)) => Ok(Some(DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress,
            ..DockerCredentials::default()
        })),
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(DockerCredentials {
            identitytoken: Some(token),
            serveraddress,
            ..DockerCredentials::default()
        })),
        Err(
            CredentialRetrievalError::NoCredentialConfigured
            | CredentialRetrievalError::ConfigNotFound,
        ) => Ok(None),
        // The library returns the same error for a missing file as for an unreadable one.
        Err(CredentialRetrievalError::ConfigReadError) if !has_docker_config() => Ok(None),
        Err(
            error @ (CredentialRetrievalError::HelperCommunicationError
            | CredentialRetrievalError::MalformedHelperResponse
            | CredentialRetrievalError::CredentialDecodingError
            | CredentialRetrievalError::CredentialMismatchError
            | CredentialRetrievalError::ConfigReadError),
        ) => Err(RuntimeError::Image {
            image: repository(image).to_owned(),
            reason: format!("this machine's credentials for `{server}` cannot be read: {error}"),
        }),
        // What a helper prints may contain a secret.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => Err(RuntimeError::Image {
            image: repository(image).to_owned(),
            reason: format!("`docker-credential-{helper}` failed for `{server}`; run it by hand"),
        }),
    }
}

/// Whether anyone has logged in on this machine, as this user.
fn has_docker_config() -> bool {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    folder
        .or(home)
        .is_some_and(|folder| folder.join("config.json").exists())
}

/// Whether a server of the configuration is the registry of an image.
fn is_about(server: &str, registry: &str) -> bool {
    let plain = |server: &str| {
        let server = server
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let host = server.split('/').next().unwrap_or_default();
        match host {
            "docker.io" | "registry-1.docker.io" | "index.docker.io" => {
                "index.docker.io".to_owned()
            }
            host => host.to_owned(),
        }
    };
    debug_assert_eq!(plain(DOCKER_HUB), "index.docker.io");
    plain(server) == plain(registry)
}
