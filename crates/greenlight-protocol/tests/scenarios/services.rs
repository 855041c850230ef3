//! Several services that come, go and change together.

use crate::world::{World, name, release};
use crate::{LONG, WARM, alone, everywhere, roll_back, versions};
use greenlight_protocol::coordinator::{DeploymentRequest, Promotion};
use greenlight_protocol::{Accepted, AgentEvent, Color, Command, Epoch, Outcome, Policy, Refusal};
use std::time::Duration;

fn deploy(world: &mut World, releases: &[(&str, &str)]) {
    let request = world.request(releases);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);
}

fn removal(world: &World, service: &str) -> DeploymentRequest {
    let mut request = world.request(&[]);
    request.releases.insert(service.into(), None);
    request
}

fn nowhere() -> Vec<Option<String>> {
    vec![None; 3]
}

#[test]
fn a_rollback_goes_to_the_set_that_served_before_and_never_to_a_mixture() {
    let mut world = World::new(3);
    deploy(&mut world, &[("shop", "v1"), ("mail", "m1")]);
    deploy(&mut world, &[("shop", "v2")]);
    deploy(&mut world, &[("mail", "m2")]);

    roll_back(&mut world).expect("there is an earlier set");
    world.pass(LONG);

    assert_eq!(world.served("mail"), everywhere("m1"));
    assert_eq!(world.served("shop"), everywhere("v2"), "it was live then");
    roll_back(&mut world).expect("there is an earlier set");
    world.pass(LONG);
    assert_eq!(world.served("mail"), everywhere("m2"));
    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn a_failed_deployment_that_brought_a_service_removes_it_again() {
    let mut world = World::serving_v1(3); // G2
    let request = world.request(&[("shop", "v2"), ("mail", "m1")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();
    assert_eq!(world.served("mail"), everywhere("m1"));
    world.kill(&name(1), "v2");
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.served("mail"), nowhere());
    assert_eq!(world.running(), alone("v1"));
    deploy(&mut world, &[("shop", "v3"), ("mail", "m2")]);
    assert_eq!(world.served("mail"), everywhere("m2"));
}

#[test]
fn a_first_deployment_that_is_aborted_in_its_watch_leaves_nothing() {
    let mut world = World::new(3); // G2
    let request = world.request(&[("shop", "v1")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();
    let requested_by = "a person".to_owned();
    world
        .command(Command::Abort { requested_by })
        .expect("a deployment is under way");
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), nowhere());
    assert_eq!(world.running(), vec![versions(&[]); 3]);
    assert_eq!(roll_back(&mut world), Err(Refusal::NeverDeployed));
    deploy(&mut world, &[("shop", "v2")]);
    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn a_service_that_is_removed_is_stopped_once_its_time_to_come_back_is_over() {
    let mut world = World::new(3);
    deploy(&mut world, &[("shop", "v1"), ("mail", "m1")]);

    let request = removal(&world, "mail");
    world.deploy(request).expect("it is live");
    world.pass(WARM);

    assert_eq!(world.served("mail"), nowhere());
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), vec![versions(&["m1", "v1"]); 3], "warm");
    world.pass(LONG);
    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.running(), alone("v1"));
    let again = removal(&world, "mail");
    let refusal = Refusal::NotLive("mail".into());
    assert_eq!(world.deploy(again), Err(refusal));
}

#[test]
fn a_removed_service_comes_back_where_it_still_runs() {
    let mut world = World::new(3);
    deploy(&mut world, &[("shop", "v1"), ("mail", "m1")]);
    deploy(&mut world, &[("mail", "m2")]); // in the green slot
    let request = removal(&world, "mail");
    world.deploy(request).expect("it is live");
    world.pass(WARM);
    let starts = world.machine(&name(1)).starts;

    roll_back(&mut world).expect("there is an earlier set");
    world.pass(WARM);

    assert_eq!(world.served("mail"), everywhere("m2"));
    assert_eq!(world.machine(&name(1)).starts, starts);
    world.pass(LONG);
    assert_eq!(world.running(), vec![versions(&["m2", "v1"]); 3]);
}

#[test]
fn a_gate_that_comes_back_and_knows_nothing_of_a_removal_is_closed() {
    let mut world = World::new(3);
    deploy(&mut world, &[("shop", "v1"), ("mail", "m1")]);
    let request = removal(&world, "mail");
    world.deploy(request).expect("it is live");
    world.pass(WARM);
    let machine = world.machine(&name(2));
    machine.gate_comes_back_open_to("mail", Color::Blue);

    world.tell(&name(2), AgentEvent::GateConnected);
    world.run();

    assert_eq!(world.served("mail"), nowhere());
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn a_rollback_without_timers_of_its_own_has_those_of_the_latest_deployment() {
    let mut world = World::serving_v1(3);
    let mut request = world.request(&[("shop", "v2")]);
    request.policy.max_hold = Duration::from_millis(1_234);
    let policy = Policy {
        before_switch: None,
        ..request.policy.clone()
    };
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);

    roll_back(&mut world).expect("there is an earlier release");

    let ledger = world.coordinator.as_ref().expect("it is up").ledger();
    assert_eq!(ledger.active().expect("it is on").request.policy, policy);
}

#[test]
fn to_deploy_what_only_was_prepared_promotes_it_as_soon_as_it_is_ready() {
    for waits_already in [true, false] {
        let mut world = World::serving_v1(3);
        let mut request = world.request(&[("shop", "v2")]);
        request.promotion = Promotion::Manual;
        let deployment = request.deployment.clone();
        world
            .deploy(request)
            .expect("an idle fleet takes a request");
        if waits_already {
            world.pass(WARM);
            assert_eq!(world.phase(), "ready");
        }

        let request = world.request(&[("shop", "v2")]);
        let attached = world.deploy(request);
        assert_eq!(attached, Ok(Accepted::Attached(deployment)));
        world.pass(LONG);

        assert_eq!(world.outcome(), Some(&Outcome::Promoted));
        assert_eq!(world.served("shop"), everywhere("v2"));
    }
}

#[test]
fn a_peer_that_asks_about_an_epoch_to_come_cannot_stop_the_fleet() {
    let mut world = World::serving_v1(3); // G6
    let asked = AgentEvent::PeerAsked {
        peer: name(2),
        epoch: Epoch(1_000_000),
    };
    world.tell(&name(1), asked);
    deploy(&mut world, &[("shop", "v2")]);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn a_removed_service_is_brought_back_by_a_deployment_with_another_release() {
    let mut world = World::new(3);
    deploy(&mut world, &[("shop", "v1"), ("mail", "m1")]);
    let mut request = removal(&world, "mail");
    request.releases.insert("shop".into(), Some(release("v2")));
    world.deploy(request).expect("it is live");
    world.pass(WARM);
    deploy(&mut world, &[("mail", "m9")]);

    assert_eq!(world.served("mail"), everywhere("m9"));
    assert_eq!(world.served("shop"), everywhere("v2"));
    assert_eq!(world.running(), vec![versions(&["m9", "v2"]); 3]);
}
