//! Containers end to end: a fleet of two instances, real images, a real daemon.
//!
//! `scripts/with-dockerd cargo test -p greenlight --offline docker -- --include-ignored` runs them.

#[path = "../../greenlight-agent/tests/docker/image.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod image;
#[path = "docker/load.rs"]
mod load;
#[path = "commands/shop.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod shop;

use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptionsBuilder;
use load::Load;
use shop::Shop;
use std::path::Path;
use std::time::{Duration, Instant};

const WELL: &str = "proxy: { app_port: 3000, healthcheck: { interval: 500ms } }\n";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_docker_release_replaces_another_under_load_and_nothing_fails() {
    let docker = image::docker();
    for version in ["v1", "v2", "v3"] {
        image::from_scratch(&docker, &format!("greenlight-load:{version}"), "").await;
    }
    let shop = Shop::new();
    shop.configure_for("image: greenlight-load", WELL);
    let up = shop.up();
    deploy(&shop, "v1");
    assert_eq!(shop.serves(), ["v1", "v1"]);

    let load = Load::on(&shop);
    deploy(&shop, "v2");
    let (answered, failed) = load.end();

    assert!(answered > 0, "nobody asked");
    assert_eq!(failed, [""; 0], "of {answered}"); // G3
    assert_eq!(shop.serves(), ["v2", "v2"]);
    assert_eq!(
        ours(&docker, "greenlight-load").await.len(),
        4,
        "blue and green on both"
    );
    shop.run(&["rollback"]).ended(0);
    assert_eq!(shop.serves(), ["v1", "v1"]);
    let receipt = shop.run(&["receipt"]);
    assert!(receipt.data.contains("claims borne out"), "{receipt}"); // G1
    let logs = shop.run(&["logs", "--instance", "a"]);
    assert!(logs.data.contains("v1 listens on 3000"), "{logs}");
    deploy(&shop, "v3");
    drop(up);
    assert!(ours(&docker, "greenlight-load").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn docker_containers_outlive_the_agent_and_are_adopted_by_the_next() {
    let docker = image::docker();
    image::from_scratch(&docker, "greenlight-adopt:v1", "").await;
    let shop = Shop::new();
    shop.configure_for("image: greenlight-adopt", WELL);
    let _up = shop.up();
    deploy(&shop, "v1");
    let before = ids(&ours(&docker, "greenlight-adopt").await);

    shop.kill_agent("a");
    shop.wait_until(|status| status["instances"]["a"]["live"]["shop"]["healthy"] == "yes");

    assert_eq!(ids(&ours(&docker, "greenlight-adopt").await), before);
    assert_eq!(shop.serves(), ["v1", "v1"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_docker_container_that_ends_at_once_fails_the_deployment_on_its_instance() {
    let docker = image::docker();
    image::from_scratch(&docker, "greenlight-ends:v1", "").await;
    image::from_scratch(&docker, "greenlight-ends:v2", "ENV EXIT=3").await;
    let shop = Shop::new();
    shop.configure_for("image: greenlight-ends", WELL);
    let _up = shop.up();
    deploy(&shop, "v1");

    let failed = shop.run(&["deploy", "--version", "v2"]);

    assert_eq!(failed.code, 1, "{failed}");
    assert!(failed.talk.contains("exit status 3"), "{failed}");
    assert!(failed.talk.contains("ending at once, as told"), "{failed}");
    assert_eq!(shop.serves(), ["v1", "v1"]); // G2
    until_left(&docker, "greenlight-ends", 2).await; // G2
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_docker_image_that_is_nowhere_is_a_clear_refusal_and_changes_nothing() {
    let docker = image::docker();
    image::from_scratch(&docker, "greenlight-there:v1", "").await;
    let shop = Shop::new();
    shop.configure_for("image: greenlight-there", WELL);
    let _up = shop.up();
    deploy(&shop, "v1");

    let failed = shop.run(&["deploy", "--version", "nowhere"]);

    assert_eq!(failed.code, 3, "{failed}");
    assert!(failed.talk.contains("greenlight-there:nowhere"), "{failed}");
    assert!(failed.talk.contains("instance `a`"), "{failed}");
    assert_eq!(shop.serves(), ["v1", "v1"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_docker_port_that_is_taken_fails_the_deployment_on_its_instance() {
    let docker = image::docker();
    image::from_scratch(&docker, "greenlight-port:v1", "").await;
    let shop = Shop::new();
    shop.configure_for("image: greenlight-port", WELL);
    let _up = shop.up();
    // The blue port of the second instance.
    let taken = shop.take_port(2);

    let failed = shop.run(&["deploy", "--version", "v1"]);

    assert_eq!(failed.code, 1, "{failed}");
    assert!(
        failed.talk.contains("is taken by another program"),
        "{failed}"
    );
    assert!(failed.talk.contains("instance `b`"), "{failed}");
    until_left(&docker, "greenlight-port", 0).await; // G2
    drop(taken);
    deploy(&shop, "v1");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn docker_secrets_reach_the_application_and_no_log_journal_or_answer() {
    let docker = image::docker();
    image::from_scratch(&docker, "greenlight-secret:v1", "").await;
    let shop = Shop::new();
    let secret = "correct-horse-battery-staple";
    std::fs::write(shop.dir().join("token"), format!("{secret}\n")).expect("a folder");
    let env = "env: { secret: { SECRET_TOKEN: { file: token } } }\n";
    shop.configure_for("image: greenlight-secret", &format!("{WELL}{env}"));
    let up = shop.up();

    deploy(&shop, "v1");

    let length = secret.len().to_string();
    assert_eq!(shop.bodies("/token"), [length.clone(), length]);
    let state = shop.dir().join(".greenlight");
    let holders = files_with(&state, secret);
    assert_eq!(holders.len(), 2, "{holders:?}");
    for holder in &holders {
        use std::os::unix::fs::PermissionsExt as _;
        let about = std::fs::metadata(holder).expect("it is there");
        assert_eq!(
            about.permissions().mode() & 0o777,
            0o600,
            "{}",
            holder.display()
        );
        assert!(holder.parent().is_some_and(|dir| dir.ends_with("secrets")));
    }
    for asked in [
        &["status", "--json"][..],
        &["history", "--json"],
        &["receipt", "--json"],
        &["plan", "--version", "v2", "--json"],
        &["logs"],
    ] {
        let ran = shop.run(asked);
        assert!(!format!("{ran}").contains(secret), "{asked:?}");
    }

    // The same secret is the same release; another one is another.
    let digest = |shop: &Shop| {
        let status = shop.json(&["status", "--json"]);
        status["instances"]["a"]["live"]["shop"]["digest"].clone()
    };
    let first = digest(&shop);
    deploy(&shop, "v1");
    assert_eq!(digest(&shop), first);
    std::fs::write(shop.dir().join("token"), "another").expect("a folder");
    deploy(&shop, "v1");
    assert_ne!(digest(&shop), first);
    assert_eq!(shop.bodies("/token"), ["7", "7"]);

    // An application that dies is started again with it, by an agent that has restarted.
    shop.kill_agent("a");
    for container in ours(&docker, "greenlight-secret").await {
        let id = container.id.expect("containers have an id");
        // Warm ones may be gone.
        let _ = docker.kill_container(&id, None).await;
    }
    shop.wait_until(|_| shop.bodies("/token") == ["7", "7"]);
    drop(up);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_docker_command_before_the_switch_runs_once_and_its_failure_changes_nothing() {
    let docker = image::docker();
    for version in ["v1", "v2"] {
        image::from_scratch(&docker, &format!("greenlight-hook:{version}"), "").await;
    }
    image::from_scratch(&docker, "greenlight-hook:v3", "ENV MIGRATION_STATUS=4").await;
    let shop = Shop::new();
    let hook = format!("{WELL}before_switch: [\"/app\", migrate]\n");
    shop.configure_for("image: greenlight-hook", &hook);
    let _up = shop.up();

    for version in ["v1", "v2"] {
        let deployed = shop.run(&["deploy", "--version", version]);
        assert_eq!(deployed.code, 0, "{deployed}");
        let said = format!("migrating for {version}");
        assert_eq!(deployed.talk.matches(&said).count(), 1, "{deployed}");
    }
    let failed = shop.run(&["deploy", "--version", "v3"]);

    assert_eq!(failed.code, 1, "{failed}");
    assert!(failed.talk.contains("exit status 4"), "{failed}");
    assert!(failed.talk.contains("migrating for v3"), "{failed}");
    assert_eq!(shop.serves(), ["v2", "v2"]);
    until_left(&docker, "greenlight-hook:v3", 0).await; // G2
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_docker_health_check_of_the_image_must_pass_as_well() {
    let docker = image::docker();
    let check = "HEALTHCHECK --interval=200ms --retries=1 CMD [\"/app\", \"check\"]";
    image::from_scratch(&docker, "greenlight-check:v1", check).await;
    let shop = Shop::new();
    let data = shop.dir().join("data");
    std::fs::create_dir(&data).expect("a folder");
    let volumes = format!(
        "volumes: [\"{}:/data:ro\"]\ndeploy_timeout: 20s\n",
        data.display()
    );
    shop.configure_for("image: greenlight-check", &format!("{WELL}{volumes}"));
    let _up = shop.up();

    let failed = shop.run(&["deploy", "--version", "v1"]);
    assert_eq!(failed.code, 1, "{failed}");
    assert!(failed.talk.contains("HEALTHCHECK"), "{failed}"); // G4
    std::fs::write(data.join("healthy"), "").expect("a folder");

    let volumes = volumes.replace("20s", "3m");
    shop.configure_for("image: greenlight-check", &format!("{WELL}{volumes}"));
    deploy(&shop, "v1");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn docker_is_told_every_setting_of_a_container() {
    let docker = image::docker();
    image::from_scratch(&docker, "greenlight-settings:v1", "").await;
    let network = format!("greenlight-{}", std::process::id());
    let request = bollard::models::NetworkCreateRequest {
        name: network.clone(),
        ..Default::default()
    };
    docker.create_network(request).await.expect("a network");
    let shop = Shop::new();
    let settings = format!(
        "{WELL}cmd: [\"/app\", serve]\nuser: \"1000:1000\"\nlabels: {{ team: shop }}\n\
         networks: [{network}, bridge]\nmemory: 64m\ncpus: 0.5\n\
         logging: {{ driver: json-file, options: {{ max-size: 1m }} }}\nrestart: on-failure:3\n\
         env: {{ clear: {{ GREETING: \"hello ${{VERSION}}\" }} }}\n"
    );
    shop.configure_for("image: greenlight-settings", &settings);
    let up = shop.up();

    deploy(&shop, "v1");

    let found = ours(&docker, "greenlight-settings").await;
    assert_eq!(found.len(), 2);
    let id = found[0].id.clone().expect("containers have an id");
    let container = docker
        .inspect_container(&id, None)
        .await
        .expect("it is there");
    let container = serde_json::to_value(container).expect("it serialises");
    let host = &container["HostConfig"];
    assert_eq!(
        container["Config"]["Cmd"],
        serde_json::json!(["/app", "serve"])
    );
    assert_eq!(container["Config"]["User"], "1000:1000");
    assert_eq!(container["Config"]["Labels"]["team"], "shop");
    let env = container["Config"]["Env"].to_string();
    assert!(
        env.contains("GREETING=hello v1") && env.contains("PORT=3000"),
        "{env}"
    );
    assert_eq!(host["Memory"], 64 * 1024 * 1024);
    assert_eq!(host["NanoCpus"], 500_000_000);
    assert_eq!(host["LogConfig"]["Type"], "json-file");
    assert_eq!(host["LogConfig"]["Config"]["max-size"], "1m");
    assert_eq!(host["RestartPolicy"]["Name"], "on-failure");
    assert_eq!(host["RestartPolicy"]["MaximumRetryCount"], 3);
    assert_eq!(host["PortBindings"]["3000/tcp"][0]["HostIp"], "127.0.0.1");
    let networks = container["NetworkSettings"]["Networks"].as_object();
    let networks: Vec<_> = networks.expect("a map").keys().collect();
    assert_eq!(networks.len(), 2, "{networks:?}");
    drop(up);
    docker.remove_network(&network).await.expect("it is unused");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn docker_images_of_old_releases_go_and_those_of_others_stay() {
    let docker = image::docker();
    for version in ["v1", "v2", "v3", "v4"] {
        let line = format!("LABEL number={version}");
        image::from_scratch(&docker, &format!("greenlight-kept:{version}"), &line).await;
    }
    image::from_scratch(&docker, "greenlight-foreign:v1", "LABEL number=foreign").await;
    let shop = Shop::new();
    let settings = format!("{WELL}retain_containers: 2\nkeep_warm: 100ms\n");
    shop.configure_for("image: greenlight-kept", &settings);
    let _up = shop.up();

    for version in ["v1", "v2", "v3", "v4"] {
        deploy(&shop, version);
        shop.wait_until(|status| status["retiring"] == false && status["warm"] == false);
    }

    shop.wait_until(|_| !is_there("greenlight-kept:v1") && !is_there("greenlight-kept:v2"));
    assert!(is_there("greenlight-kept:v3") && is_there("greenlight-kept:v4"));
    assert!(is_there("greenlight-foreign:v1"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn docker_containers_of_others_are_never_touched() {
    let docker = image::docker();
    image::from_scratch(&docker, "greenlight-others:v1", "").await;
    let body = bollard::models::ContainerCreateBody {
        image: Some("greenlight-others:v1".to_owned()),
        env: Some(vec!["PORT=1234".to_owned()]),
        labels: Some([("greenlight.agent".to_owned(), "another".to_owned())].into()),
        ..Default::default()
    };
    let stranger = docker
        .create_container(None, body)
        .await
        .expect("it can be made");
    docker
        .start_container(&stranger.id, None)
        .await
        .expect("it starts");
    let shop = Shop::new();
    shop.configure_for("image: greenlight-others", WELL);
    let up = shop.up();

    deploy(&shop, "v1");
    drop(up);

    let left = ours(&docker, "greenlight-others").await;
    assert_eq!(ids(&left), std::slice::from_ref(&stranger.id));
    let options = bollard::query_parameters::RemoveContainerOptionsBuilder::default();
    let removed = docker.remove_container(&stranger.id, Some(options.force(true).build()));
    removed.await.expect("it is there");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_python_server_runs_in_docker_and_is_replaced() {
    let docker = image::docker();
    image::python(&docker, "greenlight-python:v1").await;
    let wsgi = "from wsgiref.simple_server import demo_app, make_server; import os; \
                make_server('', int(os.environ['PORT']), demo_app).serve_forever()";
    replaced(
        "greenlight-python:v1",
        &format!("cmd: [\"-c\", \"{wsgi}\"]\n"),
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker"]
async fn a_node_server_runs_in_docker_and_is_replaced() {
    let docker = image::docker();
    image::node(&docker, "greenlight-node:v1").await;
    let server = "require('http').createServer((q, a) => a.end(`VERSION = '${process.env.VERSION}'`))\
                  .listen(process.env.PORT)";
    replaced(
        "greenlight-node:v1",
        &format!("cmd: [\"-e\", \"{server}\"]\n"),
    );
}

/// Deploys an application that says its `VERSION` twice, under load.
fn replaced(image: &str, cmd: &str) {
    let shop = Shop::new();
    shop.configure_for(
        &format!("image: {image}"),
        &format!("{WELL}{cmd}stop_timeout: 1s\n"),
    );
    let _up = shop.up();
    let says = |version: &str| {
        let said = format!("VERSION = '{version}'");
        shop.bodies("/").iter().all(|body| body.contains(&said))
    };
    deploy(&shop, "first");
    assert!(says("first"), "{:?}", shop.bodies("/"));

    let load = Load::on(&shop);
    deploy(&shop, "second");
    let (answered, failed) = load.end();

    assert!(answered > 0 && says("second"), "{:?}", shop.bodies("/"));
    assert_eq!(failed, [""; 0], "of {answered}"); // G3
}

fn deploy(shop: &Shop, version: &str) {
    let deployed = shop.run(&["deploy", "--version", version]);
    assert_eq!(deployed.code, 0, "{deployed}");
}

/// All containers of an image, running or not.
async fn ours(docker: &Docker, image: &str) -> Vec<ContainerSummary> {
    let options = ListContainersOptionsBuilder::default().all(true).build();
    let all = docker
        .list_containers(Some(options))
        .await
        .expect("the daemon answers");
    let of_image = |container: &ContainerSummary| {
        container
            .image
            .as_ref()
            .is_some_and(|name| name.starts_with(image))
    };
    all.into_iter().filter(of_image).collect()
}

/// Waits until so many containers of an image are left: what a failed deployment brought is
/// removed after its outcome is known.
async fn until_left(docker: &Docker, image: &str, count: usize) {
    let deadline = Instant::now() + Duration::from_mins(3);
    loop {
        let left = ours(docker, image).await;
        if left.len() == count {
            return;
        }
        assert!(Instant::now() < deadline, "{left:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn ids(containers: &[ContainerSummary]) -> Vec<String> {
    let mut ids: Vec<_> = containers.iter().filter_map(|c| c.id.clone()).collect();
    ids.sort();
    ids
}

fn is_there(image: &str) -> bool {
    tokio::task::block_in_place(|| {
        let asked = async { image::docker().inspect_image(image).await.is_ok() };
        tokio::runtime::Handle::current().block_on(asked)
    })
}

/// Every file below a folder that has this text in it.
fn files_with(dir: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        {
            found.push(path);
        }
    }
    found
}
