//! Whole hosts behind a load balancer that nobody here wrote, and what its users see.
//!
//! Each host is a network namespace with addresses of its own; see `hosts/fleet.rs`. The balancer
//! checks health and never sends a request again, so that an error of ours is an error of users.

#[path = "hosts/balancer.rs"]
mod balancer;
#[path = "hosts/docker.rs"]
mod docker;
#[path = "hosts/fleet.rs"]
mod fleet;
#[path = "../../greenlight-agent/tests/docker/image.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod image;
#[path = "hosts/machine.rs"]
mod machine;
#[path = "hosts/network.rs"]
mod network;
#[path = "hosts/partition.rs"]
mod partition;
#[path = "hosts/peers.rs"]
mod peers;
#[path = "hosts/setup.rs"]
mod setup;
#[path = "hosts/units.rs"]
mod units;
#[path = "hosts/users.rs"]
mod users;

use fleet::{Fleet, FleetPlan, Front};
use users::{Socket, window};

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn two_nginx_hosts_behind_haproxy_take_a_release_and_no_user_sees_an_error_or_a_mixture() {
    let fleet = Fleet::start(FleetPlan::USUAL);
    let (load, mut socket) = (fleet.load(), Socket::open(&fleet));
    assert_eq!(socket.echo(), "v1");
    let workers = fleet.workers();

    let second = fleet.deploy("v2");

    second.ended(0);
    goes_well(&fleet, load, &["v2", "v2"]);
    assert_eq!(fleet.workers(), workers, "Nginx was reloaded");
    // The old release is kept warm, and ends what it has begun (G7).
    assert_eq!(socket.echo(), "v1");
}

#[test]
#[ignore = "needs root, ip, haproxy"]
fn two_hosts_with_the_built_in_front_behind_haproxy_take_a_release_without_an_error() {
    let fleet = Fleet::start(FleetPlan {
        front: Front::Builtin,
        ..FleetPlan::USUAL
    });
    let (load, mut socket) = (fleet.load(), Socket::open(&fleet));
    assert_eq!(socket.echo(), "v1");

    let second = fleet.deploy("v2");

    second.ended(0);
    goes_well(&fleet, load, &["v2", "v2"]);
    assert_eq!(socket.echo(), "v1");
}

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn two_hosts_whose_nginx_is_reloaded_behind_haproxy_fail_nothing_if_it_keeps_no_connections() {
    let fleet = Fleet::start(FleetPlan {
        front: Front::NginxReload,
        ..FleetPlan::USUAL
    });
    let load = fleet.load();

    let second = fleet.deploy("v2");

    second.ended(0);
    let seen = window(&fleet, &load.stop(), "v2");
    assert_eq!(seen.failed, 0, "{seen:?}"); // G3
    assert_eq!(fleet.serves(), ["v2", "v2"]);
    let receipt = fleet.run(&["receipt"]).data;
    let window = "G1 does not apply; old and new answered side by side for";
    assert!(receipt.contains(window), "{receipt}");
    println!("{} stale in {} ms", seen.stale, seen.mixed_window_ms);
}

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn a_release_that_one_nginx_host_behind_haproxy_cannot_prepare_changes_nothing_for_users() {
    let fleet = Fleet::start(FleetPlan::USUAL);
    let load = fleet.load();

    fails_on(&fleet, "b");

    changes_nothing(&fleet, load);
}

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn five_nginx_hosts_behind_haproxy_refuse_a_bad_release_and_take_a_good_one() {
    let fleet = Fleet::start(FleetPlan {
        names: &["a", "b", "c", "d", "e"],
        ..FleetPlan::USUAL
    });
    let load = fleet.load();

    fails_on(&fleet, "d");
    changes_nothing(&fleet, load);
    fleet.configure(&[], "300ms");
    let load = fleet.load();
    let third = fleet.deploy("v3");

    assert_eq!(third.code, 0, "{third}");
    goes_well(&fleet, load, &["v3"; 5]);
}

#[test]
#[ignore = "needs root, ip, nginx, haproxy and docker"]
fn two_docker_hosts_with_nginx_behind_haproxy_take_a_release_and_no_user_sees_an_error() {
    let outside = image::docker();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for version in ["v1", "v2"] {
        let tag = format!("greenlight-hosts:{version}");
        runtime.block_on(image::from_scratch(&outside, &tag, ""));
    }
    let fleet = Fleet::start_with(
        FleetPlan {
            image: Some("greenlight-hosts"),
            ..FleetPlan::USUAL
        },
        |fleet| {
            for name in ["a", "b"] {
                for version in ["v1", "v2"] {
                    let tag = format!("greenlight-hosts:{version}");
                    fleet.daemon(name).load(&outside, &tag);
                }
            }
        },
    );
    let load = fleet.load();

    let second = fleet.deploy("v2");

    second.ended(0);
    goes_well(&fleet, load, &["v2", "v2"]);
    for name in ["a", "b"] {
        let running = fleet.daemon(name).running();
        assert_eq!(running.len(), 2, "blue and green on {name}: {running:?}");
    }
}

/// The latest deployment brought its release to all, and users noticed nothing.
fn goes_well(fleet: &Fleet, load: greenlight::load::Load, serves: &[&str]) {
    let samples = load.stop();
    let seen = window(fleet, &samples, serves[0]);
    assert!(seen.requests > 0);
    assert_eq!(seen.failed, 0, "{seen:?}"); // G3
    assert_eq!(seen.stale, 0, "{seen:?}"); // G1
    assert_eq!(fleet.serves(), serves); // G2
    let claims = users::receipt(fleet).cut_overs[0].checks();
    assert_eq!(claims.len(), 4 * serves.len(), "{claims:?}");
    assert!(claims.iter().all(|claim| claim.holds), "{claims:?}");
    fleet.balancer().saw_nothing_wrong();
}

/// Deploys `v2`, whose check fails on one host only.
fn fails_on(fleet: &Fleet, name: &str) {
    fleet.configure(&[("FAIL_CHECK_ON", name)], "300ms");
    let second = fleet.deploy("v2");
    assert_eq!(second.code, 1, "{second}");
    let said = format!("instance `{name}`");
    assert!(second.talk.contains(&said), "{second}");
}

/// The failed `v2` left nothing behind, and users noticed nothing.
fn changes_nothing(fleet: &Fleet, load: greenlight::load::Load) {
    fleet.wait_until("nothing of the new release is left", |fleet| {
        let mut hosts = fleet.names().iter();
        hosts.all(|name| fleet.running(name) == ["v1"]) // G2
    });
    let samples = load.stop();
    let others = samples.iter().find(|s| s.result.as_deref() != Ok("v1"));
    assert_eq!(others, None, "{} requests", samples.len()); // G1 and G3
    fleet.balancer().saw_nothing_wrong();
}
