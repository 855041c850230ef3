//! This very program as an image: packed here with the libraries that it runs with, and removed
//! again with every container that was made of it.
//!
//! ```text
//!   program + libraries ─▶ tar ─▶ daemon ─▶ image, with a label of its own ─▶ containers
//!   remove ◀── all containers with that label ◀── the image
//! ```
//!
//! It uses no registry and pulls nothing. Containers inherit the labels of their image, and
//! that is how they are found, including those that no record mentions.

mod packing;

use super::daemon::Daemon;
use super::{daemon_error, image};
use crate::runtime::RuntimeError;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use futures_util::StreamExt as _;
use greenlight_release::spec::ImageSpec;
use greenlight_release::spec::image::Pin;
use std::collections::HashMap;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

/// Where the program is in the image.
const PROGRAM: &str = "/greenlight";
/// The label of the image, and so of every container that is made of it.
const LABEL: &str = "greenlight.own-image";
/// How often removing is tried: a daemon may still be making a container for an agent that ended.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// An image of this program.
pub struct OwnImage {
    daemon: Daemon,
    name: String,
    id: String,
    label: String,
}

impl OwnImage {
    /// Makes an image of `program` on the daemon at `host`, Docker's usual one if none. `what`
    /// becomes its name.
    pub async fn make(
        program: &Path,
        what: &str,
        host: Option<&str>,
    ) -> Result<Self, RuntimeError> {
        let daemon = Daemon::new(host);
        let docker = daemon.connect().await?;
        let mark = uuid::Uuid::now_v7().simple().to_string();
        let label = format!("{LABEL}={mark}");
        let tag = &mark[mark.len().saturating_sub(8)..];
        let name = format!("{what}:{tag}");
        let packed = packing::pack(program, PROGRAM).map_err(|source| RuntimeError::Files {
            path: program.display().to_string(),
            source,
        })?;
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(what)
            .tag(tag)
            .changes(vec![
                format!("ENTRYPOINT [\"{PROGRAM}\"]"),
                format!("LABEL {label}"),
            ])
            .build();
        let body = bollard::body_full(packed.into());
        let doing = "making an image of this program";
        let mut progress = pin!(docker.create_image(Some(options), Some(body), None));
        while let Some(step) = progress.next().await {
            step.map_err(|error| daemon.explain(doing, &error))?;
        }
        let id = image::inspect(&daemon, &name).await?;
        let id = id.ok_or_else(|| RuntimeError::Docker {
            doing: doing.to_owned(),
            reason: "it took the image and does not have it".to_owned(),
        })?;
        Ok(Self {
            daemon,
            name,
            id,
            label,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A container of it that runs this command of the program and listens on `app_port`.
    pub fn spec(&self, command: &str, app_port: u16) -> ImageSpec {
        ImageSpec {
            pinned: Some(Pin::Local(self.id.clone())),
            cmd: Some(vec![command.to_owned()]),
            ..ImageSpec::plain(&self.name, app_port)
        }
    }

    /// Removes every container that was made of it, running or not, and then the image.
    ///
    /// A daemon that was asked for a container continues to create it after the client has ended,
    /// and lists it only when it is made; that also outlives the image. So for as long as `late`,
    /// containers that come afterwards are removed as well.
    pub async fn remove(self, late: Duration) -> Result<(), RuntimeError> {
        let began = Instant::now();
        let mut failures = 0;
        loop {
            match self.try_to_remove().await {
                Ok(()) if began.elapsed() >= late => return Ok(()),
                Ok(()) => {}
                Err(error) if failures == ATTEMPTS => return Err(error),
                Err(_) => failures += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_to_remove(&self) -> Result<(), RuntimeError> {
        let docker = self.daemon.connect().await?;
        let filters = HashMap::from([("label".to_owned(), vec![self.label.clone()])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = docker.list_containers(Some(options)).await;
        let found = found.map_err(|error| self.daemon.explain("listing containers", &error))?;
        for id in found.into_iter().filter_map(|container| container.id) {
            let options = RemoveContainerOptionsBuilder::default()
                .force(true)
                .v(true)
                .build();
            match docker.remove_container(&id, Some(options)).await {
                Ok(()) => {}
                Err(error) if daemon_error::is_missing(&error) => {}
                Err(error) => return Err(self.daemon.explain("removing the container", &error)),
            }
        }
        // Without force: a container that has come meanwhile keeps it, and is found next time.
        let options = RemoveImageOptionsBuilder::default().build();
        match docker.remove_image(&self.name, Some(options), None).await {
            Ok(_) => Ok(()),
            Err(error) if daemon_error::is_missing(&error) => Ok(()),
            Err(error) => {
                let doing = format!("removing the image `{}`", self.name);
                Err(self.daemon.explain(&doing, &error))
            }
        }
    }
}
