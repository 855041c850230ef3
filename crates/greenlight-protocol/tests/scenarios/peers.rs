//! Instances that look at each other before the barrier.

use crate::story::{Story, name};
use crate::{LONG, WARM, alone, everywhere, green, is_directive_to, roll_back};
use greenlight_protocol::coordinator::DeploymentRequest;
use greenlight_protocol::policy::PeerChecks;
use greenlight_protocol::{Outcome, Strategy};
use std::time::Duration;

fn request(story: &Story, strategy: Strategy) -> DeploymentRequest {
    let mut request = story.request_by(strategy, &[("shop", "v2")]);
    request.policy.peer_checks = PeerChecks::Yes;
    request
}

fn looks(story: &Story) -> Vec<usize> {
    story
        .machines
        .values()
        .map(|machine| machine.looks)
        .collect()
}

#[test]
fn everyone_looks_once_and_a_rollback_does_not_wait_for_it() {
    let mut story = Story::serving_v1(3);
    let request = request(&story, Strategy::BlueGreen);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();
    assert_eq!(looks(&story), [1, 1, 1]);
    assert_eq!(story.served("shop"), everywhere("v2"));

    story.machine(&name(3)).is_unseen = true;
    story.dies_now(&name(2), &green());
    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(looks(&story), [1, 1, 1]);
}

#[test]
fn an_instance_that_is_ready_only_for_itself_stops_the_deployment() {
    let mut story = Story::serving_v1(3); // G2
    story.machine(&name(3)).is_unseen = true;
    let holds: Vec<_> = story
        .machines
        .values()
        .map(|machine| machine.holds)
        .collect();

    let request = request(&story, Strategy::BlueGreen);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(WARM);

    let Some(Outcome::Aborted { reason }) = story.outcome() else {
        panic!("{:?}", story.outcome());
    };
    let expected = "instance `i3` is ready only for itself; from `i1`: no road; from `i2`: no road";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
    let now: Vec<_> = story
        .machines
        .values()
        .map(|machine| machine.holds)
        .collect();
    assert_eq!(now, holds, "no gate was touched");
}

#[test]
fn a_rollback_does_not_look_and_so_goes_past_who_is_cut_off() {
    let mut story = Story::serving_v1(3);
    let request = request(&story, Strategy::BlueGreen);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(WARM);
    story.machine(&name(3)).is_unseen = true;

    roll_back(&mut story).expect("there is an earlier release");
    story.pass(WARM);

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.served("shop"), everywhere("v1"));
}

#[test]
fn a_release_that_dies_while_they_look_stops_the_deployment() {
    let mut story = Story::serving_v1(3); // G4
    let request = request(&story, Strategy::BlueGreen);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    assert!(story.run_until(|w| w.phase() == "checking peers"));
    // The others have to ask again; meanwhile it dies.
    story
        .in_flight
        .retain(|message| !is_directive_to(message, 1));
    story.dies_now(&name(2), &green());
    story.pass(WARM);

    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
}

#[test]
fn an_agent_that_is_away_while_they_look_is_given_up_on() {
    let mut story = Story::serving_v1(3);
    let request = request(&story, Strategy::BlueGreen);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    assert!(story.run_until(|w| w.phase() == "checking peers"));
    story.deaf = Some(name(2));
    story.pass(Duration::from_mins(1));

    let Some(Outcome::Aborted { reason }) = story.outcome() else {
        panic!("{:?}", story.outcome());
    };
    assert!(reason.contains("on its peers in time"), "{reason}");
}

#[test]
fn who_changes_alone_has_no_peers_to_look_at() {
    let mut story = Story::serving_v1(3);
    let request = request(&story, Strategy::Rolling { parallelism: 1 });
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(looks(&story), [0, 0, 0]);
    roll_back(&mut story).expect("there is an earlier release");
    story.pass(LONG);
    assert_eq!(story.served("shop"), everywhere("v1"));
}
