//! Deployments of a fleet whose public ports are Nginx's, from the command line and under load.

use crate::fleet::NginxFleet;
use greenlight::load::{Flip, Load, Sample, Segment, Window, analyse};
use greenlight_agent::nginx::PrivateNginx;
use greenlight_link::receipt::Receipt;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Requests a second to each instance, and how many of them come over one new connection.
const RATE: u32 = 200;
const FRESH: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn a_deployment_behind_nginx_fails_nothing_mixes_nothing_and_reloads_nothing() {
    let fleet = NginxFleet::start("nginx").await;
    let first = fleet.deploy("v1");
    assert_eq!(first.code, 0, "{first}");
    let workers = workers(&fleet);
    let load = Load::start(fleet.public.clone(), RATE, FRESH).expect("a thread");

    let second = fleet.deploy("v2");

    assert_eq!(second.code, 0, "{second}");
    let window = window(&fleet, &load.stop());
    assert!(window.requests > 0);
    assert_eq!(window.failed, 0, "{:?}", window.failures); // G3
    assert_eq!(window.stale, 0); // G1
    assert_eq!(served(&fleet).await, ["v2", "v2"]);
    assert_eq!(self::workers(&fleet), workers, "Nginx was reloaded");
    let receipt = fleet.run(&["receipt"]);
    assert!(
        receipt.data.contains("\n12 of 12 claims borne out"),
        "{receipt}"
    );
    assert!(!receipt.data.contains("NOT "), "{receipt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn an_nginx_that_is_reloaded_is_verified_and_plan_status_and_receipt_say_what_it_is_worth() {
    let fleet = NginxFleet::start("nginx_reload").await;
    let first = fleet.deploy("v1");
    assert_eq!(first.code, 0, "{first}");
    let plan = fleet.run(&["plan", "--version", "v2"]);
    assert!(plan.data.contains("aligned, not gated"), "{plan}");
    let document = fleet.json(&["--json", "plan", "--version", "v2"]);
    assert_eq!(document["no_mixed_window"], false);
    let load = Load::start(fleet.public.clone(), RATE, FRESH).expect("a thread");

    let second = fleet.deploy("v2");

    assert_eq!(second.code, 0, "{second}");
    let samples = load.stop();
    // What a reload does to kept connections is Nginx's; its answers are good ones all the same.
    let refusals = window(&fleet, &samples).failures;
    let refusals: Vec<_> = refusals
        .keys()
        .filter(|r| r.starts_with("status"))
        .collect();
    assert!(refusals.is_empty(), "{refusals:?}");
    assert_eq!(served(&fleet).await, ["v2", "v2"]);
    let status = fleet.run(&["status"]);
    assert_eq!(
        status.data.matches("aligned, not gated").count(),
        2,
        "{status}"
    );
    let text = fleet.run(&["receipt"]).data;
    assert!(
        text.contains("G1 does not apply; old and new answered side by side for"),
        "{text}"
    );
    let cut_over = &receipt(&fleet).cut_overs[0];
    let aligned = cut_over.aligned.as_ref().expect("it says so");
    assert!(aligned.mixed_window_us.is_some());
    let claims = cut_over.checks();
    assert!(claims.iter().all(|check| check.holds), "{claims:?}");
    assert!(
        !claims
            .iter()
            .any(|check| check.claim.contains("stopped admitting"))
    );
    fleet.run(&["rollback"]).ended(0);
    assert_eq!(served(&fleet).await, ["v1", "v1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn an_nginx_that_silently_keeps_its_configuration_takes_the_fleet_back() {
    let fleet = NginxFleet::start("nginx_reload").await;
    let first = fleet.deploy("v1");
    assert_eq!(first.code, 0, "{first}");
    let include = fleet.nginx_dir(1).join("conf.d/greenlight.conf");
    let before = std::fs::read_to_string(&include).expect("a file");
    // `nginx -t` takes a port that is in use for its own; the reload fails on it.
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = taken.local_addr().expect("it listens");
    let server = format!("server {{ listen {address}; }}\n");
    std::fs::write(fleet.nginx_dir(1).join("conf.d/taken.conf"), server).expect("a folder");
    let workers = workers(&fleet);

    let second = fleet.deploy("v2");

    assert_eq!(second.code, 1, "{second}"); // G2
    assert!(second.talk.contains("kept its configuration"), "{second}");
    assert_eq!(served(&fleet).await, ["v1", "v1"]);
    assert_eq!(self::workers(&fleet)[1], workers[1]);
    // Its next start brings no surprise.
    assert_eq!(std::fs::read_to_string(&include).expect("a file"), before);
    let receipt = receipt(&fleet);
    let aligned = receipt.cut_overs[0].aligned.as_ref().expect("it says so");
    assert_eq!(aligned.mixed_window_us, None);

    // And once the cause is gone, all is well.
    std::fs::remove_file(fleet.nginx_dir(1).join("conf.d/taken.conf")).expect("it is there");
    let third = fleet.deploy("v3");
    assert_eq!(third.code, 0, "{third}");
    assert_eq!(served(&fleet).await, ["v3", "v3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn an_nginx_whose_configuration_is_broken_is_found_while_preparing() {
    let fleet = NginxFleet::start("nginx_reload").await;
    let first = fleet.deploy("v1");
    assert_eq!(first.code, 0, "{first}");
    std::fs::write(fleet.nginx_dir(1).join("conf.d/broken.conf"), "nonsense;").expect("a folder");
    let workers = workers(&fleet);

    let second = fleet.deploy("v2");

    assert_eq!(second.code, 1, "{second}");
    assert!(second.talk.contains("nonsense"), "{second}");
    assert_eq!(served(&fleet).await, ["v1", "v1"]);
    assert_eq!(self::workers(&fleet), workers, "nothing was reloaded");
    let leftovers = std::fs::read_dir(fleet.nginx_dir(1)).expect("a folder");
    let copies = leftovers.filter_map(Result::ok).filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .contains("greenlight-test")
    });
    assert_eq!(copies.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn hostile_values_never_reach_nginx() {
    let fleet = NginxFleet::start("nginx").await;
    let before = std::fs::read_to_string(fleet.nginx_dir(0).join("conf.d/greenlight.conf"));
    for hostile in [
        "/x; } server { listen 81",
        "/x\nroot /;",
        "/x$uri",
        "/x\"y",
        "/x{y}",
        "relative",
    ] {
        let ran = fleet.run(&[
            "attach",
            "nginx",
            "--instance",
            "a",
            "--yes",
            "--include",
            hostile,
        ]);
        assert_eq!(ran.code, 2, "{hostile:?}: {ran}");
        let socket = [
            "attach",
            "nginx",
            "--instance",
            "a",
            "--yes",
            "--socket",
            hostile,
        ];
        if hostile.starts_with('/') {
            assert_eq!(fleet.run(&socket).code, 2, "{hostile:?}");
        }
    }
    let config = fleet.dir().join("greenlight.yml");
    let text = std::fs::read_to_string(&config).expect("a file");
    let text = text.replace("service: shop", "service: \"shop; } server {\"");
    std::fs::write(&config, text).expect("a folder");
    assert_eq!(
        fleet
            .run(&["attach", "nginx", "--instance", "a", "--yes"])
            .code,
        2
    );
    let after = std::fs::read_to_string(fleet.nginx_dir(0).join("conf.d/greenlight.conf"));
    assert_eq!(after.expect("a file"), before.expect("a file"));
}

fn workers(fleet: &NginxFleet) -> Vec<Vec<i32>> {
    let workers = fleet.nginx.iter().map(PrivateNginx::workers);
    workers.map(|pids| pids.expect("nginx runs")).collect()
}

fn receipt(fleet: &NginxFleet) -> Receipt {
    serde_json::from_value(fleet.json(&["--json", "receipt"])).expect("a receipt")
}

/// What users saw of the latest deployment, from v1 to v2.
fn window(fleet: &NginxFleet, samples: &[Sample]) -> Window {
    let decided = receipt(fleet).cut_overs[0].committed_ns;
    let flip = Flip {
        old: ["v1".to_owned()].into(),
        new: "v2".to_owned(),
        decided_ns: decided.expect("it was committed"),
    };
    let all = Segment {
        from_ns: 0,
        until_ns: u64::MAX,
    };
    analyse(samples, all, &[flip])
}

/// Which release answers on each instance.
async fn served(fleet: &NginxFleet) -> Vec<String> {
    let mut served = Vec::new();
    for address in &fleet.public {
        served.push(release(*address).await);
    }
    served
}

async fn release(address: SocketAddr) -> String {
    let load = Load::start(vec![address], 50, 1).expect("a thread");
    while load.progress().0 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = load.stop().swap_remove(0);
    first.result.unwrap_or_else(|error| error.to_string())
}
