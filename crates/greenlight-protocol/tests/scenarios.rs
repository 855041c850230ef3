//! One deployment after the other, told as stories: what people see when all goes well, and what
//! they see after each kind of failure, with the real machines and a fleet in memory.
//!
//! Each test is one path. That *every* path keeps the guarantees is the business of `model.rs`.

#[path = "scenarios/world.rs"]
mod world;

use greenlight_protocol::coordinator::{CoordinatorRecord, Order, Promotion, RollbackOrder};
use greenlight_protocol::{
    Accepted, AgentEvent, Color, Command, Directive, Envelope, Epoch, Incarnation, InstanceId,
    Outcome, Refusal, Report, ServiceName, Slot, Strategy, Term, Timestamp, Token,
};
use std::time::Duration;
use world::{Gate, Letter, World, name};

const WARM: Duration = Duration::from_mins(5);
const LONG: Duration = Duration::from_hours(1);

// ---- From an empty fleet to a promoted release ----

#[test]
fn the_first_deployment_opens_every_gate_to_the_new_release() {
    let mut world = World::new(3);

    let order = world.order(&[("shop", "v1")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(WARM);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_good_deployment_switches_everyone_and_keeps_the_old_release_warm_until_it_is_retired() {
    let mut world = World::serving_v1(3);

    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
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

    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
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

    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| w.served("shop").contains(&Some("v2".to_owned())));

    assert!(!world.served("shop").contains(&Some("v1".to_owned())));
}

#[test]
fn two_services_cut_over_as_one_set() {
    let mut world = World::new(3);
    let order = world.order(&[("shop", "v1"), ("cart", "c1")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(LONG);

    let order = world.order(&[("shop", "v2"), ("cart", "c2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(LONG);

    assert_eq!(world.served("shop"), everywhere("v2"));
    assert_eq!(world.served("cart"), everywhere("c2"));
    assert_eq!(world.running(), vec![versions(&["c2", "v2"]); 3]);
}

#[test]
fn one_of_two_services_that_fails_leaves_both_on_their_old_releases() {
    let mut world = World::new(3); // G2
    let order = world.order(&[("shop", "v1"), ("cart", "c1")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(LONG);
    world.machine(&name(2)).broken.insert("c2".to_owned());

    let order = world.order(&[("shop", "v2"), ("cart", "c2")]);
    world.deploy(order).expect("an idle fleet takes an order");
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

    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
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
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| {
        let refused = |l: &Letter| matches!(l, Letter::Report(from, _) if *from == name(2));
        w.mail.iter().any(refused) && w.machines[&name(2)].starts == 2
    });
    world.disconnect(&name(2));

    world.connect(&name(2));
    world.pass(Duration::from_secs(5));

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
}

#[test]
fn a_predicted_hold_over_budget_is_refused_before_traffic_is_touched() {
    let mut world = World::serving_v1(3); // G3

    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
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
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
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
    let mut order = world.order(&[("shop", "v2")]);
    order.promotion = Promotion::Manual;
    world.deploy(order).expect("an idle fleet takes an order");
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
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    // The third hears the first `Prepare`, and from then on only the second `Abort`.
    world.run_until(|w| w.machines[&name(3)].starts == 2);
    world
        .mail
        .retain(|letter| !matches!(letter, Letter::Local(at, _) if *at == name(3)));
    world.deaf = Some(name(3));
    world.pass(Duration::from_secs(11));
    let order = world.order(&[("shop", "v3")]);
    world.machine(&name(2)).broken.insert("v3".to_owned());
    world.deploy(order).expect("an idle fleet takes an order");
    world.mail.retain(|letter| !is_directive_to(letter, 3));
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
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
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
fn a_new_release_that_dies_with_its_agent_while_it_is_watched_is_rolled_back() {
    let mut world = World::serving_v1(3); // G2
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
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
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("nothing is in the way");
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
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("nothing is in the way");
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
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| w.phase() == "switching");
    let incarnation = world.machine(&name(3)).apps[&green()].incarnation;
    world.machine(&name(3)).apps.remove(&green());
    world.tell(&name(3), exited(incarnation));

    let opened = world
        .run_until(|w| w.machines[&name(3)].gates[&"shop".into()] == Gate::Open(green().color));

    assert!(!opened);
    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_first_release_that_dies_at_the_switch_is_started_again_because_there_is_no_way_back() {
    let mut world = World::new(3); // G4
    let order = world.order(&[("shop", "v1")]);
    world.deploy(order).expect("an idle fleet takes an order");
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

    assert!(matches!(world.outcome(), Some(Outcome::Stuck { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn an_instance_that_restarts_right_after_its_switch_does_not_roll_the_fleet_back() {
    let mut world = World::serving_v1(3);
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| w.machines[&name(2)].gates[&"shop".into()] == Gate::Open(green().color));
    world.run_until(|w| {
        let agent = w.machines[&name(2)].agent.as_ref();
        agent.is_some_and(|a| a.ledger().latest_decided() == Epoch(2))
    });
    let reported = |letter: &Letter| matches!(letter, Letter::Report(from, _) if *from == name(2));
    world.mail.retain(|letter| !reported(letter));

    world.crash_agent(&name(2));
    world.restart_agent(&name(2));
    world.pass(WARM);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn a_second_abort_does_not_stop_the_way_back_that_the_first_one_began() {
    let mut world = World::serving_v1(3);
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run();
    let abort = || Command::Abort {
        by: "an impatient person".to_owned(),
    };

    world.command(abort()).expect("a deployment is under way");
    world.command(abort()).expect("a deployment is under way");
    world.run();

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

// ---- People ----

#[test]
fn a_prepared_deployment_waits_for_its_promotion() {
    let mut world = World::serving_v1(3);
    let mut order = world.order(&[("shop", "v2")]);
    order.promotion = Promotion::Manual;
    world.deploy(order).expect("an idle fleet takes an order");

    world.pass(LONG);
    assert_eq!(world.phase(), "ready");
    assert_eq!(world.served("shop"), everywhere("v1"));
    world.command(Command::Promote).expect("all are ready");
    world.pass(LONG);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn a_promotion_before_all_are_ready_is_refused() {
    let mut world = World::serving_v1(3);
    assert_eq!(
        world.command(Command::Promote),
        Err(Refusal::NothingUnderWay)
    );
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");

    let refused = world.command(Command::Promote);

    assert_eq!(refused, Err(Refusal::NotReady("preparing".to_owned())));
}

#[test]
fn a_prepared_deployment_that_is_aborted_leaves_nothing_new_running() {
    let mut world = World::serving_v1(3); // G2
    let mut order = world.order(&[("shop", "v2")]);
    order.promotion = Promotion::Manual;
    world.deploy(order).expect("an idle fleet takes an order");
    world.run();

    let by = "a person".to_owned();
    world
        .command(Command::Abort { by })
        .expect("a deployment is under way");
    world.run();

    let reason = "aborted by a person".to_owned();
    assert_eq!(world.outcome(), Some(&Outcome::Aborted { reason }));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_second_deployment_is_refused_while_one_is_under_way_and_the_same_one_is_attached_to() {
    let mut world = World::serving_v1(3); // G8
    let first = world.order(&[("shop", "v2")]);
    world
        .deploy(first.clone())
        .expect("an idle fleet takes an order");
    let before = world.records.clone();

    let same = world.deploy(first.clone());
    let other = world.order(&[("shop", "v3")]);
    let other = world.deploy(other);

    assert_eq!(same, Ok(Accepted::Attached(first.deployment.clone())));
    assert!(matches!(other, Err(Refusal::Busy { version, .. }) if version == "v2"));
    assert_eq!(world.records, before);
}

#[test]
fn a_deployment_to_an_instance_that_is_away_is_refused() {
    let mut world = World::serving_v1(3);
    world.disconnect(&name(2));

    let order = world.order(&[("shop", "v2")]);

    assert_eq!(world.deploy(order), Err(Refusal::NotConnected(name(2))));
}

#[test]
fn a_rollback_to_a_warm_release_starts_nothing() {
    let mut world = World::serving_v1(3);
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(WARM);
    let starts = world.machine(&name(1)).starts;

    roll_back(&mut world).expect("there is an earlier release");
    world.run();

    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.machine(&name(1)).starts, starts);
    world.pass(LONG);
    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_rollback_after_the_old_release_was_retired_starts_it_again() {
    let mut world = World::serving_v1(3);
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(LONG);

    roll_back(&mut world).expect("there is an earlier release");
    world.pass(LONG);

    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_rollback_never_goes_to_a_release_that_was_itself_rolled_back() {
    let mut world = World::serving_v1(3);
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(LONG);
    let order = world.order(&[("shop", "bad")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run();
    world.kill(&name(1), "bad");
    world.pass(LONG);
    assert_eq!(world.served("shop"), everywhere("v2"));

    roll_back(&mut world).expect("there is an earlier release");
    world.pass(LONG);

    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn there_is_nothing_to_roll_back_to_after_the_first_deployment() {
    let mut world = World::new(3);
    assert_eq!(roll_back(&mut world), Err(Refusal::NeverDeployed));

    let mut world = World::serving_v1(3);
    assert_eq!(
        roll_back(&mut world),
        Err(Refusal::NoEarlierRelease("shop".into()))
    );
}

#[test]
fn a_warm_release_is_retired_even_if_an_aborted_deployment_was_under_way_when_its_time_was_up() {
    let mut world = World::serving_v1(3);
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(Duration::from_mins(14));
    // The third never hears of the next one, and so never clears its idle slot for it.
    let order = world.order(&[("shop", "v3")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.deaf = Some(name(3));
    world.pass(Duration::from_mins(12));
    world.deaf = None;
    world.pass(LONG);

    assert_eq!(world.served("shop"), everywhere("v2"));
    assert_eq!(world.running(), alone("v2"));
    assert!(world.coordinator.as_ref().is_some_and(|c| !c.is_retiring()));
}

// ---- Rolling ----

#[test]
fn a_rolling_deployment_takes_one_wave_after_the_other() {
    let mut world = World::serving_v1(3);
    let order = world.order_by(Strategy::Rolling { parallelism: 2 }, &[("shop", "v2")]);

    world.deploy(order).expect("an idle fleet takes an order");
    world.run();

    let half = [Some("v2"), Some("v2"), Some("v1")].map(|v| v.map(str::to_owned));
    assert_eq!(world.served("shop"), half);
    world.pass(LONG);
    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v2"));
    assert_eq!(world.running(), alone("v2"));
}

#[test]
fn a_second_wave_that_fails_takes_the_first_one_back() {
    let mut world = World::serving_v1(3); // G2
    world.machine(&name(3)).broken.insert("v2".to_owned());
    let order = world.order_by(Strategy::Rolling { parallelism: 2 }, &[("shop", "v2")]);

    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

// ---- Crashes ----

#[test]
fn a_coordinator_that_crashes_after_any_record_of_a_promotion_converges_to_the_recorded_decision() {
    let start = World::serving_v1(3).records.len(); // G2, G5
    for after in start + 1.. {
        let mut world = World::serving_v1(3);
        world.crash_after = Some(after);
        let order = world.order(&[("shop", "v2")]);
        world.deploy(order).expect("an idle fleet takes an order");
        world.pass(LONG);
        if world.coordinator.is_some() {
            assert!(after > start + 5, "the sequence was cut short");
            return;
        }

        world.crash_after = None;
        world.restart_coordinator();
        world.pass(LONG);

        let committed = world.records[..after].contains(&CoordinatorRecord::Committed(Epoch(2)));
        let begun = world.records[..after]
            .iter()
            .any(|r| matches!(r, CoordinatorRecord::Begun(b) if b.cut_over.epoch == Epoch(2)));
        // What was only accepted is begun; what was begun and not committed is aborted.
        let expected = if committed || !begun { "v2" } else { "v1" };
        assert_eq!(world.served("shop"), everywhere(expected), "after {after}");
        assert_eq!(world.running(), alone(expected), "after {after}");
        assert!(world.outcome().is_some(), "after {after}");
    }
}

#[test]
fn a_coordinator_that_crashes_after_any_record_of_a_rollback_still_ends_the_deployment() {
    let start = World::serving_v1(3).records.len(); // G2, G5
    for after in start + 1.. {
        let mut world = World::serving_v1(3);
        world.crash_after = Some(after);
        let order = world.order(&[("shop", "v2")]);
        world.deploy(order).expect("an idle fleet takes an order");
        world.run();
        if world.coordinator.is_some() {
            world.kill(&name(2), "v2");
            world.run();
        }
        if world.coordinator.is_some() {
            assert!(after > start + 9, "the sequence was cut short");
            return;
        }

        world.crash_after = None;
        world.restart_coordinator();
        world.pass(LONG);

        let served = world.served("shop");
        assert!(
            served == everywhere("v1") || served == everywhere("v2"),
            "after {after}: {served:?}"
        );
        assert!(world.outcome().is_some(), "after {after}");
        assert!(
            world.running().iter().all(|r| r.len() == 1),
            "after {after}"
        );
    }
}

#[test]
fn an_agent_that_restarts_while_armed_comes_back_held_and_aborts_the_cut_over() {
    let mut world = World::serving_v1(3); // G1
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| w.phase() == "holding");

    world.crash_agent(&name(2));
    world.restart_agent(&name(2));
    assert_eq!(world.machine(&name(2)).gates[&"shop".into()], Gate::Held);
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn an_agent_that_restarts_after_its_acknowledgement_switches_once_its_new_release_is_checked() {
    let mut world = World::serving_v1(3); // G1, G4
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| w.phase() == "switching");

    world.crash_agent(&name(2));
    world.restart_agent(&name(2));
    world.pass(WARM);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn peers_tell_each_other_the_commit_when_the_coordinator_is_gone() {
    let mut world = World::serving_v1(3); // G2
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| w.phase() == "switching");
    world
        .mail
        .retain(|letter| !matches!(letter, Letter::Directive(to, _) if *to != name(1)));
    world.crash_coordinator();

    world.pass(Duration::from_secs(1));

    assert_eq!(world.served("shop"), everywhere("v2"));
}

#[test]
fn peers_release_each_other_when_one_of_them_never_held() {
    let mut world = World::serving_v1(3); // G2, G3
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| w.phase() == "holding");
    world.mail.retain(|letter| !is_directive_to(letter, 3));
    world.crash_coordinator();

    world.pass(Duration::from_secs(1));

    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
    world.restart_coordinator();
    world.pass(LONG);
    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
}

// ---- The command before the switch ----

#[test]
fn the_command_before_the_switch_runs_once_when_all_are_ready_and_before_any_gate_is_held() {
    let mut world = World::serving_v1(3);

    let order = with_command(world.order(&[("shop", "v2")]));
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(Duration::from_secs(10));

    assert_eq!(world.phase(), "before the switch");
    assert_eq!(world.running(), vec![versions(&["v1", "v2"]); 3]);
    assert_eq!(world.served("shop"), everywhere("v1"));
    let holds = |world: &World| world.machines.values().map(|m| m.holds).sum::<usize>();
    assert_eq!(holds(&world), 3, "only those of the first deployment");
    world.end_command(&Ok("migrated".to_owned()));
    world.pass(WARM);
    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(world.served("shop"), everywhere("v2"));
    assert_eq!(commands(&world), [(name(1), Epoch(2))]);
}

#[test]
fn a_command_before_the_switch_that_fails_aborts_and_leaves_nothing_new_running() {
    let mut world = World::serving_v1(3); // G2
    world.command_ends = Some(Err("no such table".to_owned()));

    let order = with_command(world.order(&[("shop", "v2")]));
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(WARM);

    let Some(Outcome::Aborted { reason }) = world.outcome() else {
        panic!("{:?}", world.outcome());
    };
    assert!(reason.contains("no such table"), "{reason}");
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn an_agent_that_restarts_while_its_command_runs_waits_for_the_end_of_that_same_run() {
    let mut world = World::serving_v1(3);
    let order = with_command(world.order(&[("shop", "v2")]));
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(Duration::from_secs(10));

    world.crash_agent(&name(1));
    world.restart_agent(&name(1));
    world.pass(Duration::from_secs(10));
    world.end_command(&Ok(String::new()));
    world.pass(WARM);

    assert_eq!(world.outcome(), Some(&Outcome::Promoted));
    assert_eq!(commands(&world), [(name(1), Epoch(2))]);
}

#[test]
fn a_coordinator_that_restarts_while_the_command_runs_aborts_and_never_asks_again() {
    let mut world = World::serving_v1(3);
    let order = with_command(world.order(&[("shop", "v2")]));
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(Duration::from_secs(10));

    world.crash_coordinator();
    world.restart_coordinator();
    world.pass(WARM);
    world.end_command(&Ok(String::new()));
    world.pass(WARM);

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
    assert_eq!(commands(&world), [(name(1), Epoch(2))]);
}

#[test]
fn a_command_that_never_ends_is_given_up_on() {
    let mut world = World::serving_v1(3);

    let order = with_command(world.order(&[("shop", "v2")]));
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(LONG);

    let Some(Outcome::Aborted { reason }) = world.outcome() else {
        panic!("{:?}", world.outcome());
    };
    assert!(reason.contains("`before_switch` in time"), "{reason}");
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_prepared_deployment_runs_its_command_when_it_is_promoted_and_a_rollback_runs_none() {
    let mut world = World::serving_v1(3);
    world.command_ends = Some(Ok(String::new()));
    let mut order = with_command(world.order(&[("shop", "v2")]));
    order.promotion = Promotion::Manual;
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(WARM);
    assert_eq!(commands(&world), []);

    world.command(Command::Promote).expect("it is ready");
    world.pass(WARM);
    assert_eq!(commands(&world), [(name(1), Epoch(2))]);
    let order = with_command(world.order(&[]));
    let back = Command::Rollback(Box::new(RollbackOrder { order }));
    world.command(back).expect("there is an earlier release");
    world.pass(WARM);

    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(commands(&world), [(name(1), Epoch(2))]);
}

// ---- Fencing ----

// ---- The gate as a process of its own ----

#[test]
fn a_live_application_is_not_started_again_before_its_gate_has_said_that_it_is_parked() {
    let mut world = World::serving_v1(3); // G4
    let starts = world.machine(&name(1)).starts;

    world.machine(&name(1)).gate_is_away = true;
    world.kill(&name(1), "v1");
    world.pass(Duration::from_secs(30));

    assert_eq!(world.machine(&name(1)).starts, starts);
    world.machine(&name(1)).gate_is_away = false;
    world.pass(Duration::from_secs(5));
    assert_eq!(world.machine(&name(1)).starts, starts + 1);
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn requests_of_an_application_that_dies_under_a_hold_are_parked_past_the_hold() {
    let mut world = World::serving_v1(3); // G4
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    assert!(world.run_until(|w| w.machines[&name(1)].holds == 2));

    world.crash_coordinator();
    world.kill(&name(1), "v1");
    world.run();

    let gates = &world.machine(&name(1)).gates;
    assert_eq!(gates[&"shop".into()], Gate::Parked);
}

#[test]
fn a_hold_that_the_gate_refuses_aborts_the_cut_over_and_is_refused_for_good() {
    let mut world = World::serving_v1(3); // G2
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    assert!(world.run_until(|w| w.phase() == "holding"));

    // The gate has closed, and the answer to the hold says that it could not be completed.
    assert!(world.run_until(|w| w.machines[&name(1)].holds == 2));
    world.crash_coordinator();
    let reason = "another order came".to_owned();
    let epoch = Epoch(2);
    world.tell(&name(1), AgentEvent::GateRefused { epoch, reason });
    world.run();

    let gates = &world.machine(&name(1)).gates;
    assert_eq!(gates[&"shop".into()], Gate::Open(Color::Blue));
    world.restart_coordinator();
    world.pass(WARM);
    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_front_that_keeps_its_configuration_at_the_switch_takes_the_fleet_back() {
    let mut world = World::serving_v1(3); // G2
    world.machine(&name(2)).front_is_stubborn = true;

    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(LONG);

    let Some(Outcome::RolledBack { reason }) = world.outcome() else {
        panic!("rolled back, not {:?}", world.outcome());
    };
    assert!(
        reason.contains("`i2`") && reason.contains("kept its configuration"),
        "{reason}"
    );
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_failed_switch_is_told_again_and_not_called_a_success_when_its_report_was_lost() {
    let mut world = World::serving_v1(3);
    world.machine(&name(2)).front_is_stubborn = true;
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    let failed = |letter: &Letter| {
        matches!(letter, Letter::Report(_, reported)
            if matches!(reported.report, Report::SwitchFailed { .. }))
    };
    assert!(world.run_until(|w| w.mail.iter().any(failed)));

    world.mail.retain(|letter| !failed(letter));
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

#[test]
fn a_service_that_takes_no_part_is_opened_while_the_cut_over_is_undecided() {
    let mut world = World::new(3); // G3
    let order = world.order(&[("shop", "v1"), ("mail", "m1")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.pass(LONG);
    world.kill(&name(1), "m1");
    world.run();
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    let all_hold = |w: &World| w.machines.values().all(|machine| machine.holds == 2);
    assert!(world.run_until(all_hold));
    world.crash_coordinator();

    let mail = ServiceName::from("mail");
    assert_eq!(world.machine(&name(1)).gates[&mail], Gate::Parked);
    world.pass(Duration::from_secs(3));

    let gates = &world.machine(&name(1)).gates;
    assert!(matches!(gates[&mail], Gate::Open(_)));
    assert_eq!(gates[&ServiceName::from("shop")], Gate::Held);
}

#[test]
fn a_directive_from_an_older_term_changes_nothing() {
    let mut world = World::serving_v1(3); // G6
    world.crash_coordinator();
    world.restart_coordinator();
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| w.phase() == "holding");
    world.mail.clear();
    let agent = world.machine(&name(1)).agent.clone();

    for directive in [
        Directive::Hold,
        Directive::Switch,
        Directive::Abort,
        Directive::Retire,
    ] {
        let token = Token {
            term: Term(1),
            epoch: Epoch(2),
        };
        let envelope = Envelope { token, directive };
        world.tell(&name(1), AgentEvent::Directed(envelope));
    }

    assert_eq!(world.machine(&name(1)).agent, agent);
    assert_eq!(world.machine(&name(1)).holds, 1, "only the first cut-over");
}

#[test]
fn a_prepare_from_an_older_epoch_changes_nothing() {
    let mut world = World::serving_v1(3); // G6
    world.machine(&name(2)).broken.insert("v2".to_owned());
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    let late: Vec<_> = world
        .mail
        .iter()
        .filter(|letter| is_directive_to(letter, 3))
        .cloned()
        .collect();
    assert!(!late.is_empty());
    world.deaf = Some(name(3));
    world.pass(Duration::from_secs(11));
    world.deaf = None;
    let mut order = world.order(&[("shop", "v3")]);
    order.promotion = Promotion::Manual;
    world.deploy(order).expect("an idle fleet takes an order");
    world.run();
    assert_eq!(world.phase(), "ready");
    let agent = world.machine(&name(3)).agent.clone();

    world.mail.extend(late);
    world.run();

    assert_eq!(world.machine(&name(3)).agent, agent);
    assert_eq!(world.phase(), "ready");
}

#[test]
fn a_vote_that_was_given_to_an_earlier_term_does_not_count() {
    let mut world = World::serving_v1(3); // G6
    let order = world.order(&[("shop", "v2")]);
    world.deploy(order).expect("an idle fleet takes an order");
    world.run_until(|w| w.phase() == "holding");
    let hold =
        |letter: &Letter| matches!(letter, Letter::Report(_, r) if r.token.epoch == Epoch(2));
    world.run_until(|w| w.mail.iter().filter(|l| hold(l)).count() == 3);
    let votes: Vec<_> = world.mail.iter().filter(|l| hold(l)).cloned().collect();

    world.crash_coordinator();
    world.restart_coordinator();
    world.mail.extend(votes);
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
}

// ---- Helpers ----

fn everywhere(version: &str) -> Vec<Option<String>> {
    vec![Some(version.to_owned()); 3]
}

fn alone(version: &str) -> Vec<Vec<String>> {
    vec![versions(&[version]); 3]
}

fn versions(versions: &[&str]) -> Vec<String> {
    versions.iter().map(|&v| v.to_owned()).collect()
}

fn green() -> Slot {
    Slot {
        service: "shop".into(),
        color: Color::Green,
    }
}

fn exited(incarnation: Incarnation) -> AgentEvent {
    AgentEvent::SlotExited {
        slot: green(),
        incarnation,
        reason: "killed by the test".to_owned(),
    }
}

fn with_command(mut order: Order) -> Order {
    order.policy.before_switch = Some(Duration::from_mins(5));
    order
}

fn commands(world: &World) -> Vec<(InstanceId, Epoch)> {
    let machines = world.machines.iter();
    machines
        .flat_map(|(at, machine)| machine.commands.iter().map(|epoch| (at.clone(), *epoch)))
        .collect()
}

fn is_directive_to(letter: &Letter, instance: usize) -> bool {
    matches!(letter, Letter::Directive(to, _) if *to == name(instance))
}

fn roll_back(world: &mut World) -> Result<Accepted, Refusal> {
    let order = world.order(&[]);
    world.command(Command::Rollback(Box::new(RollbackOrder { order })))
}
