//! The action for GitHub Actions, its steps executed as a runner would, against a real fleet; and
//! what is left of a deployment whose runner is cancelled or killed.

use crate::runner::{Runner, cancel, root};
use crate::shop::{Ran, Shop};
use rustix::process::{Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[test]
fn a_job_deploys_with_a_secret_and_shows_the_receipt_as_its_summary() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    let runner = Runner::new(&shop);
    let secret = secret(&shop);

    let job = runner.run(&[("version", "v1"), ("credentials", &secret)]);

    assert_eq!(job.code, 0, "{}", job.log);
    assert_eq!(shop.serves(), ["v1", "v1"]);
    let receipt = shop.json(&["receipt", "--json"]);
    assert_eq!(job.outputs["deployment"], receipt["deployment"]);
    assert_eq!(job.outputs["outcome"], "promoted");
    assert_eq!(job.outputs["exit-code"], "0");
    let by = "octocat (GitHub Actions run 42)";
    assert_eq!(receipt["requested_by"], by);
    for part in [
        "### shop v1: promoted after",
        "| instance | service | last to old |",
        "| a | shop |",
        "| b | shop |",
        "```mermaid\n",
        "\ngantt\n",
        "section b\n",
        "committed :vert,",
        by,
    ] {
        assert!(
            job.summary.contains(part),
            "`{part}` is not in {}",
            job.summary
        );
    }
    assert!(!job.log.contains("::error"), "{}", job.log);
    // Nobody else could read what was unpacked, and it is gone.
    assert_eq!(job.folders, [vec![], vec![0o700], vec![0o700], vec![]]);
    assert!(!job.log.contains("PRIVATE KEY"), "{}", job.log);
}

#[test]
fn a_job_that_fails_names_instance_and_reason_and_one_that_goes_back_takes_the_version_as_its_check()
 {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    let runner = Runner::new(&shop);
    let operator = shop.dir().join(".greenlight/operator");
    let fleet = ("fleet", operator.to_str().expect("text"));
    for version in ["v1", "v2"] {
        let job = runner.run(&[("version", version), fleet]);
        assert_eq!(job.code, 0, "{}", job.log);
    }

    shop.configure("deploy_timeout: 8s\nenv: { FAIL_CHECK_ON: b }\n");
    let failed = runner.run(&[("version", "v3"), fleet]);
    assert_eq!(failed.code, 1, "{}", failed.log);
    assert_eq!(failed.outputs["outcome"], "aborted");
    assert_eq!(failed.outputs["exit-code"], "1");
    let annotations: Vec<_> = annotations(&failed.log);
    let of_b = annotations.iter().find(|line| line.contains("instance b"));
    assert!(
        of_b.is_some_and(|line| line.contains("500")),
        "{annotations:?}"
    );
    assert!(failed.summary.contains("500"), "{}", failed.summary);
    assert_eq!(shop.serves(), ["v2", "v2"]); // G2

    let elsewhere = runner.run(&[("command", "rollback"), ("version", "v9"), fleet]);
    assert_eq!(elsewhere.code, 3, "{}", elsewhere.log);
    assert_eq!(elsewhere.outputs["outcome"], "refused");
    assert_eq!(elsewhere.outputs["deployment"], "");
    assert!(
        elsewhere.log.contains("::error title=greenlight::"),
        "{}",
        elsewhere.log
    );

    let back = runner.run(&[("command", "rollback"), ("version", "v1"), fleet]);
    assert_eq!(back.code, 0, "{}", back.log);
    assert_eq!(back.outputs["outcome"], "promoted");
    assert_eq!(shop.serves(), ["v1", "v1"]);

    let prepared = runner.run(&[("command", "prepare"), ("version", "v3"), fleet]);
    assert_eq!(prepared.code, 1, "{}", prepared.log);
    shop.configure("");
    let prepared = runner.run(&[("command", "prepare"), ("version", "v4"), fleet]);
    assert_eq!(prepared.outputs["outcome"], "ready", "{}", prepared.log);
    // What was wanted is no error, though the deployment is aborted.
    let aborted = runner.run(&[("command", "abort"), fleet]);
    assert_eq!(aborted.code, 0, "{}", aborted.log);
    assert_eq!(aborted.outputs["outcome"], "aborted");
    assert_eq!(
        aborted.outputs["deployment"],
        prepared.outputs["deployment"]
    );
    assert!(!aborted.log.contains("::error"), "{}", aborted.log);
    let status = runner.run(&[("command", "status"), ("args", " --json\n"), fleet]);
    assert_eq!(status.code, 0, "{}", status.log);
    assert!(status.log.contains("\"instances\""), "{}", status.log);
}

