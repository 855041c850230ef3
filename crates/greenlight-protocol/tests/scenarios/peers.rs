//! Instances that look at each other before the barrier.

use crate::world::{World, name};
use crate::{LONG, WARM, alone, everywhere, exited, green, is_directive_to, roll_back};
use greenlight_protocol::coordinator::DeploymentRequest;
use greenlight_protocol::policy::PeerChecks;
use greenlight_protocol::{Outcome, Strategy};
use std::time::Duration;

fn request(world: &World, strategy: Strategy) -> DeploymentRequest {
    let mut request = world.request_by(strategy, &[("shop", "v2")]);
    request.policy.peer_checks = PeerChecks::Yes;
    request
}

fn looks(world: &World) -> Vec<usize> {
    world
        .machines
        .values()
        .map(|machine| machine.looks)
        .collect()
}

#[test]
fn everyone_looks_once_and_a_rollback_does_not_wait_for_it() {
    let mut world = World::serving_v1(3);
    let request = request(&world, Strategy::BlueGreen);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();
    assert_eq!(looks(&world), [1, 1, 1]);
    assert_eq!(world.served("shop"), everywhere("v2"));

    let incarnation = world.machine(&name(2)).apps[&green()].incarnation;
    world.machine(&name(2)).apps.remove(&green());
    world.machine(&name(3)).is_unseen = true;
    world.tell(&name(2), exited(incarnation));
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(looks(&world), [1, 1, 1]);
}

#[test]
fn an_instance_that_is_ready_only_for_itself_stops_the_deployment() {
    let mut world = World::serving_v1(3); // G2
    world.machine(&name(3)).is_unseen = true;
    let holds: Vec<_> = world
        .machines
        .values()
        .map(|machine| machine.holds)
        .collect();

    let request = request(&world, Strategy::BlueGreen);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(WARM);

    let Some(Outcome::Aborted { reason }) = world.outcome() else {
        panic!("{:?}", world.outcome());
    };
    let expected = "instance `i3` is ready only for itself; from `i1`: no road; from `i2`: no road";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
    let now: Vec<_> = world
        .machines
        .values()
        .map(|machine| machine.holds)
        .collect();
    assert_eq!(now, holds, "no gate was touched");
}

#[test]
fn a_rollback_does_not_look_and_so_goes_past_who_is_cut_off() {
    let mut world = World::serving_v1(3);
    let request = request(&world, Strategy::BlueGreen);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(WARM);
    world.machine(&name(3)).is_unseen = true;

    roll_back(&mut world).expect("there is an earlier release");
    world.pass(WARM);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn a_release_that_dies_while_they_look_stops_the_deployment() {
    let mut world = World::serving_v1(3); // G4
    let request = request(&world, Strategy::BlueGreen);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    assert!(world.run_until(|w| w.phase() == "checking peers"));
    // The others have to ask again; meanwhile it dies.
    world
        .in_flight
        .retain(|message| !is_directive_to(message, 1));
    let incarnation = world.machine(&name(2)).apps[&green()].incarnation;
    world.machine(&name(2)).apps.remove(&green());
    world.tell(&name(2), exited(incarnation));
    world.pass(WARM);

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn an_agent_that_is_away_while_they_look_is_given_up_on() {
    let mut world = World::serving_v1(3);
    let request = request(&world, Strategy::BlueGreen);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    assert!(world.run_until(|w| w.phase() == "checking peers"));
    world.deaf = Some(name(2));
    world.pass(Duration::from_mins(1));

    let Some(Outcome::Aborted { reason }) = world.outcome() else {
        panic!("{:?}", world.outcome());
    };
    assert!(reason.contains("on its peers in time"), "{reason}");
}

#[test]
fn who_changes_alone_has_no_peers_to_look_at() {
    let mut world = World::serving_v1(3);
    let request = request(&world, Strategy::Rolling { parallelism: 1 });
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(looks(&world), [0, 0, 0]);
    roll_back(&mut world).expect("there is an earlier release");
    world.pass(LONG);
    assert_eq!(world.served("shop"), everywhere("v1"));
}
