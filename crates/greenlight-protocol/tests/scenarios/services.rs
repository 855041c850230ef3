//! Several services that come, go and change together.

use crate::story::{Story, name, release};
use crate::{LONG, WARM, alone, everywhere, roll_back, versions};
use greenlight_protocol::coordinator::{DeploymentRequest, Promotion};
use greenlight_protocol::{Accepted, AgentEvent, Color, Command, Epoch, Outcome, Policy, Refusal};
use std::time::Duration;

fn deploy(story: &mut Story, releases: &[(&str, &str)]) {
    let request = story.request(releases);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);
}

fn removal(story: &Story, service: &str) -> DeploymentRequest {
    let mut request = story.request(&[]);
    request.releases.insert(service.into(), None);
    request
}

fn nowhere() -> Vec<Option<String>> {
    vec![None; 3]
}

#[test]
fn a_rollback_goes_to_the_set_that_served_before_and_never_to_a_mixture() {
    let mut story = Story::new(3);
    deploy(&mut story, &[("shop", "v1"), ("mail", "m1")]);
    deploy(&mut story, &[("shop", "v2")]);
    deploy(&mut story, &[("mail", "m2")]);

    roll_back(&mut story).expect("there is an earlier set");
    story.pass(LONG);

    assert_eq!(story.served("mail"), everywhere("m1"));
    assert_eq!(story.served("shop"), everywhere("v2"), "it was live then");
    roll_back(&mut story).expect("there is an earlier set");
    story.pass(LONG);
    assert_eq!(story.served("mail"), everywhere("m2"));
    assert_eq!(story.served("shop"), everywhere("v2"));
}

#[test]
fn a_failed_deployment_that_brought_a_service_removes_it_again() {
    let mut story = Story::serving_v1(3); // G2
    let request = story.request(&[("shop", "v2"), ("mail", "m1")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();
    assert_eq!(story.served("mail"), everywhere("m1"));
    story.kill(&name(1), "v2");
    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.served("mail"), nowhere());
    assert_eq!(story.running(), alone("v1"));
    deploy(&mut story, &[("shop", "v3"), ("mail", "m2")]);
    assert_eq!(story.served("mail"), everywhere("m2"));
}

#[test]
fn a_first_deployment_that_is_aborted_in_its_watch_leaves_nothing() {
    let mut story = Story::new(3); // G2
    let request = story.request(&[("shop", "v1")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();
    let requested_by = "a person".to_owned();
    story
        .command(Command::Abort { requested_by })
        .expect("a deployment is under way");
    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), nowhere());
    assert_eq!(story.running(), vec![versions(&[]); 3]);
    assert_eq!(roll_back(&mut story), Err(Refusal::NeverDeployed));
    deploy(&mut story, &[("shop", "v2")]);
    assert_eq!(story.served("shop"), everywhere("v2"));
}

#[test]
fn a_service_that_is_removed_is_stopped_once_its_time_to_come_back_is_over() {
    let mut story = Story::new(3);
    deploy(&mut story, &[("shop", "v1"), ("mail", "m1")]);

    let request = removal(&story, "mail");
    story.deploy(request).expect("it is live");
    story.pass(WARM);

    assert_eq!(story.served("mail"), nowhere());
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), vec![versions(&["m1", "v1"]); 3], "warm");
    story.pass(LONG);
    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.running(), alone("v1"));
    let again = removal(&story, "mail");
    let refusal = Refusal::NotLive("mail".into());
    assert_eq!(story.deploy(again), Err(refusal));
}

#[test]
fn a_removed_service_comes_back_where_it_still_runs() {
    let mut story = Story::new(3);
    deploy(&mut story, &[("shop", "v1"), ("mail", "m1")]);
    deploy(&mut story, &[("mail", "m2")]); // in the green slot
    let request = removal(&story, "mail");
    story.deploy(request).expect("it is live");
    story.pass(WARM);
    let starts = story.machine(&name(1)).starts;

    roll_back(&mut story).expect("there is an earlier set");
    story.pass(WARM);

    assert_eq!(story.served("mail"), everywhere("m2"));
    assert_eq!(story.machine(&name(1)).starts, starts);
    story.pass(LONG);
    assert_eq!(story.running(), vec![versions(&["m2", "v1"]); 3]);
}

#[test]
fn a_gate_that_comes_back_and_knows_nothing_of_a_removal_is_closed() {
    let mut story = Story::new(3);
    deploy(&mut story, &[("shop", "v1"), ("mail", "m1")]);
    let request = removal(&story, "mail");
    story.deploy(request).expect("it is live");
    story.pass(WARM);
    let machine = story.machine(&name(2));
    machine.gate_comes_back_open_to("mail", Color::Blue);

    story.tell(&name(2), AgentEvent::GateConnected);
    story.run();

    assert_eq!(story.served("mail"), nowhere());
    assert_eq!(story.served("shop"), everywhere("v1"));
}

#[test]
fn a_rollback_without_timers_of_its_own_has_those_of_the_latest_deployment() {
    let mut story = Story::serving_v1(3);
    let mut request = story.request(&[("shop", "v2")]);
    request.policy.max_hold = Duration::from_millis(1_234);
    let policy = Policy {
        before_switch: None,
        ..request.policy.clone()
    };
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);

    roll_back(&mut story).expect("there is an earlier release");

    let ledger = story.coordinator.as_ref().expect("it is up").ledger();
    assert_eq!(ledger.active().expect("it is on").request.policy, policy);
}

#[test]
fn to_deploy_what_only_was_prepared_promotes_it_as_soon_as_it_is_ready() {
    for waits_already in [true, false] {
        let mut story = Story::serving_v1(3);
        let mut request = story.request(&[("shop", "v2")]);
        request.promotion = Promotion::Manual;
        let deployment = request.deployment.clone();
        story
            .deploy(request)
            .expect("an idle fleet takes a request");
        if waits_already {
            story.pass(WARM);
            assert_eq!(story.phase(), "ready");
        }

        let request = story.request(&[("shop", "v2")]);
        let attached = story.deploy(request);
        assert_eq!(attached, Ok(Accepted::Attached(deployment)));
        story.pass(LONG);

        assert_eq!(story.outcome(), Some(&Outcome::Promoted));
        assert_eq!(story.served("shop"), everywhere("v2"));
    }
}

#[test]
fn a_peer_that_asks_about_an_epoch_to_come_cannot_stop_the_fleet() {
    let mut story = Story::serving_v1(3); // G6
    let asked = AgentEvent::PeerAsked {
        peer: name(2),
        epoch: Epoch(1_000_000),
    };
    story.tell(&name(1), asked);
    deploy(&mut story, &[("shop", "v2")]);

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.served("shop"), everywhere("v2"));
}

#[test]
fn a_removed_service_is_brought_back_by_a_deployment_with_another_release() {
    let mut story = Story::new(3);
    deploy(&mut story, &[("shop", "v1"), ("mail", "m1")]);
    let mut request = removal(&story, "mail");
    request.releases.insert("shop".into(), Some(release("v2")));
    story.deploy(request).expect("it is live");
    story.pass(WARM);
    deploy(&mut story, &[("mail", "m9")]);

    assert_eq!(story.served("mail"), everywhere("m9"));
    assert_eq!(story.served("shop"), everywhere("v2"));
    assert_eq!(story.running(), vec![versions(&["m9", "v2"]); 3]);
}