#[test]
fn inputs_that_make_no_sense_fail_the_job_and_none_is_taken_for_shell() {
    let shop = Shop::new();
    shop.configure("");
    let runner = Runner::new(&shop);
    let not_an_archive = "c2VjcmV0";
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("command", "explode")], "`explode` is not a command"),
        (
            &[("command", "promote"), ("version", "v1")],
            "`version` is for",
        ),
        (&[("fleet", "x"), ("credentials", "y")], "keep one"),
        (&[("credentials", not_an_archive)], "not a tar archive"),
        (&[("credentials", "$(touch pwned)")], "not a tar archive"),
        (
            &[("version", "$(touch pwned)`touch pwned`\"; touch pwned; \"")],
            "cannot be a release's version",
        ),
    ];
    for (inputs, part) in cases {
        let job = runner.run(inputs);
        assert_eq!(job.code, 2, "{inputs:?}: {}", job.log);
        let annotations = annotations(&job.log).join("\n");
        assert!(annotations.contains(part), "`{part}` is not in {}", job.log);
        assert!(!job.log.contains(not_an_archive), "{}", job.log);
        assert_eq!(job.folders.last(), Some(&vec![]), "{}", job.log);
    }
    let job = runner.run(&[("args", "$(touch pwned) ; touch pwned * | touch pwned")]);
    assert_eq!(job.code, 2, "{}", job.log);
    assert!(!shop.dir().join("pwned").exists());
}

#[test]
fn where_greenlight_is_not_installed_it_is_built_from_the_source_of_the_action() {
    let shop = Shop::new();
    let tools = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_greenlight");
    // Stands in for minutes of building; that the workspace builds is tested by this test's being.
    let cargo = format!(
        "#!/bin/sh\necho \"cargo $*\"\nwhile [ $# -gt 1 ]; do\n  [ \"$1\" = --target-dir ] && target=$2\n  \
         shift\ndone\nmkdir -p \"$target/release\" && ln -s {program} \"$target/release/greenlight\"\n"
    );
    write_program(&tools.path().join("cargo"), &cargo);
    // Nothing else, so that a `greenlight` or `cargo` of this machine is not found.
    let bare = folder_with(&["env", "bash"]);
    let system = folder_with(&["env", "bash", "mkdir", "ln"]);
    let path = [tools.path(), system.path()].map(Into::into);
    let runner = Runner::with_path(&shop, path.to_vec());

    let job = runner.run(&[("command", "status")]);

    let manifest = root().join("Cargo.toml");
    assert!(
        job.log
            .contains(&format!("--manifest-path {}", manifest.display())),
        "{}",
        job.log
    );
    assert!(
        job.log.contains("cargo build --release --locked"),
        "{}",
        job.log
    );
    // It was found and ran: there is no fleet.
    assert!(job.log.contains("greenlight up"), "{}", job.log);

    let runner = Runner::with_path(&shop, vec![bare.path().to_owned()]);
    let job = runner.run(&[("command", "status")]);
    assert_eq!(job.code, 2, "{}", job.log);
    assert!(
        annotations(&job.log).join("\n").contains("neither"),
        "{}",
        job.log
    );
}

#[test]
fn a_cancelled_job_says_that_the_deployment_goes_on_and_removes_the_credentials() {
    // G8
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    shop.configure("watch: 1h\n");
    let runner = Runner::new(&shop);
    let secret = secret(&shop);

    let job = runner.run_and(
        &[("version", "v2"), ("credentials", &secret)],
        |id, mut step| {
            if id != "run" {
                return step.wait().expect("it ends").code();
            }
            shop.wait_until_served("v2");
            // The runner signals the step's own process, not its group.
            let (code, signal) = cancel(step, |pid, signal| {
                let _ = kill_process(pid, signal);
            });
            assert_eq!(signal, Signal::INT, "it did not end by itself");
            code
        },
    );

    assert_eq!(job.code, 4, "{}", job.log);
    assert_eq!(job.outputs["exit-code"], "4");
    assert_eq!(job.outputs["outcome"], "unknown");
    assert!(
        job.log.contains("the server continues what it requested"),
        "{}",
        job.log
    );
    assert_eq!(job.folders.last(), Some(&vec![]));
    let again = shop.json(&["deploy", "--version", "v2", "--detach", "--json"]);
    assert_eq!(again["attached"], true);
    assert_eq!(again["deployment"], job.outputs["deployment"]);
}

