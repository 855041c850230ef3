//! The connection to a daemon: made when it is needed, with the version that both sides know.

use super::daemon_error;
use crate::runtime::RuntimeError;
use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, StartContainerOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use parking_lot::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Docker's usual socket.
const USUAL: &str = "unix:///var/run/docker.sock";
/// How long an answer may take in seconds. A stop answers only when the application has ended.
const REQUEST_TIMEOUT_SECONDS: u64 = 3600;
/// How long a container may be in a state that only Podman knows.
const PASSING: Duration = Duration::from_secs(2);
/// The pause before it is inspected again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A daemon.
pub(super) struct Daemon {
    host: String,
    known: Mutex<Option<Docker>>,
}

impl Daemon {
    pub(super) fn new(host: Option<&str>) -> Self {
        Self {
            host: host
                .filter(|host| !host.is_empty())
                .unwrap_or(USUAL)
                .to_owned(),
            known: Mutex::default(),
        }
    }

    /// A client that speaks a version that the daemon knows.
    pub(super) async fn connect(&self) -> Result<Docker, RuntimeError> {
        if let Some(docker) = self.known().clone() {
            return Ok(docker);
        }
        if !self.host.starts_with("unix://") {
            return Err(RuntimeError::DockerAway {
                host: self.host.clone(),
                reason: "only the socket of a local daemon, `unix:///…`, can be used".to_owned(),
            });
        }
        let docker =
            Docker::connect_with_unix(&self.host, REQUEST_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
                .map_err(|error| self.explain("connecting", &error))?
                .with_request_modifier(url_safe_credentials);
        let docker = docker.negotiate_version().await;
        let docker = docker.map_err(|error| self.explain("connecting", &error))?;
        *self.known() = Some(docker.clone());
        Ok(docker)
    }

    /// The present state of a container; `None` if it does not exist.
    pub(super) async fn inspect(
        &self,
        id: &str,
    ) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let docker = self.connect().await?;
        let look = || docker.inspect_container(id, None::<InspectContainerOptions>);
        match understood(look).await {
            Ok(inspected) => Ok(Some(inspected)),
            Err(error) if daemon_error::is_missing(&error) => Ok(None),
            Err(error) => Err(self.explain("looking at the container", &error)),
        }
    }

    /// Starts a container; the error is Docker's own, because callers tell some apart.
    pub(super) async fn start(&self, id: &str) -> Result<(), Error> {
        let docker = self.connect().await.map_err(|error| Error::IOError {
            err: std::io::Error::other(error.to_string()),
        })?;
        docker
            .start_container(id, None::<StartContainerOptions>)
            .await
    }

    /// Its socket.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// An error as messages of Greenlight.
    pub(super) fn explain(&self, doing: &str, error: &Error) -> RuntimeError {
        let explained = daemon_error::explain(&self.host, doing, error);
        if matches!(explained, RuntimeError::DockerAway { .. }) {
            // It may come back as another version.
            *self.known() = None;
        }
        explained
    }

    fn known(&self) -> MutexGuard<'_, Option<Docker>> {
        self.known.lock()
    }
}

/// Asks until the answer can be read, for a while: Podman has states that Docker does not know, on
/// the way to one that it knows.
pub(super) async fn understood<T, F>(ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let began = Instant::now();
    loop {
        match ask().await {
            Err(Error::JsonDataError { .. }) if began.elapsed() < PASSING => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            answer => return answer,
        }
    }
}

/// Docker reads credentials in the alphabet that is safe in addresses; the client writes them in
/// the other, which differs for passwords with `?`, `>`, `~` or letters beyond ASCII.
fn url_safe_credentials(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    for name in ["x-registry-auth", "x-registry-config"] {
        let Some(value) = request.headers().get(name) else {
            continue;
        };
        let safe: Vec<u8> = value
            .as_bytes()
            .iter()
            .map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect();
        if let Ok(safe) = hyper::header::HeaderValue::from_bytes(&safe) {
            request.headers_mut().insert(name, safe);
        }
    }
    request
}
