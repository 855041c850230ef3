//! What is refused before anything is done, and what is said then.

use crate::shop::{Shop, TEST_TIMEOUT, free_port};
use greenlight_link::api::DeployRequest;
use greenlight_link::{ApiClient, ApiError, TokenRequest};
use greenlight_protocol::coordinator::Promotion;
use greenlight_protocol::{Release, ServiceName, Strategy};
use serde_json::Value;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn what_a_command_cannot_work_with_is_named_with_what_to_do() {
    let shop = Shop::new();
    shop.configure("");
    let cases: [(&str, i32, &[&str]); 19] = [
        (
            "plan --version a/b",
            2,
            &["`a/b` cannot be a release's version", "help: use letters"],
        ),
        (
            "deploy --version=",
            2,
            &["`` cannot be a release's version"],
        ),
        (
            "prepare --version v:1",
            2,
            &["`v:1` cannot be a release's version"],
        ),
        ("history --limit 0", 2, &["0 is not in 1.."]),
        ("token --operator --valid 9999h", 2, &["at most 24h"]),
        ("token --operator --valid 0s", 2, &["valid for some time"]),
        (
            "doctor --local --state /nope",
            2,
            &["`/nope` is not an instance's folder"],
        ),
        (
            "init --file x/y.yml",
            2,
            &["no folder `x` for `x/y.yml`", "help: make it"],
        ),
        ("init --file .", 2, &["`.` is a folder"]),
        (
            "man /proc/nope",
            1,
            &["`/proc/nope`", "help: name a folder"],
        ),
        ("setup --program /nope", 2, &["`/nope`", "`--program`"]),
        ("status", 2, &["there is no fleet", "`greenlight setup`"]),
        (
            "server --state missing --listen 127.0.0.1:0 --instance a",
            2,
            &["no folder `missing`", "`--state`"],
        ),
        (
            "server --state . --listen 127.0.0.1:0 --instance A",
            2,
            &["not an instance's name"],
        ),
        (
            "server --state . --listen 127.0.0.1:0 --instance a --instance a",
            2,
            &["`--instance a` is given twice"],
        ),
        (
            "server --state . --listen 127.0.0.1:0 --instance a --certificate-lifetime 5",
            2,
            &["at least 1h"],
        ),
        (
            "agent --name a --state . --server 127.0.0.1:1 --listen 127.0.0.1:0 --proxy-admin p",
            1,
            &["has not joined", "--server 127.0.0.1:1", "--dir ./identity"],
        ),
        (
            "join --server http://a --token t --dir d",
            2,
            &["such as `10.0.0.10:9700`"],
        ),
        (
            "proxy --listen 127.0.0.1:0 --admin p --state routing --threads 0",
            2,
            &["0 is not in 1.."],
        ),
    ];
    for (arguments, code, parts) in cases {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let ran = shop.run(&arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran}");
        for part in parts {
            assert!(ran.talk.contains(part), "`{part}` is not in {ran}");
        }
    }
}

#[test]
fn a_proxy_without_a_folder_for_its_files_does_not_start() {
    let shop = Shop::new();
    for (admin, state, option) in [
        ("p.sock", "/nope/routing", "--state"),
        ("/nope/p.sock", "routing", "--admin"),
    ] {
        let arguments = ["proxy", "--listen", "127.0.0.1:0", "--admin", admin];
        let mut command = shop.command(&arguments);
        command.args(["--state", state]);

        let (code, talk) = within(command);

        assert_eq!(code, Some(1), "{talk}");
        let said = format!("name another with `{option}`");
        for part in ["there is no folder `/nope`", &said] {
            assert!(talk.contains(part), "`{part}` is not in {talk}");
        }
    }
}

#[test]
fn a_proxy_does_not_start_beside_another_that_would_get_half_of_its_users() {
    let shop = Shop::new();
    let listen = format!("127.0.0.1:{}", free_port());
    let proxy = |name: &str| {
        let arguments = ["proxy", "--threads", "2", "--listen", &listen];
        let mut command = shop.command(&arguments);
        command.args(["--admin", &format!("{name}.sock"), "--state", name]);
        command
    };
    let _first = Ended(proxy("first").spawn().expect("the binary runs"));
    let deadline = Instant::now() + TEST_TIMEOUT;
    while TcpStream::connect(&listen).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }

    let (code, talk) = within(proxy("second"));

    assert_eq!(code, Some(1), "{talk}");
    let said = format!("`{listen}` is taken by another process; ");
    assert!(talk.contains(&said), "{talk}");
}