#[test]
fn a_deployment_outlives_a_runner_that_is_cancelled_or_killed_and_a_second_run_attaches_to_it() {
    // G8
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();
    shop.run(&["deploy", "--version", "v1"]).ended(0);
    // It is not ready before the test wants it to be.
    let unready = shop.dir().join("unready");
    std::fs::write(&unready, "").expect("a folder");
    shop.configure(&format!(
        "env: {{ FAIL_CHECK_ON: b, FAIL_CHECK_WHILE: {} }}\n",
        unready.display()
    ));

    let (cancelled, talk) = deploying(&shop, "started deployment");
    let (code, signal) = cancel(cancelled, |group, signal| {
        let _ = kill_process_group(group, signal);
    });
    assert_eq!((code, signal), (Some(4), Signal::INT));
    let talk: String = talk.map_while(Result::ok).collect();
    assert!(
        talk.contains("the server continues what it requested"),
        "{talk}"
    );
    assert!(talk.contains("attaches to its deployment"), "{talk}");

    let (mut killed, _talk) = deploying(&shop, "attached to deployment");
    killed.kill().expect("it is a child");
    let status = killed.wait().expect("it is a child");
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));

    let (last, talk) = deploying(&shop, "attached to deployment");
    std::fs::remove_file(&unready).expect("it is there");
    let talk: Vec<_> = talk.map_while(Result::ok).collect();
    let last = Ran {
        talk: talk.join("\n"),
        ..last.wait_with_output().expect("it ends").into()
    };
    last.ended(0);
    let receipt: Value = serde_json::from_str(&last.data).expect("one document");
    assert_eq!(receipt["outcome"]["outcome"], "promoted");
    assert_eq!(shop.serves(), ["v2", "v2"]);
    let history = shop.json(&["history", "--json"]);
    assert_eq!(history["deployments"].as_array().map(Vec::len), Some(2));
}

#[test]
#[ignore = "needs actionlint"]
fn action_and_documented_workflows_pass_the_linters_needs_actionlint() {
    let lint = Command::new(root().join("scripts/lint-actions")).output();
    let lint = lint.expect("the script runs");
    let said = String::from_utf8_lossy(&lint.stdout) + String::from_utf8_lossy(&lint.stderr);
    assert!(lint.status.success(), "{said}");

    let broken = tempfile::tempdir().expect("a folder");
    let workflow = broken.path().join("broken.yml");
    let text = "on: push\njobs: { a: { runs-on: ubuntu-latest, steps: [{ rum: ls }] } }\n";
    std::fs::write(&workflow, text).expect("a folder");
    let lint = Command::new(root().join("scripts/lint-actions"))
        .arg(workflow)
        .output();
    assert!(
        !lint.expect("the script runs").status.success(),
        "the linter sees nothing"
    );
}

/// A `greenlight deploy` of v2 in a process group of its own, once it has said this.
fn deploying(shop: &Shop, said: &str) -> (Child, impl Iterator<Item = std::io::Result<String>>) {
    let mut command = shop.command(&["deploy", "--version", "v2", "--json"]);
    let command = command.process_group(0).stdout(Stdio::piped());
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let stderr = child.stderr.take().expect("it is piped");
    let mut lines = BufReader::new(stderr).lines();
    let has_said = lines.any(|line| line.is_ok_and(|line| line.contains(said)));
    assert!(has_said, "it ended without `{said}`");
    (child, lines)
}

/// The operator's credentials as the documentation says to make a secret of them.
fn secret(shop: &Shop) -> String {
    let script = "tar -C .greenlight/operator -c ca.pem cert.pem key.pem fingerprint.key server | base64 -w0";
    let mut command = Command::new("bash");
    let output = command
        .args(["-c", script])
        .current_dir(shop.dir())
        .output();
    let output = output.expect("bash runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("base64 is text")
}

fn annotations(log: &str) -> Vec<&str> {
    let lines = log.lines();
    lines.filter(|line| line.starts_with("::error")).collect()
}

/// A folder with these programs of the machine alone.
fn folder_with(programs: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = std::env::var_os("PATH").expect("there is a path");
    for name in programs {
        let mut places = std::env::split_paths(&path).map(|dir| dir.join(name));
        let program = places.find(|place| place.exists()).expect(name);
        std::os::unix::fs::symlink(program, folder.path().join(name)).expect("it is ours");
    }
    folder
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a folder");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, executable).expect("it is ours");
}
