//! What is read from outside: health, metrics, and who may give commands.

use crate::client::Client;
use crate::proxy::{Shop, send};
use crate::trial;
use greenlight_admin::{Color, ServicesRequest};
use greenlight_ports::reserve_address;
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

/// `nobody`.
const NOBODY: u32 = 65534;

pub(crate) fn trials() -> Vec<Trial> {
    let is_root = rustix::process::getuid().is_root();
    vec![
        trial(
            "health_asks_for_no_host_and_says_where_users_should_go",
            health,
        ),
        trial("metrics_are_openmetrics_and_count_all_processes", metrics),
        trial(
            "the_status_address_survives_a_handover_and_takes_no_orders",
            status,
        ),
        trial(
            "to_ask_for_the_status_beside_a_process_that_stands_still_leaves_nothing_open",
            status_beside_who_stands_still,
        ),
        trial("the_admin_socket_is_for_its_owner_alone", mode),
        trial(
            "another_user_is_refused_on_the_admin_socket_needs_root",
            strangers,
        )
        .with_ignored_flag(!is_root),
    ]
}

async fn health() {
    let mut shop = Shop::new().await;
    let address = reserve_address().expect("a port is free");
    shop.options.status = Some(address);
    let (_proxy, _) = shop.start().await;
    let expect = async |status: u16, body: &str| {
        let on_admin = shop.ask_admin("GET", "/healthz").await;
        assert_eq!((on_admin.status, on_admin.body.as_str()), (status, body));
        let mut client = Client::connect(address).await.expect("connected");
        let outside = client.get("/healthz").await.expect("a response");
        assert_eq!((outside.status, outside.body.as_str()), (status, body));
        let head = client
            .ask("HEAD", "/healthz", "")
            .await
            .expect("a response");
        assert_eq!(head.status, status);
        // Nothing of a body is left on the connection.
        let again = client.get("/healthz").await.expect("a response");
        assert_eq!(again.status, status);
    };

    expect(503, "nothing is routed\n").await;
    shop.define().await;
    expect(503, "nothing is routed\n").await;
    shop.open_to(0, Color::Blue).await;
    expect(200, "ok\n").await;
    shop.admin.hold(&Shop::hold(1)).await.expect("held");
    expect(200, "ok\n").await;
    let shed = ServicesRequest {
        epoch: 1,
        services: vec!["shop".to_owned()],
    };
    shop.admin.shed(&shed).await.expect("shed");
    expect(503, "shedding\n").await;
    shop.open_to(1, Color::Green).await;
    expect(200, "ok\n").await;
}

async fn metrics() {
    let (shop, _old, address) = Shop::open().await;
    let mut idle = Client::connect(address).await.expect("connected");
    idle.get("/").await.expect("a response");
    let tunnel = Client::connect(address).await.expect("connected");
    let _tunnel = tunnel.upgrade().await.expect("upgraded");
    let _new = shop.handover(2).await;
    let client = Client::connect(address).await.expect("connected");
    send(client, "/").await.expect("answered");

    let response = shop.ask_admin("GET", "/metrics").await;

    assert_eq!(response.status, 200);
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(response.head.contains(kind), "{}", response.head);
    let samples = parse(&response.body);
    let sample = |name: &str| samples.get(name).copied();
    let admitted = "greenlight_proxy_admitted_total{service=\"shop\",color=\"blue\"}";
    assert_eq!(sample(admitted), Some(3));
    let upgrades = "greenlight_proxy_in_flight{service=\"shop\",color=\"blue\",kind=\"upgrade\"}";
    assert_eq!(sample(upgrades), Some(1));
    assert_eq!(sample("greenlight_proxy_open{service=\"shop\"}"), Some(1));
    assert_eq!(sample("greenlight_proxy_draining_processes"), Some(1));
}

async fn status_beside_who_stands_still() {
    let (shop, old, address) = Shop::open().await;
    let mut idle = Client::connect(address).await.expect("connected");
    idle.get("/").await.expect("a response");
    let new = shop.handover(2).await;
    old.pause();
    let open = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", new.pid()));
        descriptors.expect("a process of this user").count()
    };
    let before = open();

    for _ in 0..5 {
        shop.admin.status().await.expect("it waits for a while");
    }

    // The connection of the last call may be there still.
    let after = open();
    assert!(after <= before + 2, "{before} descriptors became {after}");
    old.go_on();
}

/// Every sample by its name; panics where the text is not OpenMetrics.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with `# EOF`");
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# TYPE ") {
            let (name, kind) = meta.split_once(' ').expect("a name and a type");
            assert!(families.insert(name, kind).is_none(), "{name} twice");
        } else if let Some(meta) = line.strip_prefix("# HELP ") {
            assert!(meta.split_once(' ').is_some(), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample and a value");
            let name = sample.split('{').next().expect("a name");
            let is_counter = families.get(name.trim_end_matches("_total")) == Some(&"counter");
            let is_gauge = families.get(name) == Some(&"gauge");
            assert!(is_counter && name.ends_with("_total") || is_gauge, "{line}");
            let value = value.parse().expect("a number");
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{line}");
        }
    }
    samples
}

async fn status() {
    let mut shop = Shop::new().await;
    let address = reserve_address().expect("a port is free");
    shop.options.status = Some(address);
    let (old, _) = shop.start().await;
    shop.define().await;
    shop.open_to(0, Color::Blue).await;

    let new = shop.handover(2).await;
    let mut client = Client::connect(address).await.expect("connected");
    let response = client.get("/v1/status").await.expect("a response");
    assert!(
        response.body.contains(&format!("\"pid\":{}", new.pid())),
        "{}",
        response.body
    );
    for path in [
        "/v1/open",
        "/v1/hold",
        "/v1/handover",
        "/v1/replicate",
        "/v1/final-counts",
    ] {
        let response = client.ask("POST", path, "").await.expect("a response");
        assert_eq!(response.status, 404, "{path}");
    }
    assert!(old.ended().await.0.success());
}

async fn mode() {
    let (shop, _old, address) = Shop::open().await;
    let tunnel = Client::connect(address).await.expect("connected");
    let _tunnel = tunnel.upgrade().await.expect("upgraded");
    let _new = shop.handover(2).await;

    let folder = shop.options.admin.parent().expect("a folder");
    let mut sockets = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("proxy.sock")
        {
            let mode = entry.metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", entry.file_name().display());
            sockets += 1;
        }
    }
    assert_eq!(sockets, 2, "the admin socket and the predecessor's");
}

async fn strangers() {
    let (shop, _proxy, _) = Shop::open().await;
    let admin = shop.options.admin.clone();
    let knock = move || {
        let admin = admin.clone();
        let thread = std::thread::spawn(move || {
            let nobody = rustix::process::Uid::from_raw(NOBODY);
            // Of this thread alone.
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("we are root");
            let mut stream = UnixStream::connect(admin)?;
            let ask = b"GET /v1/status HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\r\n";
            // It may be closed already.
            let _ = std::io::Write::write_all(&mut stream, ask);
            let mut response = Vec::new();
            let _ = stream.read_to_end(&mut response);
            Ok::<_, std::io::Error>(response)
        });
        thread.join().expect("no panic")
    };

    let refused = knock().expect_err("the mode keeps others out");
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);

    // Whoever opens folder and socket by mistake has not opened the proxy.
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    };
    open(shop.options.admin.parent().expect("a folder"), 0o755);
    open(&shop.options.admin, 0o666);
    assert_eq!(knock().expect("connected"), b"");
}
