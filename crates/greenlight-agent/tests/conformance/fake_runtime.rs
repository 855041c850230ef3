//! A runtime in memory, for tests that need applications to start, die and stop at once.
//!
//! What an application does is read from its command: [`App`] by name.

use super::runtime::{App, Subject, launch};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_agent::runtime::{Launch, Running, Runtime, RuntimeError};
use greenlight_protocol::Slot;
use greenlight_release::spec::Artifact;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A machine in memory. Clones are the same machine.
#[derive(Clone, Default)]
pub(crate) struct FakeRuntime {
    slots: Arc<Mutex<BTreeMap<Slot, Fake>>>,
}

/// What is or was in a slot.
struct Fake {
    running: Running,
    app: App,
    log: Vec<String>,
    /// How it ended, once it has.
    ended: watch::Sender<Option<String>>,
}

impl FakeRuntime {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<Slot, Fake>> {
        self.slots.lock()
    }

    fn begin(&self, launch: Launch) -> Result<Running, RuntimeError> {
        let slot = launch.slot.clone();
        let app = match command(&launch).first().map(String::as_str) {
            None => return Err(RuntimeError::EmptyCommand(slot)),
            Some("polite" | "parent") => App::Polite,
            Some("stubborn") => App::Stubborn,
            Some("failing") => App::Failing,
            Some(program) => {
                return Err(RuntimeError::Spawn {
                    program: program.to_owned(),
                    source: io::ErrorKind::NotFound.into(),
                });
            }
        };
        let port = launch.port;
        if TcpListener::bind(("127.0.0.1", port)).is_err() {
            return Err(RuntimeError::PortTaken { slot, port });
        }
        let (log, ended) = match app {
            App::Failing => (lines(&["one", "two", "three"]), Some("status 7".to_owned())),
            App::Stubborn => (lines(&["started"]), None),
            App::Polite | App::Parent | App::BadParent | App::Missing => {
                (vec![environment(&launch)], None)
            }
        };
        let mut slots = self.slots();
        let pid = slots.values().map(|fake| fake.running.pid).max();
        let running = Running {
            address: ([127, 0, 0, 1], launch.port).into(),
            launch,
            pid: pid.unwrap_or(0) + 1,
            container: None,
        };
        let fake = Fake {
            running: running.clone(),
            app,
            log,
            ended: watch::Sender::new(ended),
        };
        slots.insert(slot, fake);
        Ok(running)
    }

    fn end(&self, slot: &Slot, how: &str) {
        if let Some(fake) = self.slots().get_mut(slot) {
            fake.ended.send_if_modified(|ended| {
                let first = ended.is_none();
                ended.get_or_insert_with(|| how.to_owned());
                first
            });
        }
    }
}

impl Runtime for FakeRuntime {
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Running, RuntimeError>> {
        async move { self.begin(launch) }.boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Running>, RuntimeError>> {
        async move {
            let slots = self.slots();
            let running = slots.values().filter(|fake| fake.ended.borrow().is_none());
            Ok(running.map(|fake| fake.running.clone()).collect())
        }
        .boxed()
    }

    fn exited(&self, running: Running) -> BoxFuture<'static, String> {
        let slots = self.slots();
        let fake = slots.get(&running.launch.slot);
        let ended = fake
            .filter(|fake| fake.running == running)
            .map(|fake| fake.ended.subscribe());
        async move {
            let Some(mut ended) = ended else {
                return "it ended while no agent was watching".to_owned();
            };
            let how = ended.wait_for(Option::is_some).await;
            how.ok()
                .and_then(|how| how.clone())
                .unwrap_or_else(|| "its machine is gone".to_owned())
        }
        .boxed()
    }

    fn stop(&self, slot: Slot, timeout: Duration) -> BoxFuture<'_, Result<(), RuntimeError>> {
        async move {
            let app = self.slots().get(&slot).map(|fake| fake.app);
            if app == Some(App::Stubborn) {
                tokio::time::sleep(timeout).await;
            }
            if let Some(fake) = self.slots().get_mut(&slot)
                && fake.app == App::Polite
                && fake.ended.borrow().is_none()
            {
                fake.log.push("stopping".to_owned());
            }
            self.end(&slot, "it was stopped");
            Ok(())
        }
        .boxed()
    }

    fn logs<'a>(&'a self, slot: &'a Slot, lines: usize) -> BoxFuture<'a, Vec<String>> {
        async move {
            let slots = self.slots();
            let log = slots.get(slot).map_or(&[][..], |fake| &fake.log);
            log[log.len().saturating_sub(lines)..].to_vec()
        }
        .boxed()
    }
}

impl Subject for FakeRuntime {
    fn open(&self) -> Arc<dyn Runtime> {
        Arc::new(self.clone())
    }

    fn launch(&self, app: App, slot: Slot, port: u16) -> Launch {
        let name = match app {
            App::Polite => "polite",
            App::Stubborn => "stubborn",
            // There are no children in memory.
            App::Parent => "parent",
            App::BadParent | App::Failing => "failing",
            App::Missing => "no-such-program-anywhere",
        };
        let argument = "argument-of-${VERSION}-on-${PORT}";
        Launch {
            artifact: Artifact::Command {
                command: vec![name.to_owned(), argument.to_owned()],
                working_dir: None,
            },
            ..launch(app, slot, port)
        }
    }

    fn kill(&self, running: &Running) {
        self.end(&running.launch.slot, "it was killed by signal 9");
    }

    fn remaining(&self) -> Vec<String> {
        let slots = self.slots();
        let alive = slots.values().filter(|fake| fake.ended.borrow().is_none());
        alive.map(|fake| format!("{:?}", fake.running)).collect()
    }
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn command(launch: &Launch) -> &[String] {
    match &launch.artifact {
        Artifact::Command { command, .. } => command,
        Artifact::Image(_) => &[],
    }
}

fn environment(launch: &Launch) -> String {
    let fill = |text: &str| {
        text.replace("${PORT}", &launch.port.to_string())
            .replace("${VERSION}", &launch.version)
    };
    format!(
        "port={} version={} service={} color={} incarnation={} greeting={} argument={}",
        launch.port,
        launch.version,
        launch.slot.service,
        launch.slot.color,
        launch.incarnation,
        fill(launch.env.get("GREETING").map_or("", String::as_str)),
        fill(command(launch).get(1).map_or("", String::as_str)),
    )
}
