//! The main job, end to end, with real processes, real traffic and a late instance.

#[path = "commands/ran.rs"]
mod ran;

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder};
use ran::Ran;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use tokio::sync::{Mutex, MutexGuard};

/// One demo at a time: each has a load of its own, and judges by it.
static ALONE: Mutex<()> = Mutex::const_new(());

#[test]
fn the_demo_cuts_the_fleet_over_with_no_failed_request_and_no_mixed_window() {
    nothing_failed_and_nothing_mixed(&well_ran(as_it_is()));
}

#[test]
fn the_demo_says_in_its_document_what_users_and_instances_saw() {
    let report = document(as_it_is());

    assert_eq!(report["injected_delay_ms"], 20);
    assert_eq!(report["front"], "builtin");
    assert_eq!(report["runtime"], "process");
    assert_eq!(report["barrier"], "fleet");
    let releases: Vec<_> = deployments(&report).iter().map(|d| &d["release"]).collect();
    assert_eq!(releases, ["v2", "v3", "v4", "v5", "v2"]);
    let held = deployments(&report).iter().map(|d| number(d, "held"));
    assert!(held.sum::<f64>() > 0.0, "no gate held anything");
    for deployment in deployments(&report) {
        let cut_overs = match outcome(deployment) {
            "promoted" => 1,
            "rolled_back" => 2,
            _ => {
                assert_eq!(deployment["hold_ms"], 0.0, "{deployment:#}");
                continue;
            }
        };
        assert!(number(deployment, "hold_ms") > 0.0, "{deployment:#}");
        let waited = number(deployment, "max_held_ms") > 0.0;
        assert_eq!(waited, number(deployment, "held") > 0.0, "{deployment:#}");
        let evidence = deployment["instances"].as_array().expect("a list");
        assert_eq!(evidence.len(), cut_overs, "{deployment:#}");
        let evidence = evidence.iter().flat_map(|its| [&its["a"], &its["b"]]);
        for its in evidence {
            // The order of the server's messages, and what the gate saw by its own clock.
            let order = |key| number(its, key);
            assert!(order("held_order") < order("switch_order"), "{its:#}");
            let gate = |key| number(&its["gate"]["services"]["sample"], key);
            assert!(gate("held_at_ns") < gate("opened_at_ns"), "{its:#}");
        }
    }
}

#[test]
fn a_demo_in_a_pipe_tells_each_phase_and_each_step_of_an_instance_in_a_line() {
    let ran = as_it_is();
    let (_, talk) = ran
        .talk
        .split_once("(a) a good release")
        .expect("it says so");
    let (talk, _) = talk.split_once("(b) ").expect("it says so");
    // After the time since the beginning.
    let mut told: BTreeMap<_, usize> = BTreeMap::new();
    for (_, line) in talk.lines().filter_map(|line| line.split_once("] ")) {
        *told.entry(line).or_default() += 1;
    }
    let phases = [
        "preparing",
        "checking peers",
        "arming",
        "holding",
        "switching",
        "watching",
        "confirming",
    ];
    let phases = phases.map(|phase| format!("cut-over 2: {phase}"));
    let steps = [
        "prepared",
        "sees its peers ready",
        "armed",
        "held",
        "switched",
    ];
    let steps = ["a", "b"].map(|name| steps.map(|step| format!("  {name}: {step}")));
    for line in phases.iter().chain(steps.as_flattened()) {
        assert_eq!(told.get(line.as_str()), Some(&1), "`{line}` in {talk}");
    }
    assert_eq!(told.get("promoted"), Some(&1), "{talk}");
}

#[test]
fn without_the_barrier_the_demo_finds_stale_answers_and_a_split_fleet() {
    let ran = run(&["--without-barrier", "--inject-delay", "50ms"]);
    let report = document(&ran);

    assert_eq!(ran.code, 1, "{ran}");
    assert_eq!(report["barrier"], "none");
    assert_eq!(report["injected_delay_ms"], 50);
    assert_eq!(report["held_up"], false);
    let (good, fails_on_b) = (&deployments(&report)[0], &deployments(&report)[1]);
    assert_eq!(good["outcome"]["outcome"], "promoted", "{good:#}");
    assert!(number(good, "stale") > 0.0, "{good:#}");
    assert!(number(good, "mixed_window_ms") > 0.0, "{good:#}");
    assert_eq!(good["failed"], 0, "{good:#}");
    assert_eq!(fails_on_b["outcome"], Value::Null, "{fails_on_b:#}");
    let split = &fails_on_b["split"];
    assert_eq!(split["a"]["outcome"], "promoted", "{split:#}");
    assert_eq!(split["b"]["outcome"], "aborted", "{split:#}");
}