#[test]
fn a_server_says_where_it_cannot_listen_and_a_token_is_for_an_instance_that_it_knows() {
    let shop = Shop::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("it has one").to_string();

    let ran = shop.run(&[
        "server",
        "--state",
        ".",
        "--listen",
        &listen,
        "--instance",
        "a",
    ]);

    assert_eq!(ran.code, 1, "{ran}");
    let said = format!("cannot listen on `{listen}`: ");
    assert!(ran.talk.contains(&said), "{ran}");
    let known = shop.run(&["token", "--state", ".", "--instance", "a"]);
    assert_eq!(known.code, 0, "{known}");
    let unknown = shop.run(&["token", "--state", ".", "--instance", "zz"]);
    assert_eq!(unknown.code, 2, "{unknown}");
    assert!(unknown.talk.contains("knows no instance `zz`"), "{unknown}");
}

#[test]
fn the_server_refuses_also_what_commands_would_not_send_it() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    let operator = shop.dir().join(".greenlight/operator");
    let api = ApiClient::from_dir(&operator).expect("an operator");
    let release = Release {
        version: "a b".to_owned(),
        digest: String::new(),
        spec: String::new(),
    };
    let labelled = DeployRequest {
        requested_by: "tester".to_owned(),
        releases: [(ServiceName::from("shop"), release)].into(),
        remove: [].into(),
        secrets: [].into(),
        addresses: [].into(),
        strategy: Strategy::BlueGreen,
        policy: None,
        promotion: Promotion::Automatic,
    };
    let valid_for = |valid_ms| TokenRequest {
        instance: None,
        valid_ms,
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads");

    let answers: [Result<Value, ApiError>; 3] = runtime.block_on(async {
        [
            api.post("/v1/deployments", &labelled).await,
            api.post("/v1/tokens", &valid_for(0)).await,
            api.post("/v1/tokens", &valid_for(u64::MAX)).await,
        ]
    });

    let said = [
        "`a b` cannot be a release's version",
        "valid for some time",
        "at most 24h",
    ];
    for (answer, said) in answers.into_iter().zip(said) {
        let Err(ApiError::Refused { status, error, .. }) = answer else {
            panic!("{said}: {answer:?}");
        };
        assert_eq!(status.as_u16(), 400);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_is_removed_and_brought_back_is_named_also_when_the_file_is_broken() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);

    let removed = shop.run(&["remove", "shop"]);

    assert_eq!(removed.code, 0, "{removed}");
    assert!(removed.data.contains(" that removes `shop`: "), "{removed}");
    let status = shop.run(&["status"]);
    assert!(status.data.starts_with("nothing is live\n"), "{status}");

    shop.configure("watch: 300ms\ndeploy_timeout: soon\n");
    let back = shop.run(&["rollback"]);
    assert_eq!(back.code, 0, "{back}");
    assert!(back.data.contains(" to `v1`: "), "{back}");
    let said = "`greenlight.yml` cannot be used (line 7: ";
    assert!(back.talk.contains(said), "{back}");
}

#[test]
fn a_server_on_another_machine_is_nothing_for_up() {
    let shop = Shop::new();
    shop.configure("");
    let file = shop.dir().join("greenlight.yml");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let text = text.replace("name: b, host: 127.0.0.1", "name: b, host: 10.255.255.1");
    std::fs::write(&file, text).expect("a folder");

    let up = shop.run(&["up"]);

    assert_eq!(up.code, 2, "{up}");
    assert!(
        up.talk.contains("`b` is at `10.255.255.1`, which is not"),
        "{up}"
    );
}

#[test]
fn levels_of_the_log_that_make_no_sense_are_not_passed_over_in_silence() {
    let shop = Shop::new();
    let mut command = shop.command(&["schema"]);
    let output = command.env("GREENLIGHT_LOG", "greenlight=loud").output();

    let output = output.expect("the binary runs");

    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    assert!(talk.contains("`GREENLIGHT_LOG` is not used"), "{talk}");
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a command that may go on for ever ends, and what it said; it is ended if it does not.
fn within(mut command: Command) -> (Option<i32>, String) {
    let child = command.stderr(Stdio::piped()).spawn();
    let mut child = Ended(child.expect("the binary runs"));
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        if let Some(status) = child.0.try_wait().expect("it is a child") {
            let talk = child.0.stderr.take().expect("it is piped");
            return (status.code(), std::io::read_to_string(talk).expect("text"));
        }
        if Instant::now() > deadline {
            return (None, "it goes on".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
