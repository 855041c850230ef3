//! The main job, end to end, with real processes, real traffic and a late instance.

use greenlight::demo::DemoReport;
use greenlight_protocol::Outcome;
use std::process::Command;

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