#[test]
#[ignore = "needs nginx"]
fn the_demo_behind_nginx_has_no_failed_request_and_no_mixed_window_either() {
    nothing_failed_and_nothing_mixed(&well_run(&["--front", "nginx"]));
}

#[test]
#[ignore = "needs nginx"]
fn the_demo_with_an_nginx_that_is_reloaded_ends_whole_and_measures_instead_of_claiming() {
    let report = well_run(&["--front", "nginx_reload"]);
    for claim in claims(&report) {
        let claim = claim["claim"].as_str().expect("a sentence");
        assert!(!claim.contains("stopped admitting"), "{claim}");
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
    assert_eq!(report["front"], "nginx_reload");
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
async fn in_docker(arguments: &[&str]) -> Value {
    let alone = ALONE.lock().await;
    let docker = daemon();
    let arguments = [&["--runtime", "docker"], arguments].concat();
    let report = tokio::task::block_in_place(|| well_ran(&run_beside(&alone, &arguments)));
    assert_eq!(report["runtime"], "docker");
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

/// The demo as everybody starts it first; it is run once for all tests.
fn as_it_is() -> &'static Ran {
    static RAN: OnceLock<Ran> = OnceLock::new();
    RAN.get_or_init(|| run(&[]))
}

/// Runs the demo, which must end as its story says; its document.
fn well_run(arguments: &[&str]) -> Value {
    well_ran(&run(arguments))
}

fn run(arguments: &[&str]) -> Ran {
    run_beside(&ALONE.blocking_lock(), arguments)
}

fn run_beside(_alone: &MutexGuard<'_, ()>, arguments: &[&str]) -> Ran {
    let demo = Command::new(env!("CARGO_BIN_EXE_greenlight"))
        .args(["demo", "--json"])
        .args(arguments)
        .output();
    demo.expect("the binary runs").into()
}

/// Every claim was made and holds, and everything ended as the story says.
fn well_ran(ran: &Ran) -> Value {
    let report = document(ran);
    ran.ended(0);
    assert_eq!(report["held_up"], true);
    assert_eq!(report["faults"], Value::Array(Vec::new()));
    let outcomes: Vec<_> = deployments(&report).iter().map(outcome).collect();
    assert_eq!(
        outcomes,
        ["promoted", "aborted", "rolled_back", "promoted", "promoted"] // G2
    );
    for deployment in deployments(&report) {
        assert!(number(deployment, "requests") > 0.0, "{deployment:#}");
        let release = deployment["release"].as_str().expect("a label");
        let answered = &deployment["answered"][release];
        match outcome(deployment) {
            "aborted" => assert_eq!(*answered, Value::Null, "{deployment:#}"), // G2
            _ => assert_eq!(*answered, json!(["a", "b"]), "{deployment:#}"),
        }
    }
    for claim in claims(&report) {
        assert_eq!(claim["holds"], true, "{claim}");
    }
    report
}

/// And users have seen nothing of it.
fn nothing_failed_and_nothing_mixed(report: &Value) {
    for deployment in deployments(report) {
        assert_eq!(deployment["failed"], 0, "{deployment:#}"); // G3
        assert_eq!(deployment["failures"], json!({}), "{deployment:#}");
        assert_eq!(deployment["stale"], 0, "{deployment:#}"); // G1
        assert_eq!(deployment["mixed_window_ms"], 0.0, "{deployment:#}");
        let cut_overs = match outcome(deployment) {
            "promoted" => 1,
            "rolled_back" => 2,
            _ => 0,
        };
        let claims = deployment["checks"].as_array().expect("a list");
        assert_eq!(claims.len(), 4 * 2 * cut_overs, "{claims:?}");
    }
}

fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.data).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

fn deployments(report: &Value) -> &[Value] {
    report["deployments"].as_array().expect("a list")
}

fn claims(report: &Value) -> impl Iterator<Item = &Value> {
    let claims = deployments(report).iter().map(|d| d["checks"].as_array());
    claims.flat_map(|claims| claims.expect("a list"))
}

fn outcome(deployment: &Value) -> &str {
    deployment["outcome"]["outcome"].as_str().expect("a word")
}

fn number(of: &Value, key: &str) -> f64 {
    let number = of[key].as_f64();
    number.unwrap_or_else(|| panic!("`{key}` is no number in {of:#}"))
}
