//! What the demo deploys: the sample application, which is this very program; as a process, or in
//! a container of an image that is made for this run.

use super::DemoError;
use greenlight_agent::runtime::OwnImage;
use greenlight_release::runtime::RuntimeKind;
use greenlight_release::spec::Artifact;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the image is called.
const IMAGE: &str = "greenlight-demo";
/// The command of this program that is the sample.
const COMMAND: &str = "sample-app";
/// The port in the container.
const APP_PORT: u16 = 3000;

/// How long a daemon may take for a container that no one waits for any more.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// How the sample application is run.
pub(super) enum Application {
    Process { program: String },
    Container { image: OwnImage },
}

impl Application {
    /// Makes what has to be made; for containers that is an image.
    pub(super) async fn make(runtime: RuntimeKind) -> Result<Self, DemoError> {
        let program = std::env::current_exe()?;
        Ok(match runtime {
            RuntimeKind::Process => Self::Process {
                program: program.display().to_string(),
            },
            RuntimeKind::Docker => {
                let docker = std::env::var("DOCKER_HOST").ok();
                Self::Container {
                    image: OwnImage::make(&program, IMAGE, docker.as_deref()).await?,
                }
            }
        })
    }

    /// What a release of it runs.
    pub(super) fn artifact(&self) -> Artifact {
        match self {
            Self::Process { program } => {
                Artifact::command(vec![program.clone(), COMMAND.to_owned()])
            }
            Self::Container { image } => Artifact::Image(Box::new(image.spec(COMMAND, APP_PORT))),
        }
    }

    /// What every release of it has in its environment.
    pub(super) fn env(&self) -> BTreeMap<String, String> {
        let own = match self {
            Self::Process { .. } => None,
            Self::Container { .. } => Some(("LISTEN_ON".to_owned(), "0.0.0.0".to_owned())),
        };
        let startup = ("STARTUP_MS".to_owned(), "200".to_owned());
        own.into_iter().chain([startup]).collect()
    }

    /// How long a release may take to be ready that never will be. The instance where nothing is
    /// wrong with it must be ready before; a daemon needs a second or two for a container.
    pub(super) fn ready_within(&self) -> Duration {
        match self {
            Self::Process { .. } => Duration::from_secs(5),
            Self::Container { .. } => Duration::from_secs(8),
        }
    }

    /// A remark about it for people, if there is one.
    pub(super) fn described(&self) -> Option<String> {
        match self {
            Self::Process { .. } => None,
            Self::Container { image } => Some(format!(
                "image `{}`: made of this program, for this run; nothing is pulled",
                image.name()
            )),
        }
    }

    /// Removes what was made, and everything that runs from it. If the demo did not finish,
    /// some of it may still be on its way.
    pub(super) async fn remove(self, came_to_end: bool) {
        match self {
            Self::Process { .. } => {}
            Self::Container { image } => {
                let name = image.name().to_owned();
                let late = match came_to_end {
                    true => Duration::ZERO,
                    false => ON_ITS_WAY,
                };
                if let Err(error) = image.remove(late).await {
                    tracing::error!(%error, name, "the image of the demo is left behind");
                }
            }
        }
    }
}
