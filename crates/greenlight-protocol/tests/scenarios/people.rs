//! What people ask for: preparing, promoting, aborting, rolling back, waves, and a command before
//! the switch.

use crate::world::{World, name};
use crate::{LONG, WARM, alone, commands, everywhere, roll_back, versions, with_command};
use greenlight_protocol::coordinator::{PhaseName, Promotion};
use greenlight_protocol::{Accepted, Command, Epoch, Outcome, Refusal, Strategy};
use std::time::Duration;

// ---- People ----

#[test]
fn a_prepared_deployment_waits_for_its_promotion() {
    let mut world = World::serving_v1(3);
    let mut request = world.request(&[("shop", "v2")]);
    request.promotion = Promotion::Manual;
    world
        .deploy(request)
        .expect("an idle fleet takes a request");

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
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");

    let refused = world.command(Command::Promote);

    assert_eq!(refused, Err(Refusal::NotReady(PhaseName::Preparing)));
}

#[test]
fn a_prepared_deployment_that_is_aborted_leaves_nothing_new_running() {
    let mut world = World::serving_v1(3); // G2
    let mut request = world.request(&[("shop", "v2")]);
    request.promotion = Promotion::Manual;
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.run();

    let requested_by = "a person".to_owned();
    world
        .command(Command::Abort { requested_by })
        .expect("a deployment is under way");
    world.run();

    let reason = "aborted by a person".to_owned();
    assert_eq!(world.outcome(), Some(&Outcome::Aborted { reason }));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_second_deployment_is_refused_while_one_is_under_way_and_the_same_one_is_attached_to() {
    let mut world = World::serving_v1(3); // G8
    let first = world.request(&[("shop", "v2")]);
    world
        .deploy(first.clone())
        .expect("an idle fleet takes a request");
    let before = world.records.clone();

    let same = world.deploy(first.clone());
    let other = world.request(&[("shop", "v3")]);
    let other = world.deploy(other);

    assert_eq!(same, Ok(Accepted::Attached(first.deployment.clone())));
    assert!(matches!(other, Err(Refusal::Busy { version, .. }) if version == "v2"));
    assert_eq!(world.records, before);
}

#[test]
fn a_deployment_to_an_instance_that_is_away_is_refused() {
    let mut world = World::serving_v1(3);
    world.disconnect(&name(2));

    let request = world.request(&[("shop", "v2")]);

    assert_eq!(world.deploy(request), Err(Refusal::NotConnected(name(2))));
}

#[test]
fn a_rollback_to_a_warm_release_starts_nothing() {
    let mut world = World::serving_v1(3);
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
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
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);

    roll_back(&mut world).expect("there is an earlier release");
    world.pass(LONG);

    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

#[test]
fn a_rollback_never_goes_to_a_release_that_was_itself_rolled_back() {
    let mut world = World::serving_v1(3);
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);
    let request = world.request(&[("shop", "bad")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
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
        Err(Refusal::NoRollbackTarget("shop".into()))
    );
}

#[test]
fn a_warm_release_is_retired_even_if_an_aborted_deployment_was_under_way_when_its_time_was_up() {
    let mut world = World::serving_v1(3);
    let request = world.request(&[("shop", "v2")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(Duration::from_mins(14));
    // The third never hears of the next one, and so never clears its idle slot for it.
    let request = world.request(&[("shop", "v3")]);
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
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
    let request = world.request_by(Strategy::Rolling { parallelism: 2 }, &[("shop", "v2")]);

    world
        .deploy(request)
        .expect("an idle fleet takes a request");
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
    let request = world.request_by(Strategy::Rolling { parallelism: 2 }, &[("shop", "v2")]);

    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(LONG);

    assert!(matches!(world.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(world.running(), alone("v1"));
}

// ---- The command before the switch ----

#[test]
fn the_command_before_the_switch_runs_once_when_all_are_ready_and_before_any_gate_is_held() {
    let mut world = World::serving_v1(3);

    let request = with_command(world.request(&[("shop", "v2")]));
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
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

    let request = with_command(world.request(&[("shop", "v2")]));
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
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
    let request = with_command(world.request(&[("shop", "v2")]));
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
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
    let request = with_command(world.request(&[("shop", "v2")]));
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
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

    let request = with_command(world.request(&[("shop", "v2")]));
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
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
    let mut request = with_command(world.request(&[("shop", "v2")]));
    request.promotion = Promotion::Manual;
    world
        .deploy(request)
        .expect("an idle fleet takes a request");
    world.pass(WARM);
    assert_eq!(commands(&world), []);

    world.command(Command::Promote).expect("it is ready");
    world.pass(WARM);
    assert_eq!(commands(&world), [(name(1), Epoch(2))]);
    roll_back(&mut world).expect("there is an earlier release");
    world.pass(WARM);

    assert_eq!(world.served("shop"), everywhere("v1"));
    assert_eq!(commands(&world), [(name(1), Epoch(2))]);
}
