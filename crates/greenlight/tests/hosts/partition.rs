//! A host that is cut off from the fleet during the hold, while the balancer still reaches it.
//!
//! The moment is made sure by the lateness of the other host: `b` has acknowledged 1.2 s before
//! the messages of `a` arrive, and is cut off as soon as the progress says so.

use crate::fleet::{Fleet, FleetPlan};
use crate::users::{receipt, window};
use std::time::Duration;

/// The others hold for `hold_budget` (3 s), and a little more until they hear that it is over;
/// who is in doubt holds for `max_hold` (6 s).
const IN_DOUBT: Duration = Duration::from_millis(4_500);

/// `a` is late, but not too late for the budget.
const PLAN: FleetPlan = FleetPlan {
    injected_delay: Some(("a", "600ms")),
    ..FleetPlan::USUAL
};

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn a_host_behind_haproxy_that_is_cut_off_before_its_hold_aborts_and_no_user_notices() {
    let fleet = Fleet::start(PLAN);
    let load = fleet.load();

    let second = fleet.deploy_watched("v2", |line| {
        if line.ends_with("b: armed") {
            fleet.control_cable("b", false);
        }
    });

    assert_eq!(second.code, 1, "{second}");
    let seen = &receipt(&fleet).cut_overs[0];
    assert!(seen.hold_sent_ns.is_some() && seen.committed_ns.is_none());
    assert_eq!(fleet.serves(), ["v1", "v1"]); // G2
    fleet.control_cable("b", true);
    crate::changes_nothing(&fleet, load);
    // Nobody is left in doubt.
    let third = fleet.deploy("v3");
    assert_eq!(third.code, 0, "{third}");
    assert_eq!(fleet.serves(), ["v3", "v3"]);
}

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn a_host_behind_haproxy_whose_acknowledgement_is_lost_holds_serves_old_and_no_request_fails() {
    let fleet = Fleet::start(FleetPlan {
        injected_delay: Some(("b", "600ms")),
        ..FleetPlan::USUAL
    });
    let load = fleet.load();

    // Its hold is under way, and its answer will not arrive.
    let second = fleet.deploy_watched("v2", |line| {
        if line.ends_with("a: held") {
            fleet.control_cable("b", false);
        }
        if line.ends_with("aborting") {
            // Whoever asks `b` waits for as long as it is in doubt.
            assert_eq!(fleet.serves(), ["v1", "v1"]);
            fleet.control_cable("b", true);
        }
    });

    assert_eq!(second.code, 1, "{second}");
    assert!(receipt(&fleet).cut_overs[0].committed_ns.is_none());
    let longest = load
        .samples()
        .into_iter()
        .map(|s| s.received_ns - s.sent_ns);
    let longest = Duration::from_nanos(longest.max().expect("users were answered"));
    assert!(longest > IN_DOUBT, "it was not held: {longest:?}");
    crate::changes_nothing(&fleet, load); // G2 and G3
    let third = fleet.deploy("v3");
    assert_eq!(third.code, 0, "{third}");
    assert_eq!(fleet.serves(), ["v3", "v3"]);
}

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn a_host_behind_haproxy_that_lost_only_the_server_learns_the_decision_from_its_peer() {
    let fleet = Fleet::start(PLAN);
    let load = fleet.load();

    let second = fleet.deploy_watched("v2", |line| {
        if line.ends_with("b: held") {
            fleet.road_to_server("b", false);
        }
        if line.ends_with("a: switched") {
            fleet.wait_until("b has asked a", |fleet| fleet.serves() == ["v2", "v2"]);
            fleet.road_to_server("b", true);
        }
    });

    assert_eq!(second.code, 0, "{second}");
    let samples = load.stop();
    let seen = window(&fleet, &samples, "v2");
    assert_eq!(seen.failed, 0, "{seen:?}"); // G3
    assert_eq!(seen.stale, 0, "{seen:?}"); // G1
    fleet.balancer().saw_nothing_wrong();
}

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn a_host_behind_haproxy_that_lost_everybody_in_doubt_serves_old_and_the_receipt_says_so() {
    let fleet = Fleet::start(PLAN);
    let load = fleet.load();

    let second = fleet.deploy_watched("v2", |line| lose_everybody(&fleet, line, "v1"));

    assert_eq!(second.code, 0, "{second}");
    let samples = load.stop();
    let seen = window(&fleet, &samples, "v2");
    assert_eq!(seen.failed, 0, "{seen:?}"); // G3
    assert!(seen.stale > 0, "it was not in doubt");
    assert_eq!(fleet.serves(), ["v2", "v2"]); // G2 and G5
    let claims = receipt(&fleet).cut_overs[0].checks();
    let broken: Vec<_> = claims.iter().filter(|claim| !claim.holds).collect();
    assert_eq!(broken.len(), 1, "{claims:?}");
    assert!(broken[0].claim.starts_with("`b` kept its gate closed"));
    fleet.balancer().saw_nothing_wrong();
}

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn a_host_that_sheds_in_doubt_is_taken_out_by_haproxy_and_old_and_new_never_mix() {
    let fleet = Fleet::start(FleetPlan {
        cutover: "{ hold_budget: 3s, max_hold: 6s, on_uncertain: shed }",
        ..PLAN
    });
    let load = fleet.load();

    let second = fleet.deploy_watched("v2", |line| {
        lose_everybody(&fleet, line, "503");
    });

    assert_eq!(second.code, 0, "{second}");
    fleet.wait_until("the balancer has b back", |fleet| {
        fleet.balancer().is_up("b")
    });
    let samples = load.stop();
    let seen = window(&fleet, &samples, "v2");
    assert_eq!(seen.stale, 0, "{seen:?}"); // G1
    let others = seen
        .failures
        .keys()
        .filter(|reason| *reason != "status 503");
    assert_eq!(others.count(), 0, "{seen:?}");
    assert_eq!(fleet.serves(), ["v2", "v2"]);
}

/// Cuts `b` off from everybody once it has acknowledged, and plugs it in again when its hold has
/// ended and it answers this.
fn lose_everybody(fleet: &Fleet, line: &str, answers: &str) {
    if line.ends_with("b: held") {
        fleet.control_cable("b", false);
    }
    if line.ends_with("a: switched") {
        fleet.wait_until("its hold has ended", |fleet| {
            let served = fleet.serves();
            served[0] == "v2" && served[1].contains(answers)
        });
        if answers == "503" {
            fleet.wait_until("the balancer has taken it out", |fleet| {
                !fleet.balancer().is_up("b")
            });
        }
        fleet.control_cable("b", true);
    }
}
