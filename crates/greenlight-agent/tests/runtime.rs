//! The process runtime passes the suite of all runtimes; so does the fake. What only processes
//! have is checked here.

#[macro_use]
mod conformance;

use conformance::runtime::{
    App, Subject, exited, free_port, launch, listed, logged, slot, start, stop, until,
};
use greenlight_agent::runtime::{Launch, ProcessRuntime, Running, Runtime};
use greenlight_protocol::{Color, Slot};
use greenlight_release::spec::Artifact;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

mod processes {
    runtime_conforms!(super::Processes::new());
}

mod fake {
    runtime_conforms!(crate::conformance::fake_runtime::FakeRuntime::default());
}

#[tokio::test]
async fn an_application_leads_a_process_group_of_its_own() {
    let processes = Processes::new();
    let runtime = processes.open();

    let running = start(&processes, &*runtime, App::Polite, Color::Blue, free_port()).await;

    let stat = stat(running.pid).expect("it runs");
    assert_eq!(stat.group, running.pid);
    stop(&*runtime, Color::Blue).await;
}

#[tokio::test]
async fn a_process_that_was_given_the_same_number_is_neither_listed_nor_stopped() {
    let processes = Processes::new();
    let stranger = processes.start_elsewhere();
    let before = stat(stranger).expect("it runs").started - 1;

    processes.record(|kept| {
        kept["running"]["pid"] = stranger.into();
        kept["started"] = before.into();
    });
    assert_eq!(listed(&*processes.open()).await, []);
    processes.record(|kept| kept["running"]["pid"] = stranger.into());
    stop(&*processes.open(), Color::Blue).await;

    assert!(stat(stranger).is_some(), "a stranger was stopped");
}

#[tokio::test]
async fn a_record_of_an_earlier_boot_speaks_of_nobody() {
    let processes = Processes::new();
    let stranger = processes.start_elsewhere();
    let started = stat(stranger).expect("it runs").started;

    processes.record(|kept| {
        kept["running"]["pid"] = stranger.into();
        kept["started"] = started.into();
        kept["boot"] = "an earlier one".into();
    });
    stop(&*processes.open(), Color::Blue).await;

    assert!(stat(stranger).is_some(), "a stranger was stopped");
}

#[tokio::test]
async fn the_death_of_an_application_that_another_process_started_is_noticed() {
    let processes = Processes::new();
    let runtime = processes.open();
    let adopted = processes.adopt(&*runtime).await;
    let death = tokio::spawn(runtime.exited(adopted.clone()));

    processes.kill(&adopted);

    death.await.expect("it is noticed");
    assert_eq!(listed(&*runtime).await, []);
}

#[tokio::test]
async fn an_application_that_another_process_started_is_stopped() {
    let processes = Processes::new();
    let runtime = processes.open();
    let adopted = processes.adopt(&*runtime).await;

    stop(&*runtime, Color::Blue).await;

    assert_eq!(stat(adopted.pid), None);
    assert_eq!(listed(&*runtime).await, []);
}

#[tokio::test]
async fn what_was_started_and_never_written_down_is_ended_by_the_next_agent() {
    let processes = Processes::new();
    let runtime = processes.open();
    start(&processes, &*runtime, App::Parent, Color::Blue, free_port()).await;
    logged(&*runtime, Color::Blue, "port=").await;
    std::fs::remove_file(processes.dir.path().join("shop-blue.json")).expect("its record");

    assert_eq!(listed(&*processes.open()).await, []);

    until("nothing is left", || processes.remaining().is_empty()).await;
}

#[tokio::test]
async fn a_stopped_application_leaves_only_its_log() {
    let processes = Processes::new();
    let runtime = processes.open();
    start(&processes, &*runtime, App::Polite, Color::Blue, free_port()).await;

    stop(&*runtime, Color::Blue).await;

    assert_eq!(processes.files(), ["shop-blue.log"]);
}

#[tokio::test]
async fn what_an_application_writes_is_bounded_and_read_across_the_files_that_it_fills() {
    let processes = Processes::new();
    let runtime = processes.open();
    let mut launch = processes.launch(App::Polite, slot(Color::Blue), free_port());
    let script = "seq 1 2000000; while :; do sleep 0.05; done";
    launch.artifact = Artifact::command(["sh", "-c", script].map(ToOwned::to_owned).to_vec());
    let running = runtime.start(launch).await.expect("sh runs");
    // The agent follows whatever it has started.
    let following = tokio::spawn(runtime.exited(running));

    until("it is put aside", || {
        processes.files().contains(&"shop-blue.log.1".to_owned())
    })
    .await;
    logged(&*runtime, Color::Blue, "2000000").await;

    let last = runtime.logs(&slot(Color::Blue), 100).await;
    let expected: Vec<_> = (1_999_901..=2_000_000)
        .map(|n: u32| n.to_string())
        .collect();
    assert_eq!(last, expected);
    stop(&*runtime, Color::Blue).await;
    following.await.expect("it ends");
}

