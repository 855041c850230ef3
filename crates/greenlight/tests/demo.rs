//! The main job, end to end, with real processes, real traffic and a late instance.

use greenlight::demo::DemoReport;
use greenlight_protocol::Outcome;
use std::process::Command;

#[test]
fn the_demo_cuts_the_fleet_over_with_no_failed_request_and_no_mixed_window() {
    let demo = Command::new(env!("CARGO_BIN_EXE_greenlight"))
        .args(["demo", "--json"])
        .output()
        .expect("the binary runs");

    let talk = String::from_utf8_lossy(&demo.stderr);
    let report: DemoReport =
        serde_json::from_slice(&demo.stdout).unwrap_or_else(|error| panic!("{error}\n{talk}"));
    for deployment in &report.deployments {
        let title = &deployment.title;
        assert!(deployment.requests > 0, "{title}");
        assert_eq!(deployment.failed, 0, "{title}: {:?}", deployment.failures); // G3
        assert_eq!(deployment.stale, 0, "{title}"); // G1
        for check in &deployment.checks {
            assert!(check.holds, "{title}: {}", check.claim);
        }
    }
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
}
