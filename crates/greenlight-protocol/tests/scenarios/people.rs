//! What people ask for: preparing, promoting, aborting, rolling back, waves, and a command before
//! the switch.

use crate::story::{Story, name};
use crate::{LONG, WARM, alone, commands, everywhere, roll_back, versions, with_command};
use greenlight_protocol::agent::BeforeSwitchFailed;
use greenlight_protocol::coordinator::{PhaseName, Promotion};
use greenlight_protocol::{Accepted, Command, Epoch, Outcome, Refusal, Strategy};
use std::time::Duration;

// ---- People ----

#[test]
fn a_prepared_deployment_waits_for_its_promotion() {
    let mut story = Story::serving_v1(3);
    let mut request = story.request(&[("shop", "v2")]);
    request.promotion = Promotion::Manual;
    story
        .deploy(request)
        .expect("an idle fleet takes a request");

    story.pass(LONG);
    assert_eq!(story.phase(), "ready");
    assert_eq!(story.served("shop"), everywhere("v1"));
    story.command(Command::Promote).expect("all are ready");
    story.pass(LONG);

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.served("shop"), everywhere("v2"));
}

#[test]
fn a_promotion_before_all_are_ready_is_refused() {
    let mut story = Story::serving_v1(3);
    assert_eq!(
        story.command(Command::Promote),
        Err(Refusal::NothingUnderWay)
    );
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");

    let refused = story.command(Command::Promote);

    assert_eq!(refused, Err(Refusal::NotReady(PhaseName::Preparing)));
}

