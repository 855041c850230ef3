//! The docker runtime passes the suite of all runtimes.

#[macro_use]
mod conformance {
    #[macro_use]
    pub(crate) mod runtime;
}
#[path = "docker/image.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod image;

use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use conformance::runtime::{App, Subject, launch};
use greenlight_agent::runtime::{DockerRuntime, Launch, Running, Runtime};
use greenlight_protocol::Slot;
use greenlight_release::spec::{Artifact, ImageSpec};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::OnceCell;

mod docker {
    runtime_conforms!(ignored "needs docker", super::Containers::new().await);
}

/// Docker runtimes over one folder, and every container they made.
struct Containers {
    dir: TempDir,
}

impl Containers {
    async fn new() -> Self {
        static IMAGE: OnceCell<()> = OnceCell::const_new();
        IMAGE.get_or_init(|| image::shell(IMAGE_NAME)).await;
        let dir = tempfile::tempdir().expect("a folder");
        Self { dir }
    }

    /// The label that everything made here carries.
    fn mark(&self) -> (String, String) {
        let dir = self.dir.path().display().to_string();
        ("conformance".to_owned(), dir)
    }

    async fn alive(&self) -> Vec<String> {
        let (name, value) = self.mark();
        let filters = HashMap::from([("label".to_owned(), vec![format!("{name}={value}")])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = image::docker().list_containers(Some(options)).await;
        let found = found.expect("the daemon answers").into_iter();
        // What has ended by itself is still there to be asked; what was never started is not.
        let left = found.filter(|found| format!("{:?}", found.state) != "Some(EXITED)");
        left.filter_map(|found| found.id).collect()
    }
}

const IMAGE_NAME: &str = "greenlight-conformance:v1";

impl Subject for Containers {
    fn open(&self) -> Arc<dyn Runtime> {
        let host = std::env::var("DOCKER_HOST").ok();
        Arc::new(DockerRuntime::new(self.dir.path(), host.as_deref()).expect("a folder"))
    }

    fn launch(&self, app: App, slot: Slot, port: u16) -> Launch {
        Launch {
            artifact: Artifact::Image(Box::new(ImageSpec {
                cmd: Some(app.command()),
                labels: BTreeMap::from([self.mark()]),
                ..ImageSpec::plain(IMAGE_NAME, port)
            })),
            ..launch(app, slot, port)
        }
    }

    fn kill(&self, running: &Running) {
        let container = running.container.clone().expect("it is in one");
        let options = KillContainerOptionsBuilder::default().build();
        let kill = async {
            image::docker()
                .kill_container(&container.id, Some(options))
                .await
        };
        block_on(kill).expect("it runs");
    }

    fn remaining(&self) -> Vec<String> {
        block_on(self.alive())
    }
}

impl Drop for Containers {
    /// Removes what a test has left, so that it harms no other.
    fn drop(&mut self) {
        block_on(async {
            for id in self.alive().await {
                let options = RemoveContainerOptionsBuilder::default().force(true).build();
                let _ = image::docker().remove_container(&id, Some(options)).await;
            }
        });
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}
