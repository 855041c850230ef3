//! The main job, end to end, with real processes, real traffic and a late instance.

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder};
use greenlight::demo::DemoReport;
use greenlight::runtime::RuntimeKind;
use greenlight_protocol::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use tokio::sync::Mutex;

/// A daemon for one demo at a time: each has a load of its own, and judges by it.
static ALONE: Mutex<()> = Mutex::const_new(());

#[test]
fn the_demo_cuts_the_fleet_over_with_no_failed_request_and_no_mixed_window() {
    let report = run(&[]);
    nothing_failed_and_nothing_mixed(&report);
}

#[test]
#[ignore = "needs nginx"]
fn the_demo_behind_nginx_has_no_failed_request_and_no_mixed_window_either() {
    let report = run(&["--front", "nginx"]);
    nothing_failed_and_nothing_mixed(&report);
}

#[test]
#[ignore = "needs nginx"]
fn the_demo_with_an_nginx_that_is_reloaded_ends_whole_and_measures_instead_of_claiming() {
    let report = run(&["--front", "nginx_reload"]);
    let claims = report.deployments.iter().flat_map(|d| &d.checks);
    for check in claims {
        assert!(check.holds, "{}", check.claim);
        assert!(
            !check.claim.contains("stopped admitting"),
            "{}",
            check.claim
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn the_demo_in_docker_has_no_failed_request_and_leaves_nothing_behind() {
    let report = in_docker(&["--front", "builtin"]).await;
    nothing_failed_and_nothing_mixed(&report);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker and nginx"]
async fn the_demo_in_docker_behind_nginx_has_no_failed_request_and_leaves_nothing_behind() {
    let report = in_docker(&["--front", "nginx"]).await;
    nothing_failed_and_nothing_mixed(&report);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker and nginx"]
async fn the_demo_in_docker_with_an_nginx_that_is_reloaded_ends_whole_and_leaves_nothing_behind() {
    let report = in_docker(&["--front", "nginx_reload"]).await;
    let seen = |report: &DemoReport| report.deployments.iter().all(|d| d.requests > 0);
    assert!(seen(&report));
    for check in report.deployments.iter().flat_map(|d| &d.checks) {
        assert!(check.holds, "{}", check.claim);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_demo_in_docker_that_is_interrupted_while_it_starts_containers_leaves_nothing_behind() {
    let _alone = ALONE.lock().await;
    let docker = daemon();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_greenlight"))
        .args(["demo", "--runtime", "docker"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut talk = BufReader::new(demo.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("preparing") {
        line.clear();
        let read = talk.read_line(&mut line).expect("it is text");
        assert!(read > 0, "it has ended");
    }

    let pid = i32::try_from(demo.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a number"), Signal::INT).expect("it runs");
    let mut rest = String::new();
    talk.read_to_string(&mut rest).expect("it is text");
    let ended = demo.wait().expect("it was started");

    assert_eq!(ended.code(), Some(1), "{rest}");
    assert!(rest.contains("interrupted"), "{rest}");
    assert_eq!(left(&docker).await, (0, 0), "{rest}");
}

#[test]
fn a_demo_without_its_docker_says_what_to_do_and_starts_nothing() {
    let demo = Command::new(env!("CARGO_BIN_EXE_greenlight"))
        .args(["demo", "--runtime", "docker"])
        .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
        .output()
        .expect("the binary runs");
    let talk = String::from_utf8_lossy(&demo.stderr);

    assert_eq!(demo.status.code(), Some(1), "{talk}");
    assert!(talk.contains("/nowhere/docker.sock"), "{talk}");
    assert!(talk.contains("start it, or name its socket"), "{talk}");
    assert!(!talk.contains("instances"), "{talk}");
}

/// Runs the demo with containers; nothing of it may be left on the daemon.
async fn in_docker(arguments: &[&str]) -> DemoReport {
    let _alone = ALONE.lock().await;
    let docker = daemon();
    let arguments = [&["--runtime", "docker"], arguments].concat();
    let report = tokio::task::block_in_place(|| run(&arguments));
    assert_eq!(report.runtime, RuntimeKind::Docker);
    assert_eq!(left(&docker).await, (0, 0));
    report
}

/// The daemon that `scripts/with-dockerd` started.
fn daemon() -> Docker {
    assert!(
        std::env::var_os("GREENLIGHT_DOCKERD").is_some(),
        "run the tests of docker with scripts/with-dockerd"
    );
    Docker::connect_with_unix_defaults().expect("the daemon runs")
}

/// Containers and images that a demo has made and not removed.
async fn left(docker: &Docker) -> (usize, usize) {
    let label = HashMap::from([("label".to_owned(), vec!["greenlight.own-image".to_owned()])]);
    let containers = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&label);
    let containers = docker.list_containers(Some(containers.build())).await;
    let images = ListImagesOptionsBuilder::default()
        .all(true)
        .filters(&label);
    let images = docker.list_images(Some(images.build())).await;
    (
        containers.expect("the daemon answers").len(),
        images.expect("the daemon answers").len(),
    )
}

/// Runs the demo; it must end as its story says.
fn run(arguments: &[&str]) -> DemoReport {
    let demo = Command::new(env!("CARGO_BIN_EXE_greenlight"))
        .args(["demo", "--json"])
        .args(arguments)
        .output()
        .expect("the binary runs");
    let talk = String::from_utf8_lossy(&demo.stderr);
    let report: DemoReport =
        serde_json::from_slice(&demo.stdout).unwrap_or_else(|error| panic!("{error}\n{talk}"));
    let outcomes: Vec<_> = report.deployments.iter().map(|d| &d.outcome).collect();
    assert!(
        matches!(
            outcomes[..],
            [
                Some(Outcome::Promoted),
                Some(Outcome::Aborted { .. }), // G2
                Some(Outcome::RolledBack { .. }),
                Some(Outcome::Promoted),
                Some(Outcome::Promoted),
            ]
        ),
        "{outcomes:?}"
    );
    assert!(demo.status.success(), "{talk}");
    report
}

fn nothing_failed_and_nothing_mixed(report: &DemoReport) {
    for deployment in &report.deployments {
        let title = &deployment.title;
        assert!(deployment.requests > 0, "{title}");
        assert_eq!(deployment.failed, 0, "{title}: {:?}", deployment.failures); // G3
        assert_eq!(deployment.stale, 0, "{title}"); // G1
        for check in &deployment.checks {
            assert!(check.holds, "{title}: {}", check.claim);
        }
    }
}