#[test]
fn a_prepared_deployment_that_is_aborted_leaves_nothing_new_running() {
    let mut story = Story::serving_v1(3); // G2
    let mut request = story.request(&[("shop", "v2")]);
    request.promotion = Promotion::Manual;
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();

    let requested_by = "a person".to_owned();
    story
        .command(Command::Abort { requested_by })
        .expect("a deployment is under way");
    story.run();

    let reason = "aborted by a person".to_owned();
    assert_eq!(story.outcome(), Some(&Outcome::Aborted { reason }));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_second_deployment_is_refused_while_one_is_under_way_and_the_same_one_is_attached_to() {
    let mut story = Story::serving_v1(3); // G8
    let first = story.request(&[("shop", "v2")]);
    story
        .deploy(first.clone())
        .expect("an idle fleet takes a request");
    let before = story.records.clone();

    let same = story.deploy(first.clone());
    let other = story.request(&[("shop", "v3")]);
    let other = story.deploy(other);

    assert_eq!(same, Ok(Accepted::Attached(first.deployment.clone())));
    assert!(matches!(other, Err(Refusal::Busy { version, .. }) if version == "v2"));
    assert_eq!(story.records, before);
}

#[test]
fn a_deployment_to_an_instance_that_is_away_is_refused() {
    let mut story = Story::serving_v1(3);
    story.disconnect(&name(2));

    let request = story.request(&[("shop", "v2")]);

    assert_eq!(story.deploy(request), Err(Refusal::NotConnected(name(2))));
}

#[test]
fn a_rollback_to_a_warm_release_starts_nothing() {
    let mut story = Story::serving_v1(3);
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(WARM);
    let starts = story.machine(&name(1)).starts;

    roll_back(&mut story).expect("there is an earlier release");
    story.run();

    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.machine(&name(1)).starts, starts);
    story.pass(LONG);
    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_rollback_after_the_old_release_was_retired_starts_it_again() {
    let mut story = Story::serving_v1(3);
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);

    roll_back(&mut story).expect("there is an earlier release");
    story.pass(LONG);

    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_rollback_never_goes_to_a_release_that_was_itself_rolled_back() {
    let mut story = Story::serving_v1(3);
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);
    let request = story.request(&[("shop", "bad")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();
    story.kill(&name(1), "bad");
    story.pass(LONG);
    assert_eq!(story.served("shop"), everywhere("v2"));

    roll_back(&mut story).expect("there is an earlier release");
    story.pass(LONG);

    assert_eq!(story.served("shop"), everywhere("v1"));
}

#[test]
fn there_is_nothing_to_roll_back_to_after_the_first_deployment() {
    let mut story = Story::new(3);
    assert_eq!(roll_back(&mut story), Err(Refusal::NeverDeployed));

    let mut story = Story::serving_v1(3);
    assert_eq!(
        roll_back(&mut story),
        Err(Refusal::NoRollbackTarget("shop".into()))
    );
}

#[test]
fn a_warm_release_is_retired_even_if_an_aborted_deployment_was_under_way_when_its_time_was_up() {
    let mut story = Story::serving_v1(3);
    let request = story.request(&[("shop", "v2")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(Duration::from_mins(14));
    // The third never hears of the next one, and so never clears its idle slot for it.
    let request = story.request(&[("shop", "v3")]);
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.deaf = Some(name(3));
    story.pass(Duration::from_mins(12));
    story.deaf = None;
    story.pass(LONG);

    assert_eq!(story.served("shop"), everywhere("v2"));
    assert_eq!(story.running(), alone("v2"));
    assert!(story.coordinator.as_ref().is_some_and(|c| !c.is_retiring()));
}

// ---- Rolling ----

#[test]
fn a_rolling_deployment_takes_one_wave_after_the_other() {
    let mut story = Story::serving_v1(3);
    let request = story.request_by(Strategy::Rolling { parallelism: 2 }, &[("shop", "v2")]);

    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.run();

    let half = [Some("v2"), Some("v2"), Some("v1")].map(|v| v.map(str::to_owned));
    assert_eq!(story.served("shop"), half);
    story.pass(LONG);
    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.served("shop"), everywhere("v2"));
    assert_eq!(story.running(), alone("v2"));
}

#[test]
fn a_second_wave_that_fails_takes_the_first_one_back() {
    let mut story = Story::serving_v1(3); // G2
    story.machine(&name(3)).broken.insert("v2".to_owned());
    let request = story.request_by(Strategy::Rolling { parallelism: 2 }, &[("shop", "v2")]);

    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);

    assert!(matches!(story.outcome(), Some(Outcome::RolledBack { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

// ---- The command before the switch ----

#[test]
fn the_command_before_the_switch_runs_once_when_all_are_ready_and_before_any_gate_is_held() {
    let mut story = Story::serving_v1(3);

    let request = with_command(story.request(&[("shop", "v2")]));
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(Duration::from_secs(10));

    assert_eq!(story.phase(), "before the switch");
    assert_eq!(story.running(), vec![versions(&["v1", "v2"]); 3]);
    assert_eq!(story.served("shop"), everywhere("v1"));
    let holds = |story: &Story| story.machines.values().map(|m| m.holds).sum::<usize>();
    assert_eq!(holds(&story), 3, "only those of the first deployment");
    story.end_command(&Ok("migrated".to_owned()));
    story.pass(WARM);
    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(story.served("shop"), everywhere("v2"));
    assert_eq!(commands(&story), [(name(1), Epoch(2))]);
}

#[test]
fn a_command_before_the_switch_that_fails_aborts_and_leaves_nothing_new_running() {
    let mut story = Story::serving_v1(3); // G2
    story.command_ends = Some(Err(BeforeSwitchFailed("no such table".to_owned())));

    let request = with_command(story.request(&[("shop", "v2")]));
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(WARM);

    let Some(Outcome::Aborted { reason }) = story.outcome() else {
        panic!("{:?}", story.outcome());
    };
    assert!(reason.contains("no such table"), "{reason}");
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn an_agent_that_restarts_while_its_command_runs_waits_for_the_end_of_that_same_run() {
    let mut story = Story::serving_v1(3);
    let request = with_command(story.request(&[("shop", "v2")]));
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(Duration::from_secs(10));

    story.crash_agent(&name(1));
    story.restart_agent(&name(1));
    story.pass(Duration::from_secs(10));
    story.end_command(&Ok(String::new()));
    story.pass(WARM);

    assert_eq!(story.outcome(), Some(&Outcome::Promoted));
    assert_eq!(commands(&story), [(name(1), Epoch(2))]);
}

#[test]
fn a_coordinator_that_restarts_while_the_command_runs_aborts_and_never_asks_again() {
    let mut story = Story::serving_v1(3);
    let request = with_command(story.request(&[("shop", "v2")]));
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(Duration::from_secs(10));

    story.crash_coordinator();
    story.restart_coordinator();
    story.pass(WARM);
    story.end_command(&Ok(String::new()));
    story.pass(WARM);

    assert!(matches!(story.outcome(), Some(Outcome::Aborted { .. })));
    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(story.running(), alone("v1"));
    assert_eq!(commands(&story), [(name(1), Epoch(2))]);
}

#[test]
fn a_command_that_never_ends_is_given_up_on() {
    let mut story = Story::serving_v1(3);

    let request = with_command(story.request(&[("shop", "v2")]));
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(LONG);

    let Some(Outcome::Aborted { reason }) = story.outcome() else {
        panic!("{:?}", story.outcome());
    };
    assert!(reason.contains("`before_switch` in time"), "{reason}");
    assert_eq!(story.running(), alone("v1"));
}

#[test]
fn a_prepared_deployment_runs_its_command_when_it_is_promoted_and_a_rollback_runs_none() {
    let mut story = Story::serving_v1(3);
    story.command_ends = Some(Ok(String::new()));
    let mut request = with_command(story.request(&[("shop", "v2")]));
    request.promotion = Promotion::Manual;
    story
        .deploy(request)
        .expect("an idle fleet takes a request");
    story.pass(WARM);
    assert_eq!(commands(&story), []);

    story.command(Command::Promote).expect("it is ready");
    story.pass(WARM);
    assert_eq!(commands(&story), [(name(1), Epoch(2))]);
    roll_back(&mut story).expect("there is an earlier release");
    story.pass(WARM);

    assert_eq!(story.served("shop"), everywhere("v1"));
    assert_eq!(commands(&story), [(name(1), Epoch(2))]);
}
