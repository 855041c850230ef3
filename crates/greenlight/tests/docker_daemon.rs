//! The daemon itself restarts, and registries refuse: a binary of its own, because everything else
//! on the daemon would be disturbed.
//!
//! `scripts/with-dockerd cargo test -p greenlight --offline --test docker_daemon -- --include-ignored`

#[path = "../../greenlight-agent/tests/docker/image.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod image;
#[path = "docker/registry.rs"]
mod registry;
#[path = "commands/shop.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod shop;

use registry::Registry;
use shop::Shop;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const WELL: &str = "proxy: { app_port: 3000, healthcheck: { interval: 500ms } }\n";
/// One daemon, one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_docker_daemon_that_restarts_ends_its_containers_and_the_agents_start_them_again() {
    let _alone = ALONE.lock().await;
    let shop = serving("greenlight-restart").await;
    let (shop, _up) = (&shop, shop.up());
    deploy(shop, "v1");

    restart_daemon(&[]);

    shop.wait_until_served("v1");
    // And the fleet takes deployments as before.
    deploy(shop, "v2");
    assert_eq!(shop.serves(), ["v2", "v2"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_docker_daemon_that_leaves_containers_alive_restarts_and_nothing_is_noticed() {
    let _alone = ALONE.lock().await;
    restart_daemon(&["--live-restore"]);
    let shop = serving("greenlight-alive").await;
    let (shop, _up) = (&shop, shop.up());
    deploy(shop, "v1");
    let before = shop.bodies("/start");

    stop_daemon();
    assert_eq!(shop.serves(), ["v1", "v1"]); // G9
    // An agent that starts now does not know what runs, and waits instead of starting it anew.
    shop.kill_agent("a");
    assert_eq!(shop.serves(), ["v1", "v1"]);
    start_daemon(&["--live-restore"]);

    shop.wait_until(|status| status["instances"]["a"]["live"]["shop"]["healthy"] == "yes");
    assert_eq!(shop.bodies("/start"), before);
    deploy(shop, "v2");
    assert_eq!(shop.serves(), ["v2", "v2"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn docker_pulls_by_digest_with_the_credentials_of_the_configuration() {
    let _alone = ALONE.lock().await;
    let docker = image::docker();
    // Letters that the two alphabets of base64 write differently, wherever they fall.
    let password = "??>>~~?>~ü";
    let registry = Registry::start("ci", password).await;
    let name = format!("{}/shop", registry.address());
    image::from_scratch(&docker, &format!("{name}:v1"), "").await;
    registry.push(&docker, &format!("{name}:v1")).await;
    image::untag(&docker, &format!("{name}:v1")).await;
    let shop = Shop::new();
    std::fs::write(shop.dir().join("password"), password).expect("a folder");
    let login = |username: &str| {
        format!(
            "{WELL}registry: {{ server: \"{}\", username: {username}, password: {{ file: password }} }}\n",
            registry.address()
        )
    };
    shop.configure_for(&format!("image: \"{name}\""), &login("stranger"));
    let _up = shop.up();

    let refused = shop.run(&["deploy", "--version", "v1"]);
    assert_eq!(refused.code, 3, "{refused}");
    assert!(refused.talk.contains("check `registry:`"), "{refused}");
    assert!(!format!("{refused}").contains(password), "{refused}");
    shop.configure_for(&format!("image: \"{name}\""), &login("ci"));
    deploy(&shop, "v1");

    assert_eq!(shop.serves(), ["v1", "v1"]);
    let pinned = shop.run(&["plan", "--version", "v1"]);
    assert!(pinned.data.contains(&format!("{name}:v1")), "{pinned}");
    assert!(registry.served_by_digest(), "it was pulled by name");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn docker_pulls_with_the_credentials_that_a_helper_of_the_machine_gives() {
    let _alone = ALONE.lock().await;
    let docker = image::docker();
    let registry = Registry::start("ci", "kept by a helper").await;
    let name = format!("{}/helped", registry.address());
    image::from_scratch(&docker, &format!("{name}:v1"), "").await;
    registry.push(&docker, &format!("{name}:v1")).await;
    image::untag(&docker, &format!("{name}:v1")).await;
    let shop = Shop::new();
    shop.configure_for(&format!("image: \"{name}\""), WELL);
    let helper = shop.dir().join("docker-credential-test");
    let gives = |secret: &str| {
        let answer = format!("{{\"ServerURL\":\"x\",\"Username\":\"ci\",\"Secret\":\"{secret}\"}}");
        let program = format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n");
        std::fs::write(&helper, program).expect("a folder");
        let anyone = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&helper, anyone).expect("it is ours");
    };
    gives("another");
    let config = format!(
        "{{\"credHelpers\":{{\"{}\":\"test\"}}}}",
        registry.address()
    );
    std::fs::write(shop.dir().join("config.json"), config).expect("a folder");
    let here = shop.dir().display().to_string();
    let path = format!("{here}:{}", std::env::var("PATH").expect("there is one"));
    let _up = shop.up_with(&[("DOCKER_CONFIG", &here), ("PATH", &path)]);

    let refused = shop.run(&["deploy", "--version", "v1"]);
    assert_eq!(refused.code, 3, "{refused}");
    gives("kept by a helper");
    deploy(&shop, "v1");

    assert_eq!(shop.serves(), ["v1", "v1"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_full_disk_of_docker_is_named_on_its_instance_and_changes_nothing() {
    let _alone = ALONE.lock().await;
    let docker = image::docker();
    let registry = Registry::start("ci", "password").await;
    let name = format!("{}/big", registry.address());
    image::big(&docker, &format!("{name}:v1")).await;
    registry.push(&docker, &format!("{name}:v1")).await;
    let shop = Shop::new();
    std::fs::write(shop.dir().join("password"), "password").expect("a folder");
    let login = format!(
        "{WELL}registry: {{ server: \"{}\", username: ci, password: {{ file: password }} }}\n",
        registry.address()
    );
    shop.configure_for(&format!("image: \"{name}\""), &login);
    // In the mount namespace of the tests alone.
    let small = tempfile::tempdir().expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "small"])
        .arg(small.path())
        .status();
    assert!(mounted.expect("mount runs").success());
    stop_daemon();
    let root = small.path().display().to_string();
    start_daemon(&["--data-root", &root]);
    let up = shop.up();

    let failed = shop.run(&["deploy", "--version", "v1"]);

    assert_eq!(failed.code, 1, "{failed}");
    assert!(failed.talk.contains("disk of docker is full"), "{failed}");
    assert!(failed.talk.contains("instance `"), "{failed}");
    drop(up);
    restart_daemon(&[]);
    let unmounted = Command::new("umount").arg("-l").arg(small.path()).status();
    assert!(unmounted.expect("umount runs").success());
}

/// A shop with two releases.
async fn serving(image: &str) -> Shop {
    let docker = image::docker();
    for version in ["v1", "v2"] {
        image::from_scratch(&docker, &format!("{image}:{version}"), "").await;
    }
    let shop = Shop::new();
    shop.configure_for(&format!("image: {image}"), WELL);
    shop
}

fn deploy(shop: &Shop, version: &str) {
    let deployed = shop.run(&["deploy", "--version", version]);
    assert_eq!(deployed.code, 0, "{deployed}");
}

fn restart_daemon(arguments: &[&str]) {
    stop_daemon();
    start_daemon(arguments);
}

fn stop_daemon() {
    let pid = std::fs::read_to_string(daemon().join("pid")).expect("it runs");
    let pid = pid
        .trim()
        .parse()
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.expect("a process number");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let deadline = Instant::now() + Duration::from_mins(3);
    while rustix::process::test_kill_process(pid).is_ok() {
        assert!(Instant::now() < deadline, "the daemon does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start_daemon(arguments: &[&str]) {
    let run = Command::new(daemon().join("run")).args(arguments).status();
    assert!(
        run.expect("it can be run").success(),
        "the daemon does not start"
    );
}

fn daemon() -> PathBuf {
    let dir = std::env::var_os("GREENLIGHT_DOCKERD");
    dir.expect("run the tests of docker with scripts/with-dockerd")
        .into()
}
