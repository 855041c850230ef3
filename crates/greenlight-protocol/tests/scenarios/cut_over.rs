//! One deployment on its way: when all goes well, and when something fails before the commit or
//! after it.

use crate::story::{Gate, InFlight, Story, name};
use crate::{LONG, WARM, alone, everywhere, green, is_directive_to, versions};
use greenlight_protocol::coordinator::{CoordinatorRecord, Promotion};
use greenlight_protocol::{Command, Epoch, Outcome, Slot, Timestamp};
use std::time::Duration;

// ---- From an empty fleet to a promoted release ----

#[test]
fn the_first_deployment_opens_every_gate_to_the_new_release() {
    let mut story = Story::new(3);

    let request = story.request(&[("shop", "v1")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(WARM);

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_good_deployment_switches_everyone_and_keeps_the_old_release_warm_until_it_is_retired() {
    let mut story = Story::serving_v1(3);

    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(WARM);

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.served("shop"), everywhere("v2"));
    assert_eq!(story.running(), vec![versions(&["v1", "v2"]); 3]);
    story.pass(LONG);
    assert_eq!(story.running(), alone("v2"));
    assert!(story.coordinator.as_ref().is_some_and(|c| !c.is_retiring()));
}

#[test]
fn no_gate_opens_to_the_new_release_before_the_commit_is_on_disk() {
    let mut story = Story::serving_v1(3); // G5

    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    let opened = story.run_until(|w| w.served("shop").contains(&Some("v2".to_owned())));

    assert!(opened);
    assert!(
        story
            .records
            .contains(&CoordinatorRecord::Committed(Epoch(2)))
    );
}

#[test]
fn every_gate_is_held_before_any_gate_opens_to_the_new_release() {
    let mut story = Story::serving_v1(3); // G1

    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.served("shop").contains(&Some("v2".to_owned())));

    assert!(!story.served("shop").contains(&Some("v1".to_owned())));
}

#[test]
fn two_services_cut_over_as_one_set() {
    let mut story = Story::new(3);
    let request = story.request(&[("shop", "v1"), ("cart", "c1")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);

    let request = story.request(&[("shop", "v2"), ("cart", "c2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);

    assert_eq!(story.served("shop"), everywhere("v2"));
    assert_eq!(story.served("cart"), everywhere("c2"));
    assert_eq!(story.running(), vec![versions(&["c2", "v2"]); 3]);
}

#[test]
fn one_of_two_services_that_fails_leaves_both_on_their_old_releases() {
    let mut story = Story::new(3); // G2
    let request = story.request(&[("shop", "v1"), ("cart", "c1")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);
    story.machine(&name(2)).broken.insert("c2".to_owned());

    let request = story.request(&[("shop", "v2"), ("cart", "c2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.served("cart"), everywhere("c1"));
    assert_eq!(story.running(), vec![versions(&["c1", "v1"]); 3]);
}

// ---- Failures before the commit ----

#[test]
fn one_instance_that_fails_its_check_aborts_the_deployment_and_leaves_nothing_new_running() {
    let mut story = Story::serving_v1(3); // G2
    story.machine(&name(2)).broken.insert("v2".to_owned());

    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();

    let Some(Outcome::Aborted { reason }) = story.outcome() else {
        panic!("aborted, not {:?}", story.outcome());
    };
    assert!(
        reason.contains("`i2`") && reason.contains("check"),
        "{reason}"
    );
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
    assert_eq!(story.machine(&name(1)).holds, 1, "only the first cut-over");
}

#[test]
fn a_failure_whose_report_was_lost_is_told_again_when_the_agent_is_asked_again() {
    let mut story = Story::serving_v1(3);
    story.machine(&name(2)).broken.insert("v2".to_owned());
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| {
        let refused = |l: &InFlight| l.report().is_some_and(|(from, _)| from == name(2));
        w.in_flight.iter().any(refused) && w.machines[&name(2)].starts == 2
    });
    story.disconnect(&name(2));

    story.connect(&name(2));
    story.pass(Duration::from_secs(5));

    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
}

#[test]
fn a_predicted_hold_over_budget_is_refused_before_traffic_is_touched() {
    let mut story = Story::serving_v1(3); // G3

    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "arming");
    story.now = Timestamp(story.now.0 + 200_000);
    story.run();

    let Some(Outcome::Aborted { reason }) = story.outcome() else {
        panic!("aborted, not {:?}", story.outcome());
    };
    assert!(reason.contains("300 ms"), "{reason}");
    assert_eq!(story.machine(&name(1)).holds, 1, "only the first cut-over");
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_hold_that_outlasts_its_budget_is_aborted_and_every_gate_reopens_to_the_old_release() {
    let mut story = Story::serving_v1(3); // G2, G3
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "holding");
    story.deaf = Some(name(3));

    story.pass(Duration::from_millis(249));
    assert_eq!(story.phase(), "holding");
    story.pass(Duration::from_millis(1));
    assert_eq!(story.phase(), "aborting");
    story.deaf = None;
    story.pass(Duration::from_secs(1));

    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_new_release_that_dies_after_it_was_ready_is_noticed_when_it_is_to_be_armed() {
    let mut story = Story::serving_v1(3); // G4
    let mut request = story.request(&[("shop", "v2")]);
    request.promotion = Promotion::Manual;
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();

    story.kill(&name(1), "v2");
    story.run();
    story.command(Command::Promote).expect("all are ready");
    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn an_instance_that_slept_through_two_failed_deployments_forgets_them_when_it_is_back() {
    let mut story = Story::serving_v1(3); // G2
    story.machine(&name(2)).broken.insert("v2".to_owned());
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    // The third hears the first `Prepare`, and from then on only the second `Abort`.
    story.run_until(|w| w.machines[&name(3)].starts == 2);
    story
        .in_flight
        .retain(|in_flight| in_flight.told_at() != Some(&name(3)));
    story.deaf = Some(name(3));
    story.pass(Duration::from_secs(11));
    let request = story.request(&[("shop", "v3")]);
    story.machine(&name(2)).broken.insert("v3".to_owned());
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story
        .in_flight
        .retain(|message| !is_directive_to(message, 3));
    story.deaf = None;
    story.run();

    story.connect(&name(3));
    story.pass(LONG);

    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

// ---- Failures after the commit ----

#[test]
fn a_new_release_that_dies_while_it_is_watched_is_rolled_back_through_the_same_barrier() {
    let mut story = Story::serving_v1(3); // G1, G2
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();
    assert_eq!(story.phase(), "watching");

    story.kill(&name(2), "v2");
    let back = story.run_until(|w| w.served("shop").contains(&Some("v1".to_owned())));

    assert!(back);
    assert!(!story.served("shop").contains(&Some("v2".to_owned())));
    story.run();
    let Some(Outcome::RolledBack { reason }) = story.outcome() else {
        panic!("rolled back, not {:?}", story.outcome());
    };
    assert!(reason.contains("killed by the test"), "{reason}");
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
    assert_eq!(story.machine(&name(1)).holds, 3);
    assert_eq!(story.machine(&name(1)).starts, 2, "the way back was warm");
}

#[test]
fn a_rollback_that_is_aborted_is_shown_as_one_and_tried_again() {
    let mut story = Story::serving_v1(3); // G2
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();
    story.kill(&name(2), "v2");
    assert!(story.run_until(|w| w.phase() == "arming"));

    story.disconnect(&name(3));
    story.run();

    assert_eq!(story.phase(), "retrying the rollback");
    assert_eq!(story.outcome(), None);
    story.pass(Duration::from_secs(2));
    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_new_release_that_dies_with_its_agent_while_it_is_watched_is_rolled_back() {
    let mut story = Story::serving_v1(3); // G2
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();
    assert_eq!(story.phase(), "watching");

    story.kill(&name(2), "v2");
    story.crash_agent(&name(2));
    story.restart_agent(&name(2));
    story.run();

    let Some(Outcome::RolledBack { reason }) = story.outcome() else {
        panic!("rolled back, not {:?}", story.outcome());
    };
    assert!(reason.contains("dead when the agent came back"), "{reason}");
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_release_that_died_while_its_instance_was_away_is_not_promoted_when_the_watch_is_over() {
    let mut story = Story::serving_v1(3);
    let request = story.request(&[("shop", "v2")]);
    story.deploy(request).expect("nothing is in the way");
    assert!(story.run_until(|w| w.phase() == "watching"));
    story.disconnect(&name(2));
    story.crash_agent(&name(2));
    story.kill(&name(2), "v2");

    story.pass(Duration::from_mins(1));
    story.run();
    assert_eq!(story.phase(), "confirming");
    assert_eq!(story.outcome(), None);
    story.restart_agent(&name(2));
    story.run();
    story.pass(Duration::from_secs(1));
    story.run();

    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1")); // G2
}

#[test]
fn an_instance_that_stays_away_does_not_keep_a_deployment_from_ending() {
    let mut story = Story::serving_v1(2);
    let request = story.request(&[("shop", "v2")]);
    story.deploy(request).expect("nothing is in the way");
    assert!(story.run_until(|w| w.phase() == "watching"));
    story.disconnect(&name(1));
    story.crash_agent(&name(1));

    story.pass(Duration::from_mins(1));
    story.run();
    assert_eq!(story.phase(), "confirming");
    story.pass(Duration::from_secs(30));
    story.run();

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
}

#[test]
fn a_new_release_that_dies_between_hold_and_switch_is_never_opened_to_and_rolls_everyone_back() {
    let mut story = Story::serving_v1(3); // G2, G4
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "switching");
    story.dies_now(&name(3), &green());

    let opened =
        story.run_until(|w| w.machines[&name(3)].gate("shop") == Gate::Open(green().color));

    assert!(!opened);
    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_first_release_that_dies_at_the_switch_leaves_nothing_behind() {
    let mut story = Story::new(3); // G2
    let request = story.request(&[("shop", "v1")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.phase() == "switching");
    let blue = Slot {
        color: green().color.other(),
        ..green()
    };
    story.dies_now(&name(3), &blue);

    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), vec![None; 3]);
    assert_eq!(story.running(), vec![versions(&[]); 3]);
}

#[test]
fn an_instance_that_restarts_right_after_its_switch_does_not_roll_the_fleet_back() {
    let mut story = Story::serving_v1(3);
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run_until(|w| w.machines[&name(2)].gate("shop") == Gate::Open(green().color));
    story.run_until(|w| {
        let agent = w.machines[&name(2)].agent.as_ref();
        agent.is_some_and(|a| a.ledger().latest_decided() == Epoch(2))
    });
    let reported =
        |in_flight: &InFlight| in_flight.report().is_some_and(|(from, _)| from == name(2));
    story.in_flight.retain(|message| !reported(message));

    story.crash_agent(&name(2));
    story.restart_agent(&name(2));
    story.pass(WARM);

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.served("shop"), everywhere("v2"));
}

#[test]
fn a_second_abort_does_not_stop_the_rollback_that_the_first_one_began() {
    let mut story = Story::serving_v1(3);
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();
    let abort = || Command::Abort {
        requested_by: "an impatient person".to_owned(),
    };

    story.command(abort()).expect("a deployment is under way");
    story.command(abort()).expect("a deployment is under way");
    story.run();

    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
}