#[tokio::test]
async fn an_application_that_died_leaves_only_its_log() {
    let processes = Processes::new();
    let runtime = processes.open();
    let failing = start(
        &processes,
        &*runtime,
        App::Failing,
        Color::Blue,
        free_port(),
    )
    .await;

    exited(&*runtime, failing).await;

    until("its record is gone", || {
        processes.files() == ["shop-blue.log"]
    })
    .await;
}

/// Process runtimes over one folder, and everything they started.
struct Processes {
    dir: TempDir,
}

impl Processes {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { dir }
    }

    /// The mark that everything started here carries in its environment.
    fn mark(&self) -> String {
        format!("CONFORMANCE_DIR={}", self.dir.path().display())
    }

    /// Writes a record by hand: one that a runtime wrote elsewhere, changed.
    fn record(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let port = free_port();
        let running = Running {
            launch: self.launch(App::Polite, slot(Color::Blue), port),
            pid: 0,
            address: ([127, 0, 0, 1], port).into(),
            container: None,
        };
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let mut kept = serde_json::json!({
            "running": running,
            "started": 0,
            "boot": boot.expect("Linux"),
        });
        change(&mut kept);
        let path = self.dir.path().join("shop-blue.json");
        std::fs::write(path, kept.to_string()).expect("it can be written");
    }

    /// An application that runs and is no child of this process, as after an agent's restart.
    async fn adopt(&self, runtime: &dyn Runtime) -> Running {
        let stranger = self.start_elsewhere();
        let started = stat(stranger).expect("it runs").started;
        self.record(|kept| {
            kept["running"]["pid"] = stranger.into();
            kept["started"] = started.into();
        });
        let [adopted] = &listed(runtime).await[..] else {
            panic!("it is not found")
        };
        adopted.clone()
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.into_string().expect("a plain name"))
            .collect();
        names.sort();
        names
    }

    /// Starts a process that is no child of this one, and leads its own group.
    fn start_elsewhere(&self) -> i32 {
        let script = "setsid sh -c 'while :; do sleep 0.05; done' >/dev/null 2>&1 & echo $!";
        let (name, value) = self.mark_pair();
        let output = Command::new("sh")
            .args(["-c", script])
            .env(name, value)
            .stdin(Stdio::null())
            .process_group(0)
            .output()
            .expect("sh runs");
        let pid = String::from_utf8_lossy(&output.stdout);
        let pid = pid.trim().parse().expect("a process number");
        while stat(pid).expect("it runs").group != pid {
            std::thread::yield_now();
        }
        pid
    }

    fn mark_pair(&self) -> (String, String) {
        let mark = self.mark();
        let (name, value) = mark.split_once('=').expect("a pair");
        (name.to_owned(), value.to_owned())
    }

    fn alive(&self) -> Vec<i32> {
        let mark = self.mark();
        let entries = std::fs::read_dir("/proc").expect("Linux");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| variable == mark.as_bytes()) && stat(*pid).is_some()
        })
        .collect()
    }
}

impl Subject for Processes {
    fn open(&self) -> Arc<dyn Runtime> {
        Arc::new(ProcessRuntime::new(self.dir.path()).expect("a folder"))
    }

    fn launch(&self, app: App, slot: Slot, port: u16) -> Launch {
        let mut launch = launch(app, slot, port);
        launch.env.extend([self.mark_pair()]);
        launch
    }

    fn kill(&self, running: &Running) {
        let pid = Pid::from_raw(running.pid).expect("a process number");
        kill_process(pid, Signal::KILL).expect("it runs");
    }

    fn remaining(&self) -> Vec<String> {
        let describe = |pid: i32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("{pid}: {}", String::from_utf8_lossy(&command))
        };
        self.alive().into_iter().map(describe).collect()
    }
}

impl Drop for Processes {
    /// Ends what a failed test has left, so that it harms no other.
    fn drop(&mut self) {
        for pid in self.alive() {
            if let Some(group) = stat(pid).and_then(|stat| Pid::from_raw(stat.group)) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    group: i32,
    started: u64,
}

/// What the system says of a process; `None` if it is dead.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split(' ').collect();
    if fields[0] == "Z" || fields[0] == "X" {
        return None;
    }
    Some(Stat {
        group: fields[2].parse().ok()?,
        started: fields[19].parse().ok()?,
    })
}
