//! Hosts that look at each other before the barrier, over the network that lies between them.

use crate::fleet::{Fleet, FleetPlan, Front, Road};
use crate::users::window;

const THREE: FleetPlan = FleetPlan {
    names: &["a", "b", "c"],
    ..FleetPlan::USUAL
};

#[test]
#[ignore = "needs root, ip, nginx, haproxy"]
fn a_host_behind_haproxy_that_is_ready_only_for_itself_stops_the_deployment_and_is_named() {
    let fleet = Fleet::start(THREE);
    for (road, said) in [
        (Road::Users, "its front at 10.88.0.12:80 cannot be reached"),
        (Road::Control, "its agent cannot be reached"),
    ] {
        let load = fleet.load();
        fleet.road_to_peers("b", road, false);

        let second = fleet.deploy("v2");

        assert_eq!(second.code, 1, "{second}");
        assert!(
            second
                .talk
                .contains("instance `b` is ready only for itself"),
            "{second}"
        );
        assert!(!second.talk.contains("instance `a` is"), "{second}");
        assert!(second.talk.contains(said), "{second}");
        assert_eq!(fleet.serves(), ["v1"; 3]); // G2
        crate::changes_nothing(&fleet, load);
        fleet.road_to_peers("b", road, true);
    }

    let third = fleet.deploy("v3");
    assert_eq!(third.code, 0, "{third}");
    assert!(third.talk.contains("b: sees its peers ready"), "{third}");
    assert_eq!(fleet.serves(), ["v3"; 3]);
}

#[test]
#[ignore = "needs root, ip, haproxy"]
fn hosts_behind_haproxy_that_do_not_reach_each_other_deploy_when_told_not_to_look() {
    let fleet = Fleet::start(FleetPlan {
        front: Front::Builtin,
        ..FleetPlan::USUAL
    });
    fleet.road_to_peers("b", Road::Users, false);
    let load = fleet.load();
    let file = fleet.file();
    let text = std::fs::read_to_string(&file).expect("it was written");
    std::fs::write(&file, format!("{text}peer_checks: false\n")).expect("a folder");

    let second = fleet.deploy("v2");

    assert_eq!(second.code, 0, "{second}");
    let seen = window(&fleet, &load.stop(), "v2");
    assert_eq!((seen.failed, seen.stale), (0, 0), "{seen:?}");
    assert_eq!(fleet.serves(), ["v2", "v2"]);
}
