//! A Docker daemon of a host's own.
//!
//! One for each host rather than one for all: releases then publish their ports on the loopback
//! of their own host, as on real machines, and every host can use the same pair of ports. A
//! daemon that is shared would publish everything in the namespace that it runs in.

use crate::network::{Namespace, Running};
use bollard::Docker;
use bollard::query_parameters::{
    ImportImageOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_mins(3);

pub(crate) struct Daemon {
    dir: PathBuf,
    process: Running,
}

impl Daemon {
    pub(crate) fn start(namespace: &Namespace, dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        let log = std::fs::File::create(dir.join("log")).expect("a folder");
        let mut command = Command::new("dockerd");
        for (option, file) in [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(option).arg(dir.join(file));
        }
        command.arg("--host").arg(socket(dir));
        command.env_remove("DOCKER_HOST").stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor"));
        command.stderr(log);
        let daemon = Self {
            process: namespace.start(&mut command),
            dir: dir.to_owned(),
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while !block_on(async {
            match daemon.client() {
                Ok(client) => client.ping().await.is_ok(),
                Err(_) => false,
            }
        }) {
            let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    pub(crate) fn socket(&self) -> String {
        socket(&self.dir)
    }

    fn client(&self) -> Result<Docker, bollard::errors::Error> {
        Docker::connect_with_unix(&self.socket(), 60, bollard::API_DEFAULT_VERSION)
    }

    /// Brings an image here from another daemon, unchanged.
    pub(crate) fn load(&self, from: &Docker, image: &str) {
        block_on(async {
            let mut tar = Vec::new();
            let mut parts = std::pin::pin!(from.export_image(image));
            while let Some(part) = parts.next().await {
                tar.extend_from_slice(&part.expect("the image is there"));
            }
            let client = self.client().expect("the daemon runs");
            let options = ImportImageOptionsBuilder::default().build();
            let body = bollard::body_full(tar.into());
            let mut steps = std::pin::pin!(client.import_image(options, body, None));
            while let Some(step) = steps.next().await {
                step.expect("the image can be loaded");
            }
        });
    }

    /// The images of the containers that run.
    pub(crate) fn running(&self) -> Vec<String> {
        let listed = block_on(async {
            let options = ListContainersOptionsBuilder::default().build();
            let client = self.client()?;
            client.list_containers(Some(options)).await
        });
        let listed = listed.expect("the daemon answers").into_iter();
        listed.filter_map(|container| container.image).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Containers are in namespaces of their own, and would not end with the host's.
        let removed: Result<(), bollard::errors::Error> = block_on(async {
            let client = self.client()?;
            let options = ListContainersOptionsBuilder::default().all(true).build();
            for container in client.list_containers(Some(options)).await? {
                let options = RemoveContainerOptionsBuilder::default().force(true).build();
                let id = container.id.unwrap_or_default();
                client.remove_container(&id, Some(options)).await?;
            }
            Ok(())
        });
        if let Err(error) = removed {
            eprintln!("containers may be left: {error}");
        }
        self.process.terminate();
    }
}

fn socket(dir: &Path) -> String {
    format!("unix://{}", dir.join("docker.sock").display())
}

/// Its callers are in threads without a runtime, and in guards.
fn block_on<T: Send>(act: impl Future<Output = T> + Send) -> T {
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(act)
        });
        thread.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
