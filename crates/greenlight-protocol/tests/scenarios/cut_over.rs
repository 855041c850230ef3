//! One deployment on its way: when all goes well, and when something fails before the commit or
//! after it.

use crate::world::{Gate, Message, World, name};
use crate::{LONG, WARM, alone, everywhere, exited, green, is_directive_to, versions};
use greenlight_protocol::coordinator::{CoordinatorRecord, Promotion};
use greenlight_protocol::{AgentEvent, Command, Epoch, Outcome, Slot, Timestamp};
use std::time::Duration;

// ---- From an empty fleet to a promoted release ----

#[test]
fn the_first_deployment_opens_every_gate_to_the_new_release() {
    let mut world = World::new(3);

    let request = world.request(&[("shop", "v1")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(WARM);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_good_deployment_switches_everyone_and_keeps_the_old_release_warm_until_it_is_retired() {
    let mut world = World::serving_v1(3);

    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(WARM);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v2"));
    assert_eq!(world.running(), vec![versions(&["v1", "v2"]); 3]);
    world.pass(LONG);
    assert_eq!(world.running(), alone("v2"));
    assert!(world.coordinator.as_ref().is_some_and(|c| !c.is_retiring()));
}

#[test]
fn no_gate_opens_to_the_new_release_before_the_commit_is_on_disk() {
    let mut world = World::serving_v1(3); // G5

    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    let opened = world.run_until(|w| w.served("shop").contains(&Some("v2".to_owned())));

    assert!(opened);
    assert!(
        world
            .records
            .contains(&CoordinatorRecord::Committed(Epoch(2)))
    );
}

#[test]
fn every_gate_is_held_before_any_gate_opens_to_the_new_release() {
    let mut world = World::serving_v1(3); // G1

    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.served("shop").contains(&Some("v2".to_owned())));

    assert!(!world.served("shop").contains(&Some("v1".to_owned())));
}

#[test]
fn two_services_cut_over_as_one_set() {
    let mut world = World::new(3);
    let request = world.request(&[("shop", "v1"), ("cart", "c1")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);

    let request = world.request(&[("shop", "v2"), ("cart", "c2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);

    assert_eq!(world.served("shop"), everywhere("v2"));
    assert_eq!(world.served("cart"), everywhere("c2"));
    assert_eq!(world.running(), vec![versions(&["c2", "v2"]); 3]);
}

#[test]
fn one_of_two_services_that_fails_leaves_both_on_their_old_releases() {
    let mut world = World::new(3); // G2
    let request = world.request(&[("shop", "v1"), ("cart", "c1")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);
    world.machine(&name(2)).broken.insert("c2".to_owned());

    let request = world.request(&[("shop", "v2"), ("cart", "c2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.served("cart"), everywhere("c1"));
    assert_eq!(world.running(), vec![versions(&["c1", "v1"]); 3]);
}

// ---- Failures before the commit ----

#[test]
fn one_instance_that_fails_its_check_aborts_the_deployment_and_leaves_nothing_new_running() {
    let mut world = World::serving_v1(3); // G2
    world.machine(&name(2)).broken.insert("v2".to_owned());

    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();

    let Some(Outcome::Aborted { reason }) = world.outcome() else {
        panic!("aborted, not {:?}", world.outcome());
    };
    assert!(
        reason.contains("`i2`") && reason.contains("check"),
        "{reason}"
    );
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
    assert_eq!(world.machine(&name(1)).holds, 1, "only the first cut-over");
}

#[test]
fn a_failure_whose_report_was_lost_is_told_again_when_the_agent_is_asked_again() {
    let mut world = World::serving_v1(3);
    world.machine(&name(2)).broken.insert("v2".to_owned());
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| {
        let refused = |l: &Message| matches!(l, Message::Report(from, _) if *from == name(2));
        w.in_flight.iter().any(refused) && w.machines[&name(2)].starts == 2
    });
    world.disconnect(&name(2));

    world.connect(&name(2));
    world.pass(Duration::from_secs(5));

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
}

#[test]
fn a_predicted_hold_over_budget_is_refused_before_traffic_is_touched() {
    let mut world = World::serving_v1(3); // G3

    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "arming");
    world.now = Timestamp(world.now.0 + 200_000);
    world.run();

    let Some(Outcome::Aborted { reason }) = world.outcome() else {
        panic!("aborted, not {:?}", world.outcome());
    };
    assert!(reason.contains("300 ms"), "{reason}");
    assert_eq!(world.machine(&name(1)).holds, 1, "only the first cut-over");
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_hold_that_outlasts_its_budget_is_aborted_and_every_gate_reopens_to_the_old_release() {
    let mut world = World::serving_v1(3); // G2, G3
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "holding");
    world.deaf = Some(name(3));

    world.pass(Duration::from_millis(249));
    assert_eq!(world.phase(), "holding");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.phase(), "aborting");
    world.deaf = None;
    world.pass(Duration::from_secs(1));

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_new_release_that_dies_after_it_was_ready_is_noticed_when_it_is_to_be_armed() {
    let mut world = World::serving_v1(3); // G4
    let mut request = world.request(&[("shop", "v2")]);
    request.promotion = Promotion::Manual;
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();

    world.kill(&name(1), "v2");
    world.run();
    world.command(Command::Promote).expect("all are ready");
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn an_instance_that_slept_through_two_failed_deployments_forgets_them_when_it_is_back() {
    let mut world = World::serving_v1(3); // G2
    world.machine(&name(2)).broken.insert("v2".to_owned());
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    // The third hears the first `Prepare`, and from then on only the second `Abort`.
    world.run_until(|w| w.machines[&name(3)].starts == 2);
    world
        .in_flight
        .retain(|message| !matches!(message, Message::Local(at, _) if *at == name(3)));
    world.deaf = Some(name(3));
    world.pass(Duration::from_secs(11));
    let request = world.request(&[("shop", "v3")]);
    world.machine(&name(2)).broken.insert("v3".to_owned());
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world
        .in_flight
        .retain(|message| !is_directive_to(message, 3));
    world.deaf = None;
    world.run();

    world.connect(&name(3));
    world.pass(LONG);

    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

// ---- Failures after the commit ----

#[test]
fn a_new_release_that_dies_while_it_is_watched_is_rolled_back_through_the_same_barrier() {
    let mut world = World::serving_v1(3); // G1, G2
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();
    assert_eq!(world.phase(), "watching");

    world.kill(&name(2), "v2");
    let back = world.run_until(|w| w.served("shop").contains(&Some("v1".to_owned())));

    assert!(back);
    assert!(!world.served("shop").contains(&Some("v2".to_owned())));
    world.run();
    let Some(Outcome::RolledBack { reason }) = world.outcome() else {
        panic!("rolled back, not {:?}", world.outcome());
    };
    assert!(reason.contains("killed by the test"), "{reason}");
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
    assert_eq!(world.machine(&name(1)).holds, 3);
    assert_eq!(world.machine(&name(1)).starts, 2, "the way back was warm");
}

#[test]
fn a_rollback_that_is_aborted_is_shown_as_one_and_tried_again() {
    let mut world = World::serving_v1(3); // G2
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();
    world.kill(&name(2), "v2");
    assert!(world.run_until(|w| w.phase() == "arming"));

    world.disconnect(&name(3));
    world.run();

    assert_eq!(world.phase(), "retrying the rollback");
    assert_eq!(world.outcome(), None);
    world.pass(Duration::from_secs(2));
    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_new_release_that_dies_with_its_agent_while_it_is_watched_is_rolled_back() {
    let mut world = World::serving_v1(3); // G2
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();
    assert_eq!(world.phase(), "watching");

    world.kill(&name(2), "v2");
    world.crash_agent(&name(2));
    world.restart_agent(&name(2));
    world.run();

    let Some(Outcome::RolledBack { reason }) = world.outcome() else {
        panic!("rolled back, not {:?}", world.outcome());
    };
    assert!(reason.contains("dead when the agent came back"), "{reason}");
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_release_that_died_while_its_instance_was_away_is_not_promoted_when_the_watch_is_over() {
    let mut world = World::serving_v1(3);
    let request = world.request(&[("shop", "v2")]);
    world.deploy(request).expect("nothing is in the way");
    assert!(world.run_until(|w| w.phase() == "watching"));
    world.disconnect(&name(2));
    world.crash_agent(&name(2));
    world.kill(&name(2), "v2");

    world.pass(Duration::from_mins(1));
    world.run();
    assert_eq!(world.phase(), "confirming");
    assert_eq!(world.outcome(), None);
    world.restart_agent(&name(2));
    world.run();
    world.pass(Duration::from_secs(1));
    world.run();

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1")); // G2
}

#[test]
fn an_instance_that_stays_away_does_not_keep_a_deployment_from_ending() {
    let mut world = World::serving_v1(2);
    let request = world.request(&[("shop", "v2")]);
    world.deploy(request).expect("nothing is in the way");
    assert!(world.run_until(|w| w.phase() == "watching"));
    world.disconnect(&name(1));
    world.crash_agent(&name(1));

    world.pass(Duration::from_mins(1));
    world.run();
    assert_eq!(world.phase(), "confirming");
    world.pass(Duration::from_secs(30));
    world.run();

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
}

#[test]
fn a_new_release_that_dies_between_hold_and_switch_is_never_opened_to_and_rolls_everyone_back() {
    let mut world = World::serving_v1(3); // G2, G4
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "switching");
    let incarnation = world.machine(&name(3)).apps[&green()].incarnation;
    world.machine(&name(3)).apps.remove(&green());
    world.tell(&name(3), exited(incarnation));

    let opened =
        world.run_until(|w| w.machines[&name(3)].gate("shop") == Gate::Open(green().color));

    assert!(!opened);
    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_first_release_that_dies_at_the_switch_leaves_nothing_behind() {
    let mut world = World::new(3); // G2
    let request = world.request(&[("shop", "v1")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.phase() == "switching");
    let blue = Slot {
        color: green().color.other(),
        ..green()
    };
    let incarnation = world.machine(&name(3)).apps[&blue].incarnation;
    world.machine(&name(3)).apps.remove(&blue);
    let event = AgentEvent::SlotExited {
        slot: blue,
        incarnation,
        reason: "killed by the test".to_owned(),
    };
    world.tell(&name(3), event);

    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), vec![None; 3]);
    assert_eq!(world.running(), vec![versions(&[]); 3]);
}

#[test]
fn an_instance_that_restarts_right_after_its_switch_does_not_roll_the_fleet_back() {
    let mut world = World::serving_v1(3);
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run_until(|w| w.machines[&name(2)].gate("shop") == Gate::Open(green().color));
    world.run_until(|w| {
        let agent = w.machines[&name(2)].agent.as_ref();
        agent.is_some_and(|a| a.ledger().latest_decided() == Epoch(2))
    });
    let reported =
        |message: &Message| matches!(message, Message::Report(from, _) if *from == name(2));
    world.in_flight.retain(|message| !reported(message));

    world.crash_agent(&name(2));
    world.restart_agent(&name(2));
    world.pass(WARM);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn a_second_abort_does_not_stop_the_rollback_that_the_first_one_began() {
    let mut world = World::serving_v1(3);
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();
    let abort = || Command::Abort {
        requested_by: "an impatient person".to_owned(),
    };

    world.command(abort()).expect("a deployment is under way");
    world.command(abort()).expect("a deployment is under way");
    world.run();

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}
